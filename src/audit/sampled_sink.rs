//! Fewer events of busy tokens, and an exact account of the rest.
//!
//! A token that is used a thousand times a second says the same thing a thousand times. This sink passes on a few
//! *allowed* events of each token in each period, the first one always, and counts the others.
//!
//! # What it guarantees
//! * Only allowed requests of proved tokens are sampled. What was refused, passed, undecided, would have been forbidden,
//!   or was done at the desk is always passed on.
//! * What is not passed on is counted ([`AuditTally::sampled`]), and nothing else is missing.
//! * Time is the events' own. A clock that is stepped back by a period or more begins a new one.
//!
//! # When things fail
//! | what | what happens |
//! |---|---|
//! | the sink within fails or panics | its error is the answer, and the event has not used up its token's share: an event that has to be on record is never waved through because others failed before it |
//! | more tokens are in use than it keeps track of | the one that was longest not in use begins a new period at its next event: more is passed on, nothing is lost |
//!
//! # Cost
//! A mutex and three look-ups in an ordered map, for an allowed event. A tracked token takes some 150 bytes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::recent::Recent;
use super::{Action, AuditError, AuditEvent, AuditSink, AuditTally, Flush, Outcome, catch};
use crate::clock::Timestamp;
use crate::id::TokenId;

/// Passes on some of the allowed events of each token, and counts the rest. A clone is another handle to the same sink.
///
/// It belongs *outside* a [`QueuedSink`](crate::QueuedSink), so that what is not wanted takes no place in the queue, and
/// *beside* an [`AuditHistory`](crate::AuditHistory), which needs every event to count.
///
/// # Security
/// Under [`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse) a sampled request is admitted with no record of its
/// own: that some were left out is only told by their number.
///
/// # Example
/// ```
/// use tower_token_auth::{AuditHistory, FanOut, QueuedSink, SampledSink, TracingSink};
///
/// let history = AuditHistory::new();
/// let written = SampledSink::new(QueuedSink::new(TracingSink::new())?);
/// let audit = FanOut::default().and(history.clone()).and(written);
/// # Ok::<(), tower_token_auth::BuildError>(())
/// ```
#[derive(Clone)]
pub struct SampledSink(Arc<Sampling>);

/// Configures a [`SampledSink`].
#[must_use = "`build` makes the sink"]
pub struct SampledSinkBuilder {
    inner: Arc<dyn AuditSink>,
    passed_on: u32,
    period: Duration,
    tokens: usize,
}

struct Sampling {
    inner: Arc<dyn AuditSink>,
    passed_on: u32,
    period: Duration,
    shares: Mutex<Recent<TokenId, Share>>,
    accounts: Accounts,
}

/// What a token has had of its period.
struct Share {
    since: Timestamp,
    passed_on: u32,
}

/// In decisions; `written` and `lost` are for a sink within that keeps no tally.
#[derive(Default)]
struct Accounts {
    sampled: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
}

impl SampledSink {
    /// At most 10 allowed events of a token in a minute.
    pub fn new(inner: impl AuditSink) -> Self {
        Self::builder(inner).build()
    }

    /// Before `inner`, to be configured.
    pub fn builder(inner: impl AuditSink) -> SampledSinkBuilder {
        SampledSinkBuilder { inner: Arc::new(inner), passed_on: 10, period: Duration::from_secs(60), tokens: 10_000 }
    }
}

impl SampledSinkBuilder {
    /// How many allowed events of a token are passed on in each period, at least 1. Default 10: one is a proof of life,
    /// ten show what kind of thing it does.
    pub fn passed_on(self, events: u32) -> Self {
        Self { passed_on: events.max(1), ..self }
    }

    /// How long a period is. A token's begins with its first event after the last. Default 1 minute, so that a trail
    /// tells to the minute when a token was in use.
    pub fn period(self, period: Duration) -> Self {
        Self { period, ..self }
    }

    /// How many tokens are kept track of, at least 1. Default 10,000.
    pub fn tokens(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// The sink.
    pub fn build(self) -> SampledSink {
        let Self { inner, passed_on, period, tokens } = self;
        let (shares, accounts) = (Mutex::new(Recent::new(tokens)), Accounts::default());
        SampledSink(Arc::new(Sampling { inner, passed_on, period, shares, accounts }))
    }
}

impl Sampling {
    /// No code of others runs under the lock, so a poisoned one guards nothing half-done.
    fn shares(&self) -> MutexGuard<'_, Recent<TokenId, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from a token's share; answers the period it was taken from.
    fn take(&self, id: TokenId, at: Timestamp) -> Option<Timestamp> {
        let mut shares = self.shares();
        let share = shares.touch(id, || Share { since: at, passed_on: 0 });
        if is_over(share.since, at, self.period) {
            *share = Share { since: at, passed_on: 0 };
        }
        let has_left = share.passed_on < self.passed_on;
        share.passed_on += u32::from(has_left);
        has_left.then_some(share.since)
    }

    /// Gives back what was taken in vain, unless its period is over.
    fn give_back(&self, id: TokenId, since: Timestamp) {
        let mut shares = self.shares();
        if let Some(share) = shares.get_mut(&id).filter(|share| share.since == since) {
            share.passed_on = share.passed_on.saturating_sub(1);
        }
    }

    fn pass_on(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let recorded = catch(|| self.inner.record(event));
        let account = if recorded.is_ok() { &self.accounts.written } else { &self.accounts.lost };
        account.fetch_add(event.decisions(), Ordering::Relaxed);
        recorded
    }
}

/// Whether a period is over, also by a clock that was stepped back.
pub(super) fn is_over(since: Timestamp, at: Timestamp, period: Duration) -> bool {
    at.since(since) >= period || since.since(at) >= period
}

/// The token of an event that may be left out.
fn admitted(event: &AuditEvent<'_>) -> Option<TokenId> {
    let admitted = event.action() == Action::Authenticate && event.outcome() == Outcome::Allowed;
    event.proved().filter(|_| admitted).map(|token| token.id())
}

impl AuditSink for SampledSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let Some(id) = admitted(event) else { return self.0.pass_on(event) };
        let Some(since) = self.0.take(id, event.at()) else {
            self.0.accounts.sampled.fetch_add(event.decisions(), Ordering::Relaxed);
            return Ok(());
        };
        let recorded = self.0.pass_on(event);
        if recorded.is_err() {
            self.0.give_back(id, since);
        }
        recorded
    }

    fn wants(&self, outcome: Outcome) -> bool {
        self.0.inner.wants(outcome)
    }

    fn can_fail(&self) -> bool {
        self.0.inner.can_fail()
    }

    /// That of the sink within, and what was sampled.
    fn tally(&self) -> Option<AuditTally> {
        let read = |account: &AtomicU64| account.load(Ordering::Relaxed);
        let Accounts { sampled, written, lost } = &self.0.accounts;
        let sampled = AuditTally { sampled: read(sampled), ..AuditTally::default() };
        let settled = || AuditTally { written: read(written), lost: read(lost), ..AuditTally::default() };
        Some(self.0.inner.tally().unwrap_or_else(settled).plus(sampled))
    }

    fn flush(&self) -> Flush {
        self.0.inner.flush()
    }
}

impl fmt::Debug for SampledSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SampledSink").field("tally", &self.tally()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SampledSinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed_on, period, tokens, .. } = self;
        let mut debug = f.debug_struct("SampledSinkBuilder");
        debug.field("passed_on", passed_on).field("period", period).field("tokens", tokens).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::audit::FanOut;
    use crate::audit::fixtures::{allowed, anonymous, claimed, desk, forbidden, id, would_forbid};
    use crate::decision::Reason;
    use crate::test_util::RecordingSink;

    fn sink(inner: &RecordingSink, passed_on: u32) -> SampledSink {
        SampledSink::builder(inner.clone()).passed_on(passed_on).period(Duration::from_millis(100)).build()
    }

    fn tally(sink: &impl AuditSink) -> [u64; 3] {
        let tally = sink.tally().unwrap();
        [tally.written, tally.sampled, tally.lost]
    }

    #[test]
    fn only_admitted_requests_are_sampled() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 1);
        let passed = AuditEvent { outcome: Outcome::Passed, ..anonymous() };
        let undecided = AuditEvent { outcome: Outcome::Unavailable, ..allowed(1) };
        let others =
            [forbidden(1), would_forbid(1), claimed(Reason::Mismatch, 1), anonymous(), desk(1), passed, undecided];
        for event in others.iter().chain(&others) {
            sink.record(event).unwrap();
        }
        assert_eq!((inner.take().len(), tally(&sink)), (14, [14, 0, 0]));
        for _ in 0..7 {
            sink.record(&allowed(1)).unwrap();
        }
        assert_eq!((inner.take().len(), tally(&sink)), (1, [15, 6, 0]));
    }

    #[test]
    fn a_period_begins_with_the_first_event_after_the_last_one() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 2);
        for at in [1_000, 1_001, 1_002, 1_099, 1_100, 1_150, 1_199, 5_000] {
            sink.record(&allowed(1).at_milli(at)).unwrap();
        }
        let passed_on: Vec<_> = inner.take().iter().map(|event| event.at.unix_millis()).collect();
        assert_eq!(passed_on, [1_000, 1_001, 1_100, 1_150, 5_000]);
        for at in [4_990, 4_980, 4_970] {
            sink.record(&allowed(1).at_milli(at)).unwrap();
        }
        assert_eq!(inner.take().len(), 1, "threads overtake one another: still the same period");
        sink.record(&allowed(1).at_milli(10)).unwrap();
        assert_eq!(inner.take().len(), 1, "the clock was stepped back");
    }

    #[test]
    fn what_is_not_taken_uses_up_no_share() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 2);
        for break_it in [RecordingSink::fail_all, RecordingSink::panic_all] {
            break_it(&inner, true);
            for _ in 0..5 {
                assert!(sink.record(&allowed(1)).is_err(), "never waved through");
            }
            break_it(&inner, false);
        }
        assert_eq!(tally(&sink), [0, 0, 10]);
        for _ in 0..5 {
            sink.record(&allowed(1)).unwrap();
        }
        assert_eq!((inner.take().len(), tally(&sink)), (2, [2, 3, 10]));
    }

    #[test]
    fn a_token_that_finds_no_place_begins_anew_and_nothing_is_lost() {
        let inner = RecordingSink::new();
        let sink = SampledSink::builder(inner.clone()).passed_on(1).tokens(2).build();
        for number in [1, 2, 1, 3, 1, 2] {
            sink.record(&allowed(number)).unwrap();
        }
        // 3 pushed 2 out.
        assert_eq!((inner.take().len(), tally(&sink)), (4, [4, 2, 0]));
        (0..10_000).for_each(|number| sink.record(&allowed(number)).unwrap());
        assert_eq!(sink.0.shares().sizes(), (2, 2));
        assert_eq!(tally(&sink).iter().sum::<u64>(), 10_006);
    }

    #[test]
    fn it_composes_with_others_and_counts_each_event_once() {
        let (all, some) = (RecordingSink::new(), RecordingSink::new());
        // A sink within that keeps accounts of its own: three of nine, and then one of three.
        let sampled = SampledSink::builder(sink(&some, 3)).passed_on(1).build();
        let both = FanOut::new([Arc::new(all.clone()) as Arc<dyn AuditSink>, Arc::new(sampled)]);
        (0..9).for_each(|_| both.record(&allowed(1)).unwrap());
        assert_eq!((all.take().len(), tally(&both)), (9, [1, 8, 0]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_token_has_its_share_of_each_period_and_the_rest_is_counted_exactly(
            share in 1..4_u32,
            steps in prop::collection::vec((0..3_u64, 0..40_u64, prop::bool::weighted(0.2)), 1..120),
        ) {
            let inner = RecordingSink::new();
            let sink = sink(&inner, share);
            let (mut now, mut lost) = (1_000, 0);
            // When a token's period began, and what it has had of it.
            let mut model = BTreeMap::new();
            let (mut expected, mut sampled) = (Vec::new(), 0);
            for (number, later, fails) in steps.iter().copied() {
                now += later;
                inner.fail_all(fails);
                let recorded = sink.record(&allowed(number).at_milli(now));
                let (since, had) = model.entry(number).or_insert((now, 0));
                if now - *since >= 100 {
                    (*since, *had) = (now, 0);
                }
                if *had == share {
                    prop_assert!(recorded.is_ok());
                    sampled += 1;
                } else if fails {
                    prop_assert!(recorded.is_err());
                    lost += 1;
                } else {
                    *had += 1;
                    expected.push((id(number), now));
                }
            }
            let passed: Vec<_> = inner.take().iter().map(|it| (it.token_id.unwrap(), it.at.unix_millis())).collect();
            prop_assert_eq!(tally(&sink), [passed.len() as u64, sampled, lost]);
            prop_assert_eq!(passed.len() as u64 + sampled + lost, steps.len() as u64);
            prop_assert_eq!(passed, expected);
        }
    }
}
