//! An alarm: one token has been refused too often.
//!
//! Refusals are many and mostly harmless; fifty of one token within a minute are a script that was not told of a
//! rotation, or somebody who guesses. This sink passes every event on, and adds one
//! [`Action::ReportThreshold`](crate::Action::ReportThreshold) where that happens, to alert on.
//!
//! # How it counts
//! 1. A refusal counts for the token whose id was claimed or proved, whatever the reason: a wrong secret, a dead token, a
//!    scope that is too small, the policy.
//! 2. An id that the store does not know is no token and does not count. Anybody can make those up, a new one for each
//!    request: counting them would fill the table with nothing, and there is no owner to warn.
//! 3. When the last so many refusals of a token lie within the window, that is reported: at once, and then no more
//!    than once per token and window while it goes on.
//!
//! The report names the token as claimed, or, where the last refusal was of a proved token, as handled, with owner,
//! label and scope; the last refusal's reason; how many refusals there were without a lull since the last report, and
//! when the first of them was.
//!
//! # When things fail
//! | what | what happens |
//! |---|---|
//! | the sink within does not take the refusal | its error is the answer; the refusal counts |
//! | it does not take the report | the token's next refusal brings it up again |
//! | more tokens are refused than it keeps track of | the one that was longest not refused is counted from the beginning |
//! | the wall clock is stepped back by a window or more | the token is counted from the beginning |
//!
//! # Cost
//! Nothing but a comparison for what was not refused. For a refusal a mutex and three look-ups in an ordered map. A
//! tracked token takes 8 bytes per refusal of the threshold and some 200: with the defaults the table is at most 7 MiB.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::event::{Repeated, Subject};
use super::recent::Recent;
use super::sampled_sink::is_over;
use super::{Action, AuditError, AuditEvent, AuditSink, AuditTally, Flush, Outcome, catch};
use crate::clock::Timestamp;
use crate::id::TokenId;

/// Passes every event on, and reports a token that was refused so often within a while. A clone is another handle to
/// the same sink.
///
/// It belongs *outside* a [`QueuedSink`](crate::QueuedSink), which sums up refusals and forgets their ids; a report takes
/// one of the places that noise can not use up. Around a [`FanOut`](crate::FanOut) its reports go to all of them.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{QueuedSink, ThresholdSink, TracingSink};
///
/// let queue = QueuedSink::new(TracingSink::new())?;
/// let audit = ThresholdSink::builder(queue).refusals(20).window(Duration::from_secs(60)).build();
/// # Ok::<(), tower_token_auth::BuildError>(())
/// ```
#[derive(Clone)]
pub struct ThresholdSink(Arc<Threshold>);

/// Configures a [`ThresholdSink`].
#[must_use = "`build` makes the sink"]
pub struct ThresholdSinkBuilder {
    inner: Arc<dyn AuditSink>,
    refusals: usize,
    window: Duration,
    tokens: usize,
}

struct Threshold {
    inner: Arc<dyn AuditSink>,
    refusals: usize,
    window: Duration,
    refused: Mutex<Recent<TokenId, Refusals>>,
}

/// What a token was refused.
struct Refusals {
    /// The last ones within the window, at most as many as the threshold.
    times: VecDeque<Timestamp>,
    /// Those without a lull since the last report.
    run: Repeated,
    /// No report before this.
    quiet_until: Option<Timestamp>,
}

impl ThresholdSink {
    /// Reports 50 refusals of one token within a minute.
    pub fn new(inner: impl AuditSink) -> Self {
        Self::builder(inner).build()
    }

    /// Before `inner`, to be configured.
    pub fn builder(inner: impl AuditSink) -> ThresholdSinkBuilder {
        ThresholdSinkBuilder { inner: Arc::new(inner), refusals: 50, window: Duration::from_secs(60), tokens: 10_000 }
    }
}

impl ThresholdSinkBuilder {
    /// How many refusals are too many, at least 1. Default 50: more than a client's retries, less than a guesser's minute.
    pub fn refusals(self, refusals: usize) -> Self {
        Self { refusals: refusals.max(1), ..self }
    }

    /// Within which time. Default 1 minute.
    pub fn window(self, window: Duration) -> Self {
        Self { window, ..self }
    }

    /// How many tokens are kept track of, at least 1. Default 10,000.
    pub fn tokens(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// The sink.
    pub fn build(self) -> ThresholdSink {
        let Self { inner, refusals, window, tokens } = self;
        ThresholdSink(Arc::new(Threshold { inner, refusals, window, refused: Mutex::new(Recent::new(tokens)) }))
    }
}

impl Threshold {
    /// No code of others runs under the lock, so a poisoned one guards nothing half-done.
    fn refused(&self) -> MutexGuard<'_, Recent<TokenId, Refusals>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal; answers what is to be reported.
    fn count(&self, id: TokenId, at: Timestamp) -> Option<Repeated> {
        let mut refused = self.refused();
        let refusals = refused.touch(id, || Refusals::new(at));
        refusals.add(at, self.refusals, self.window);
        let due = refusals.times.len() >= self.refusals && refusals.quiet_until.is_none_or(|until| until <= at);
        due.then(|| {
            refusals.quiet_until = Some(at + self.window);
            std::mem::replace(&mut refusals.run, Repeated { count: 0, first_at: at })
        })
    }

    /// A report that was not taken is due again.
    fn not_reported(&self, id: TokenId, run: Repeated) {
        if let Some(refusals) = self.refused().get_mut(&id) {
            refusals.quiet_until = None;
            refusals.run = Repeated { count: refusals.run.count + run.count, ..run };
        }
    }
}

impl Refusals {
    fn new(at: Timestamp) -> Self {
        Self { times: VecDeque::new(), run: Repeated { count: 0, first_at: at }, quiet_until: None }
    }

    fn add(&mut self, at: Timestamp, most: usize, window: Duration) {
        if self.times.back().is_some_and(|last| last.since(at) >= window) {
            *self = Self::new(at);
        }
        let before = self.times.len();
        while self.times.front().is_some_and(|first| is_over(*first, at, window)) {
            self.times.pop_front();
        }
        if self.times.len() < before {
            // A lull: only what is left counts.
            self.run.count = self.run.count.min(self.times.len() as u64);
            self.run.first_at = self.times.front().copied().unwrap_or(at).max(self.run.first_at);
        } else if self.times.len() >= most {
            self.times.pop_front();
        }
        if self.run.count == 0 {
            self.run.first_at = at;
        }
        self.times.push_back(at);
        self.run.count += 1;
    }
}

/// The report of a refusal that was one too many.
fn report(last: &AuditEvent<'_>, run: Repeated) -> AuditEvent<'static> {
    let subject = match last.proved() {
        Some(token) => Subject::Handled {
            id: Some(token.id()),
            owner: Some(Cow::Owned(token.owner().clone())),
            label: Some(Cow::Owned(token.label().clone())),
            scope: Some(token.scope()),
        },
        None => last.claimed_id().map_or(Subject::Nobody, Subject::Claimed),
    };
    AuditEvent::of_several(Action::ReportThreshold, Outcome::Refused, subject, last.at(), run).because(last.reason())
}

impl AuditSink for ThresholdSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let recorded = catch(|| self.0.inner.record(event));
        if let Some(id) = event.refused_token() {
            if let Some(run) = self.0.count(id, event.at()) {
                if catch(|| self.0.inner.record(&report(event, run))).is_err() {
                    self.0.not_reported(id, run);
                }
            }
        }
        recorded
    }

    /// Who does not want refusals hears of no threshold either.
    fn wants(&self, outcome: Outcome) -> bool {
        self.0.inner.wants(outcome)
    }

    fn can_fail(&self) -> bool {
        self.0.inner.can_fail()
    }

    fn tally(&self) -> Option<AuditTally> {
        self.0.inner.tally()
    }

    fn flush(&self) -> Flush {
        self.0.inner.flush()
    }
}

impl fmt::Debug for ThresholdSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Threshold { refusals, window, .. } = &*self.0;
        f.debug_struct("ThresholdSink").field("refusals", refusals).field("window", window).finish_non_exhaustive()
    }
}

impl fmt::Debug for ThresholdSinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refusals, window, tokens, .. } = self;
        let mut debug = f.debug_struct("ThresholdSinkBuilder");
        debug.field("refusals", refusals).field("window", window).field("tokens", tokens).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::fixtures::{allowed, anonymous, claimed, desk, forbidden, id, token, would_forbid};
    use crate::decision::{Reason, UnavailableCause};
    use crate::test_util::{RecordedEvent, RecordingSink};

    fn sink(inner: &RecordingSink, refusals: usize) -> ThresholdSink {
        ThresholdSink::builder(inner.clone()).refusals(refusals).window(Duration::from_millis(100)).build()
    }

    fn reports(inner: &RecordingSink) -> Vec<RecordedEvent> {
        inner.take().into_iter().filter(|event| event.action == Action::ReportThreshold).collect()
    }

    fn refuse(sink: &ThresholdSink, times: impl IntoIterator<Item = u64>) {
        times.into_iter().for_each(|at| sink.record(&claimed(Reason::Mismatch, 1).at_milli(at)).unwrap());
    }

    #[test]
    fn every_refusal_of_a_token_counts_and_nothing_else() {
        let reasons = [Reason::Mismatch, Reason::Expired, Reason::Revoked, Reason::Paused, Reason::OwnerBarred];
        let dead = reasons.map(|reason| claimed(reason, 1));
        let policy = AuditEvent { reason: Some(Reason::Policy), ..forbidden(1) };
        let undecided = Reason::Unavailable(UnavailableCause::StoreFailed);
        let undecided = AuditEvent { outcome: Outcome::Unavailable, ..claimed(undecided, 1) };
        let abandoned = AuditEvent { outcome: Outcome::Abandoned, reason: None, ..claimed(Reason::Mismatch, 1) };
        let at_the_desk = AuditEvent { outcome: Outcome::Refused, ..desk(1) };
        let counting = dead.into_iter().chain([forbidden(1), policy]).map(|event| (event, 1));
        let others =
            [allowed(1), would_forbid(1), anonymous(), claimed(Reason::Unknown, 1), undecided, abandoned, at_the_desk];
        for (event, expected) in counting.chain(others.map(|event| (event, 0))) {
            let inner = RecordingSink::new();
            let sink = sink(&inner, 3);
            (0..3).for_each(|_| sink.record(&event).unwrap());
            assert_eq!(inner.events().len(), 3 + expected, "{event:?}");
            assert_eq!(reports(&inner).len(), expected, "{event:?}");
        }
    }

    #[test]
    fn ids_that_the_store_does_not_know_take_no_place() {
        let sink = sink(&RecordingSink::new(), 3);
        (0..1_000).for_each(|number| sink.record(&claimed(Reason::Unknown, number)).unwrap());
        assert_eq!(sink.0.refused().sizes(), (0, 0));
    }

    #[test]
    fn a_report_says_which_token_how_often_since_when_and_why_last() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 3);
        refuse(&sink, [1_000, 1_010]);
        sink.record(&claimed(Reason::Paused, 1).at_milli(1_099)).unwrap();
        let events = inner.take();
        assert_eq!(events[2].action, Action::Authenticate, "the refusal itself comes first");
        let report = &events[3];
        assert_eq!(
            (report.action, report.outcome, report.reason),
            (Action::ReportThreshold, Outcome::Refused, Some(Reason::Paused))
        );
        assert_eq!((report.claimed_id, report.token_id, report.count), (Some(id(1)), None, 3));
        assert_eq!((report.at.unix_millis(), &report.path, &report.actor), (1_099, &None, &None));
        for at in 2_000..2_003 {
            sink.record(&forbidden(1).at_milli(at)).unwrap();
        }
        let report = reports(&inner).remove(0);
        assert_eq!((report.claimed_id, report.token_id), (None, Some(id(1))));
        assert_eq!(
            (report.owner.as_deref(), report.reason),
            (Some(token(1).owner().as_str()), Some(Reason::Forbidden))
        );
    }

    #[test]
    fn refusals_that_lie_further_apart_are_no_alarm() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 3);
        refuse(&sink, (0..100).map(|n| n * 50));
        assert_eq!(reports(&inner).len(), 0, "two of three within the window, for ever");
        refuse(&sink, [10_000, 10_099, 10_100, 10_101]);
        let reports = reports(&inner);
        assert_eq!(
            (reports.len(), reports[0].count, reports[0].at.unix_millis()),
            (1, 3, 10_101),
            "not those of another window"
        );
    }

    #[test]
    fn while_it_goes_on_there_is_one_report_a_window_and_no_refusal_is_counted_twice() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 3);
        refuse(&sink, 1_000..1_350);
        let counts: Vec<_> = reports(&inner).iter().map(|report| (report.at.unix_millis(), report.count)).collect();
        assert_eq!(counts, [(1_002, 3), (1_102, 100), (1_202, 100), (1_302, 100)]);
    }

    #[test]
    fn a_report_that_was_not_taken_comes_with_the_next_refusal() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 3);
        refuse(&sink, [1_000, 1_001]);
        for break_it in [RecordingSink::fail_all, RecordingSink::panic_all] {
            break_it(&inner, true);
            assert!(sink.record(&claimed(Reason::Mismatch, 1).at_milli(1_002)).is_err());
            break_it(&inner, false);
        }
        assert_eq!(reports(&inner).len(), 0);
        refuse(&sink, [1_003, 1_004]);
        let reports = reports(&inner);
        assert_eq!((reports.len(), reports[0].count), (1, 5));
    }

    #[test]
    fn a_clock_that_is_stepped_back_does_not_silence_it() {
        let inner = RecordingSink::new();
        let sink = sink(&inner, 3);
        refuse(&sink, [90_000, 90_001, 90_002, 1_000, 1_001]);
        assert_eq!(reports(&inner).len(), 1);
        refuse(&sink, [1_002]);
        assert_eq!(reports(&inner).len(), 1);
    }

    #[test]
    fn a_flood_of_ids_stays_within_the_bound() {
        let inner = RecordingSink::new();
        let sink = ThresholdSink::builder(inner.clone()).refusals(2).tokens(10).build();
        for number in 0..10_000 {
            sink.record(&claimed(Reason::Mismatch, number)).unwrap();
            sink.record(&claimed(Reason::Mismatch, 0)).unwrap();
        }
        assert_eq!(sink.0.refused().sizes(), (10, 10));
        assert_eq!(reports(&inner).iter().filter(|report| report.claimed_id == Some(id(0))).count(), 1);
        assert!(sink.0.refused().get(&id(0)).unwrap().times.len() <= 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against all refusals ever, looked through each time.
        #[test]
        fn it_reports_exactly_when_so_many_refusals_lie_within_the_window(
            threshold in 1..6_usize,
            steps in prop::collection::vec((0..2_u64, 0..60_u64), 1..120),
        ) {
            let inner = RecordingSink::new();
            let sink = sink(&inner, threshold);
            let (mut now, mut all, mut expected) = (1_000, Vec::new(), Vec::new());
            let mut quiet = [0_u64; 2];
            for (number, later) in steps {
                now += later;
                sink.record(&claimed(Reason::Mismatch, number).at_milli(now)).unwrap();
                all.push((number, now));
                let within = all.iter().filter(|(other, at)| *other == number && now - at < 100).count();
                let quiet = &mut quiet[number as usize];
                if within >= threshold && *quiet <= now {
                    *quiet = now + 100;
                    expected.push((id(number), now));
                }
            }
            let told: Vec<_> = reports(&inner).iter().map(|it| (it.claimed_id.unwrap(), it.at.unix_millis())).collect();
            prop_assert_eq!(told, expected);
        }
    }
}
