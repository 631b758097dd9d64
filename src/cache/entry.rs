//! What is remembered of one token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::generations::Mark;
use super::proof::Proofs;
use super::{Hit, News};
use crate::clock::{Moment, Monotonic, Timestamp};
use crate::decision::{AuthenticatedToken, GateId};
use crate::secret::SecretHash;
use crate::token::{DeadReason, RetiringSecret, SecretSlot, TokenRecord};

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

    /// What becomes of a request that shows the secret in `slot`, if it is proved to be in one, while this is trusted.
    /// `None` where it takes more to decide.
    pub(crate) fn hit(
        &self,
        token: &AuthenticatedToken,
        slot: Option<SecretSlot>,
        trust: &Trust,
        now: Moment,
    ) -> Option<Result<Hit, DeadReason>> {
        if let Err(reason) = self.record.check_live(now.wall) {
            return Some(Err(reason));
        }
        let slot = slot.filter(|slot| self.record.live_secret(*slot, now.wall).is_some())?;
        let due = trust.is_due(now) && first(&self.told);
        let successor = self.tells_successor(slot, now.wall);
        let news = (due || successor.is_some()).then(|| Box::new(News { due, successor }));
        Some(Ok(Hit { token: token.by(slot), news }))
    }

    /// Until when a [hit](Self::hit) at `now` would be the same again, unless something is changed: then the entry has to
    /// be asked.
    pub(crate) fn unchanged_until(&self, slot: SecretSlot, trust: &Trust, now: Moment) -> FreshUntil {
        let FreshUntil(trusted) = trust.end(now);
        let retires = self.record.retiring().map(RetiringSecret::until).filter(|_| slot == SecretSlot::Retiring);
        let ends = [self.record.expires_at(), retires].into_iter().flatten();
        let due = trust.due.filter(|_| !self.told.load(Ordering::Relaxed));
        FreshUntil(Moment {
            wall: ends.fold(trusted.wall, Ord::min),
            monotonic: due.into_iter().fold(trusted.monotonic, Ord::min),
        })
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

    /// The end of what makes it hold now.
    fn end(&self, now: Moment) -> FreshUntil {
        self.excused.filter(|_| !self.until.holds(now)).unwrap_or(self.until)
    }

    /// Whether it is time to look the record up again.
    fn is_due(&self, now: Moment) -> bool {
        self.due.is_some_and(|due| due <= now.monotonic)
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
        if self.known.record.version() > known.record.version() {
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

    fn limited(revision: Revision, barred: bool, narrowed: bool) -> Entry {
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
                let (before, after) = (limited(first, known.0, known.1), limited(second, answered.0, answered.1));
                before.updated(&after.known, None)
            };
            assert_eq!(limits(&updated(old, new)), answered, "a newer record");
            assert_eq!(limits(&updated(new, new)), answered, "a later answer");
            let lagging = updated(new, old);
            assert_eq!(limits(&lagging), (known.0 || answered.0, known.1 || answered.1), "an older record");
            assert_eq!(lagging.known.record.revision(), new);
        }
    }

    const TTL: Duration = Duration::from_secs(60);
    const AHEAD: Duration = Duration::from_secs(10);

    /// So many seconds by the wall clock, and by the monotonic one.
    fn at(wall: u64, monotonic: u64) -> Moment {
        let monotonic = Monotonic::from_start(Duration::from_secs(monotonic));
        Moment { wall: Timestamp::from_unix_seconds(wall), monotonic }
    }

    fn known(revision: u64) -> Arc<Known> {
        let (id, owner, label) = (TokenId::generate().unwrap(), OwnerId::new("o").unwrap(), Label::new("l").unwrap());
        let hash = SecretHash::parse("$sha256$v=1$AAAA").unwrap();
        let record = TokenRecord::new(id, owner, label, Scope::ReadOnly, hash, Timestamp::from_unix_seconds(1));
        Known::new(GateId::NONE, record.with_revision(Revision::new(revision)))
    }

    /// A record in its first revision that was made so many seconds after those of [`known`].
    fn made_later(seconds: u64) -> Arc<Known> {
        let known = known(1);
        let record = TokenRecord::new(
            known.record.id(),
            known.record.owner().clone(),
            known.record.label().clone(),
            known.record.scope(),
            known.record.secret().clone(),
            Timestamp::from_unix_seconds(1 + seconds),
        );
        Known::new(GateId::NONE, record)
    }

    fn entry(revision: u64) -> Entry {
        let trust = Some(Trust::since(at(100, 100), TTL, AHEAD));
        Entry { known: known(revision), proofs: Proofs::default(), trust }
    }

    #[test]
    fn trust_ends_where_either_clock_says_so() {
        let trust = Trust::since(at(100, 500), TTL, AHEAD);
        for (wall, monotonic, holds) in [
            (100, 500, true),
            (159, 559, true),
            (160, 559, false),
            (159, 560, false),
            (161, 559, false),
            (159, 561, false),
            (160, 560, false),
        ] {
            assert_eq!(trust.holds(at(wall, monotonic)), holds, "{wall} {monotonic}");
        }
    }

    #[test]
    fn a_record_is_due_so_long_before_its_end() {
        let due = |ahead| Trust::since(at(100, 500), TTL, ahead).due;
        assert_eq!(due(AHEAD), Some(at(0, 550).monotonic));
        assert_eq!(due(TTL * 2), Some(at(0, 500).monotonic), "at once");
        assert_eq!(due(Duration::ZERO), None, "never");
    }

    #[test]
    fn an_excuse_lasts_for_five_seconds_and_no_longer_than_it_may() {
        let trust = Trust::since(at(100, 500), TTL, AHEAD);
        let excused = trust.excuse(at(165, 565), TTL).unwrap();
        assert!(excused.holds(at(169, 569)));
        assert!(!excused.holds(at(170, 569)) && !excused.holds(at(169, 570)));
        assert_eq!(excused.due, Some(at(0, 567).monotonic), "asked again within the excuse");
        let last = excused.excuse(at(218, 618), TTL).unwrap();
        assert!(last.holds(at(219, 619)));
        assert!(!last.holds(at(220, 619)) && !last.holds(at(219, 620)));
        assert!(last.excuse(at(220, 619), TTL).is_none() && last.excuse(at(219, 620), TTL).is_none());
    }

    /// Two secrets, the old one until `retires`; the token until `expires`.
    fn rotated(retires: u64, expires: u64) -> Arc<Known> {
        let record = known(1).record.clone().with_expiry(Some(Timestamp::from_unix_seconds(expires)));
        let old = SecretHash::parse("$sha256$v=1$BBBB").unwrap();
        let retiring = RetiringSecret::new(old, Timestamp::from_unix_seconds(retires)).with_successor_used(true);
        Known::new(GateId::NONE, record.with_retiring(Some(retiring)))
    }

    #[test]
    fn until_a_hit_says_that_it_changes_it_is_the_same() {
        let grid = || (0..10).flat_map(|wall| (0..10).map(move |monotonic| at(wall, monotonic)));
        let (mut checked, mut ended) = (0, 0);
        for (retires, expires) in (1..9).flat_map(|retires| (1..9).map(move |expires| (retires, expires))) {
            for (slot, now) in SecretSlot::ALL.into_iter().flat_map(|slot| grid().map(move |now| (slot, now))) {
                let (known, trust) = (rotated(retires, expires), Trust::since(at(0, 1), TTL / 8, TTL / 20));
                let shown = |now| known.hit(&known.token, Some(slot), &trust, now).and_then(Result::ok);
                if !trust.holds(now) || shown(now).is_none() {
                    continue;
                }
                let until = known.unchanged_until(slot, &trust, now);
                for later in grid() {
                    let same = trust.holds(later) && shown(later).is_some_and(|hit| hit.news.is_none());
                    assert!(same || !until.holds(later), "{slot:?} {retires} {expires} {now:?} {later:?}");
                    checked += usize::from(until.holds(later));
                    ended += usize::from(!same);
                }
            }
        }
        assert!(checked > 10_000 && ended > 10_000, "{checked} {ended}");
    }

    fn tells_due(entry: &Entry, now: Moment) -> bool {
        let shown = Some(SecretSlot::Current);
        let hit = entry.known.hit(&entry.known.token, shown, &entry.trust.unwrap(), now).unwrap().unwrap();
        hit.news.is_some_and(|news| news.due)
    }

    #[test]
    fn a_due_record_is_told_of_once_and_again_when_it_is_excused() {
        let mut entry = entry(1);
        assert!(!tells_due(&entry, at(149, 149)));
        assert!(tells_due(&entry, at(150, 150)));
        assert!(!tells_due(&entry, at(150, 150)) && !tells_due(&entry, at(151, 151)));
        assert!(entry.excuse(at(160, 160), TTL));
        assert!(!tells_due(&entry, at(161, 161)));
        assert!(tells_due(&entry, at(162, 162)));
        assert!(!entry.excuse(at(220, 220), TTL), "it is over");
    }

    #[test]
    fn what_is_distrusted_is_neither_fresh_nor_excused() {
        let mut entry = Entry { trust: None, ..entry(1) };
        assert!(!entry.is_fresh(at(100, 100)));
        assert!(!entry.excuse(at(100, 100), TTL));
    }

    #[test]
    fn the_newer_revision_counts_and_of_equals_the_later() {
        let old = entry(2);
        let trust = Some(Trust::since(at(200, 200), TTL, AHEAD));
        for (revision, replaces) in [(1, false), (2, true), (3, true)] {
            let known = known(revision);
            let updated = old.updated(&known, trust);
            assert_eq!(Arc::ptr_eq(&updated.known, &known), replaces, "{revision}");
            assert!(updated.is_fresh(at(259, 259)), "the answer is trusted, whatever it said");
        }
    }

    #[test]
    fn a_record_that_was_made_later_counts_whatever_its_revision() {
        for (seconds, replaces) in [(0, false), (1, true)] {
            let known = made_later(seconds);
            assert_eq!(Arc::ptr_eq(&entry(2).updated(&known, None).known, &known), replaces, "{seconds}");
        }
    }
}
