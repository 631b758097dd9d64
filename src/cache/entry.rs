//! What is remembered of one token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::generations::Mark;
use super::proof::Proofs;
use crate::clock::{Moment, Monotonic, Timestamp};
use crate::decision::{AuthenticatedToken, GateId};
use crate::secret::SecretHash;
use crate::token::{SecretSlot, TokenRecord};

/// A record, and what handlers will be told of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) record: TokenRecord,
    pub(crate) token: AuthenticatedToken,
    /// Whether somebody has been told that the record is due: once is enough.
    told: AtomicBool,
    /// Whether somebody has been told that a rotation's new secret is in use.
    succeeded: AtomicBool,
}

impl Known {
    pub(crate) fn new(gate: GateId, record: TokenRecord) -> Arc<Self> {
        let token = AuthenticatedToken::of_record(gate, &record);
        Arc::new(Self { record, token, told: AtomicBool::new(false), succeeded: AtomicBool::new(false) })
    }

    /// The same record, limited by what was found beside an older revision of it, too.
    fn limited_by(self: &Arc<Self>, older: &TokenRecord) -> Arc<Self> {
        let own = (self.record.owner_barred(), self.record.narrowed());
        let (barred, narrowed) = (own.0 || older.owner_barred(), own.1 || older.narrowed());
        if own == (barred, narrowed) {
            return Arc::clone(self);
        }
        Self::new(self.token.gate(), self.record.clone().with_owner_barred(barred).with_narrowed(narrowed))
    }

    /// The hash of the current secret, where it was shown while a rotation phases out another, and the store may not
    /// know yet that it is in use. Answers so once.
    pub(crate) fn tells_successor(&self, shown: SecretSlot, now: Timestamp) -> Option<SecretHash> {
        let overlap = self.record.retiring().is_some_and(|old| now < old.until() && !old.successor_used());
        let shown = shown == SecretSlot::Current && overlap && first(&self.succeeded);
        shown.then(|| self.record.secret().clone())
    }
}

/// Whether this is the first time it is asked. Reading first keeps the line shared between cores: what is told of once
/// is asked often.
fn first(told: &AtomicBool) -> bool {
    !told.load(Ordering::Relaxed) && !told.swap(true, Ordering::Relaxed)
}

/// How long a record may be believed: until either clock has reached it. The monotonic clock stands still while a
/// machine sleeps, the wall clock can be stepped back; no record outlives both mistakes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshUntil(pub(crate) Moment);

impl FreshUntil {
    pub(crate) fn holds(self, now: Moment) -> bool {
        now.monotonic < self.0.monotonic && now.wall < self.0.wall
    }

    /// The earlier of both, by either clock.
    fn min(self, other: Self) -> Self {
        let (one, two) = (self.0, other.0);
        Self(Moment { wall: one.wall.min(two.wall), monotonic: one.monotonic.min(two.monotonic) })
    }
}

/// How far a record may be believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trust {
    /// When the answer is too old.
    until: FreshUntil,
    /// Believed so much longer, because the store could not be asked.
    excused: Option<FreshUntil>,
    /// When it is time to look the record up again; `None` for not before its end.
    due: Option<Monotonic>,
}

impl Trust {
    /// How long one failed look-up excuses a record: a store that is down is asked once in so long by those who wait.
    const EXCUSE: Duration = Duration::from_secs(5);
    /// How long after a failed look-up the next one is due: early enough to end within the excuse.
    const RETRY: Duration = Duration::from_secs(2);

    /// Trust in an answer to a question asked at `started`.
    pub(crate) fn since(started: Moment, ttl: Duration, ahead: Duration) -> Self {
        let due = (!ahead.is_zero()).then(|| started.monotonic + ttl.saturating_sub(ahead));
        Self { until: FreshUntil(started + ttl), excused: None, due }
    }

    pub(crate) fn holds(&self, now: Moment) -> bool {
        self.until.holds(now) || self.excused.is_some_and(|excused| excused.holds(now))
    }

    /// Goes on for a while, at most `max` past its end; `None` where that is over.
    fn excuse(&self, now: Moment, max: Duration) -> Option<Self> {
        let limit = FreshUntil(self.until.0 + max);
        let excused = Some(FreshUntil(now + Self::EXCUSE).min(limit));
        let due = Some(now.monotonic + Self::RETRY);
        limit.holds(now).then_some(Self { excused, due, ..*self })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) known: Arc<Known>,
    pub(crate) proofs: Proofs,
    /// `None` is distrust: ask the store before the next use. The proofs stay.
    pub(crate) trust: Option<Trust>,
}

impl Entry {
    pub(crate) fn is_fresh(&self, now: Moment) -> bool {
        self.trust.is_some_and(|trust| trust.holds(now))
    }

    /// Whether somebody is to be told that this record is due for a look-up. Answers so once.
    pub(crate) fn tells_due(&self, now: Moment) -> bool {
        let due = self.trust.and_then(|trust| trust.due).is_some_and(|due| due <= now.monotonic);
        due && first(&self.known.told)
    }

    /// Believes a proved record that has reached its end a little longer; `false` where nothing excuses it.
    pub(crate) fn excuse(&mut self, now: Moment, max: Duration) -> bool {
        let excused = self.trust.and_then(|trust| trust.excuse(now, max));
        if excused.is_some() {
            self.trust = excused;
            self.known.told.store(false, Ordering::Relaxed);
        }
        excused.is_some()
    }

    /// This entry after the store answered with `known`: the newer record counts, so a lagging replica cannot revive
    /// what was revoked. Of equal revisions the later answer counts: a bar on the owner changes no revision, nor does a
    /// policy. And neither may be lost with an older revision: a record that the desk has taught comes without them.
    pub(crate) fn updated(&self, known: &Arc<Known>, trust: Option<Trust>) -> Self {
        if self.known.record.revision() > known.record.revision() {
            self.known.told.store(false, Ordering::Relaxed);
            return Self { known: self.known.limited_by(&known.record), trust, ..self.clone() };
        }
        let proofs = self.proofs.carried(&self.known.record, &known.record);
        Self { known: Arc::clone(known), proofs, trust }
    }
}

/// A record that may be judged now, with the proofs there are.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) known: Arc<Known>,
    pub(crate) proofs: Proofs,
    /// Where the generations stood before the record was read.
    pub(crate) mark: Mark,
}

impl Found {
    pub(crate) fn of(entry: &Entry, mark: Mark) -> Self {
        Self { known: Arc::clone(&entry.known), proofs: entry.proofs, mark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{Label, OwnerId, TokenId};
    use crate::scope::Scope;
    use crate::secret::SecretHash;
    use crate::token::Revision;

    fn entry(revision: Revision, barred: bool, narrowed: bool) -> Entry {
        let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("laptop").unwrap());
        let hash = SecretHash::parse("$none$").unwrap();
        let id = TokenId::from_digest(&[0; 32]);
        let record = TokenRecord::new(id, owner, label, Scope::ReadWrite, hash, Timestamp::from_unix_seconds(1))
            .with_revision(revision)
            .with_owner_barred(barred)
            .with_narrowed(narrowed);
        Entry { known: Known::new(GateId::NONE, record), proofs: Proofs::default(), trust: None }
    }

    fn limits(entry: &Entry) -> (bool, bool) {
        let (record, token) = (&entry.known.record, &entry.known.token);
        assert_eq!(token.scope() == Scope::ReadOnly, record.narrowed(), "handlers are told the same");
        (record.owner_barred(), record.narrowed())
    }

    #[test]
    fn limits_belong_to_no_revision() {
        let (old, new) = (Revision::FIRST, Revision::FIRST.next());
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        for (known, answered) in flags.into_iter().flat_map(|known| flags.map(|answered| (known, answered))) {
            let updated = |first, second| {
                let (before, after) = (entry(first, known.0, known.1), entry(second, answered.0, answered.1));
                before.updated(&after.known, None)
            };
            assert_eq!(limits(&updated(old, new)), answered, "a newer record");
            assert_eq!(limits(&updated(new, new)), answered, "a later answer");
            let lagging = updated(new, old);
            assert_eq!(limits(&lagging), (known.0 || answered.0, known.1 || answered.1), "an older record");
            assert_eq!(lagging.known.record.revision(), new);
        }
    }
}
