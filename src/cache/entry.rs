//! What is remembered of one token.

use std::sync::Arc;
use std::time::Duration;

use super::News;
use super::bounded::Kept;
use super::generations::Mark;
use crate::clock::{Moment, Monotonic, Timestamp};
use crate::decision::{Known, Place};
use crate::secret::SecretHash;
use crate::token::{DeadReason, SecretSlot};

/// The secret that was shown, and what it tells the background. The news are boxed, because there rarely are any.
pub(super) type Shown = (SecretSlot, Option<Box<News>>);

impl Kept for Known {
    type Key = u128;

    fn key(&self) -> u128 {
        super::key_of(&self.id)
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

impl Known {
    /// What becomes of a request that shows the secret in `slot`, if it is proved to be in one, while this is trusted.
    /// `None` where it takes more to decide.
    pub(super) fn hit(
        &self,
        slot: Option<SecretSlot>,
        trust: &Trust,
        now: Moment,
    ) -> Option<Result<Shown, DeadReason>> {
        if let Err(reason) = self.check_live(now.wall) {
            return Some(Err(reason));
        }
        let slot = slot.filter(|slot| self.is_live(*slot, now.wall))?;
        let due = trust.is_due(now) && self.told.first();
        let successor = self.tells_successor(slot, now.wall);
        let news = (due || successor.is_some()).then(|| Box::new(News { due, successor }));
        Some(Ok((slot, news)))
    }

    /// Until when a [hit](Self::hit) at `now` would be the same again, unless something is changed: then the entry has to
    /// be asked.
    pub(crate) fn unchanged_until(&self, slot: SecretSlot, trust: &Trust, now: Moment) -> FreshUntil {
        let FreshUntil(trusted) = trust.end(now);
        let retires = self.retires_at().filter(|_| slot == SecretSlot::Retiring);
        let ends = [self.expires_at, retires].into_iter().flatten();
        let due = trust.due.filter(|_| !self.told.is_set());
        FreshUntil(Moment {
            wall: ends.fold(trusted.wall, Ord::min),
            monotonic: due.into_iter().fold(trusted.monotonic, Ord::min),
        })
    }

    /// The hash of the current secret, where it was shown while a rotation phases out another, and the store may not
    /// know yet that it is in use. Answers so once.
    pub(crate) fn tells_successor(&self, shown: SecretSlot, now: Timestamp) -> Option<SecretHash> {
        let overlap = self.retiring().is_some_and(|old| now < old.until() && !old.successor_used());
        let shown = shown == SecretSlot::Current && overlap && self.succeeded.first();
        shown.then(|| self.hash(SecretSlot::Current).cloned()).flatten()
    }

    /// How far it is believed, if it is; `ahead` is how long before its end it is due.
    pub(super) fn trust(&self, ahead: Duration) -> Option<Trust> {
        self.trusted.is_set().then(|| match (FreshUntil(self.until), self.excuse()) {
            (until, Some((excused, due))) => Trust { until, excused: Some(FreshUntil(excused)), due: Some(due) },
            (until, None) => Trust { until, excused: None, due: until.due(ahead) },
        })
    }

    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        self.trust(Duration::ZERO).is_some_and(|trust| trust.holds(now))
    }

    /// The same, believed until then.
    pub(super) fn trusted(mut self, until: Option<FreshUntil>) -> Self {
        self.set_excuse(None);
        self.until = until.map_or(Moment::START, |until| until.0);
        self.trusted.set(until.is_some());
        self
    }

    /// The same, believed a little longer though it has reached its end; `None` where nothing excuses it.
    pub(super) fn excused(&self, now: Moment, max: Duration) -> Option<Self> {
        let excused = self.trust(Duration::ZERO)?.excuse(now, max)?;
        let mut known = self.clone();
        known.set_excuse(excused.excused.map(|until| until.0).zip(excused.due));
        known.told.set(false);
        Some(known)
    }

    /// This entry after the store answered with `known`: the newer record counts, so a lagging replica cannot revive
    /// what was revoked. Of equal revisions the later answer counts: a bar on the owner changes no revision, nor does a
    /// policy. And neither may be lost with an older revision: a record that the desk has taught comes without them.
    pub(super) fn updated(&self, known: &Self, until: Option<FreshUntil>) -> Self {
        let mut newer = if self.version > known.version { self.clone() } else { known.clone() };
        if self.version > known.version {
            newer.owner_barred |= known.owner_barred;
            newer.narrowed |= known.narrowed;
            newer.told.set(false);
        } else {
            newer.carry_over(self);
        }
        newer.trusted(until)
    }
}

/// How long a record may be believed: until either clock has reached it. The monotonic clock stands still while a
/// machine sleeps, the wall clock can be stepped back; no record outlives both mistakes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshUntil(pub(crate) Moment);

impl FreshUntil {
    pub(crate) fn holds(self, now: Moment) -> bool {
        now.monotonic < self.0.monotonic && now.wall < self.0.wall
    }

    /// When it is time to look again, so long before the end; `None` for not before it.
    fn due(self, ahead: Duration) -> Option<Monotonic> {
        let end = self.0.monotonic;
        (!ahead.is_zero()).then(|| Monotonic::from_start(end.since(Monotonic::from_start(ahead))))
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

/// A record that may be judged now, with the proofs there are.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) known: Arc<Known>,
    /// Where the generations stood before the record was read.
    pub(crate) mark: Mark,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{Label, OwnerId, TokenId};
    use crate::scope::Scope;
    use crate::secret::SecretHash;
    use crate::token::{RetiringSecret, Revision, TokenRecord};

    fn limited(revision: Revision, barred: bool, narrowed: bool) -> Known {
        let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("laptop").unwrap());
        let hash = SecretHash::parse("$none$").unwrap();
        let id = TokenId::from_digest(&[0; 32]);
        let record = TokenRecord::new(id, owner, label, Scope::ReadWrite, hash, Timestamp::from_unix_seconds(1))
            .with_revision(revision)
            .with_owner_barred(barred)
            .with_narrowed(narrowed);
        Known::of_record(&record, |_| 0)
    }

    fn limits(known: &Known) -> (bool, bool) {
        (known.owner_barred, known.narrowed)
    }

    #[test]
    fn limits_belong_to_no_revision() {
        let (old, new) = (Revision::FIRST, Revision::FIRST.next());
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        for (known, answered) in flags.into_iter().flat_map(|known| flags.map(|answered| (known, answered))) {
            let updated = |first, second| {
                let (before, after) = (limited(first, known.0, known.1), limited(second, answered.0, answered.1));
                before.updated(&after, None)
            };
            assert_eq!(limits(&updated(old, new)), answered, "a newer record");
            assert_eq!(limits(&updated(new, new)), answered, "a later answer");
            let lagging = updated(new, old);
            assert_eq!(limits(&lagging), (known.0 || answered.0, known.1 || answered.1), "an older record");
            assert_eq!(lagging.version.revision(), new);
        }
    }

    const TTL: Duration = Duration::from_secs(60);
    const AHEAD: Duration = Duration::from_secs(10);

    /// So many seconds by the wall clock, and by the monotonic one.
    fn at(wall: u64, monotonic: u64) -> Moment {
        let monotonic = Monotonic::from_start(Duration::from_secs(monotonic));
        Moment { wall: Timestamp::from_unix_seconds(wall), monotonic }
    }

    fn record(made: u64, revision: u64) -> Known {
        Known::of_record(&stored(made, revision), |_| 0)
    }

    fn stored(made: u64, revision: u64) -> TokenRecord {
        let (id, owner, label) = (TokenId::generate().unwrap(), OwnerId::new("o").unwrap(), Label::new("l").unwrap());
        let hash = SecretHash::parse("$sha256$v=1$AAAA").unwrap();
        let record = TokenRecord::new(id, owner, label, Scope::ReadOnly, hash, Timestamp::from_unix_seconds(made));
        record.with_revision(Revision::new(revision))
    }

    fn since(started: Moment) -> FreshUntil {
        FreshUntil(started + TTL)
    }

    fn entry(revision: u64) -> Known {
        record(1, revision).trusted(Some(since(at(100, 100))))
    }

    fn trust(started: Moment, ahead: Duration) -> Trust {
        record(1, 1).trusted(Some(since(started))).trust(ahead).unwrap()
    }

    #[test]
    fn trust_ends_where_either_clock_says_so() {
        let trust = trust(at(100, 500), AHEAD);
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
        let due = |ahead| trust(at(100, 500), ahead).due;
        assert_eq!(due(AHEAD), Some(at(0, 550).monotonic));
        assert_eq!(due(TTL), Some(at(0, 500).monotonic), "at once");
        assert_eq!(due(Duration::ZERO), None, "never");
    }

    #[test]
    fn an_excuse_lasts_for_five_seconds_and_no_longer_than_it_may() {
        let trust = trust(at(100, 500), AHEAD);
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
    fn rotated(retires: u64, expires: u64) -> Known {
        let old = SecretHash::parse("$sha256$v=1$BBBB").unwrap();
        let retiring = RetiringSecret::new(old, Timestamp::from_unix_seconds(retires)).with_successor_used(true);
        let record =
            stored(1, 1).with_expiry(Some(Timestamp::from_unix_seconds(expires))).with_retiring(Some(retiring));
        Known::of_record(&record, |hash| hash.phc().ends_with('A').into())
    }

    #[test]
    fn until_a_hit_says_that_it_changes_it_is_the_same() {
        let grid = || (0..10).flat_map(|wall| (0..10).map(move |monotonic| at(wall, monotonic)));
        let (mut checked, mut ended) = (0, 0);
        for (retires, expires) in (1..9).flat_map(|retires| (1..9).map(move |expires| (retires, expires))) {
            for (slot, now) in SecretSlot::ALL.into_iter().flat_map(|slot| grid().map(move |now| (slot, now))) {
                let known = rotated(retires, expires).trusted(Some(FreshUntil(at(0, 1) + TTL / 8)));
                let trust = known.trust(TTL / 20).unwrap();
                let shown = |now| known.hit(Some(slot), &trust, now).and_then(Result::ok);
                if !trust.holds(now) || shown(now).is_none() {
                    continue;
                }
                let until = known.unchanged_until(slot, &trust, now);
                for later in grid() {
                    let same = trust.holds(later) && shown(later).is_some_and(|(_, news)| news.is_none());
                    assert!(same || !until.holds(later), "{slot:?} {retires} {expires} {now:?} {later:?}");
                    checked += usize::from(until.holds(later));
                    ended += usize::from(!same);
                }
            }
        }
        assert!(checked > 10_000 && ended > 10_000, "{checked} {ended}");
    }

    fn tells_due(known: &Known, now: Moment) -> bool {
        let trust = known.trust(AHEAD).unwrap();
        let (_, news) = known.hit(Some(SecretSlot::Current), &trust, now).unwrap().unwrap();
        news.is_some_and(|news| news.due)
    }

    #[test]
    fn a_due_record_is_told_of_once_and_again_when_it_is_excused() {
        let entry = entry(1);
        assert!(!tells_due(&entry, at(149, 149)));
        assert!(tells_due(&entry, at(150, 150)));
        assert!(!tells_due(&entry, at(150, 150)) && !tells_due(&entry, at(151, 151)));
        let entry = entry.excused(at(160, 160), TTL).unwrap();
        assert!(!tells_due(&entry, at(161, 161)));
        assert!(tells_due(&entry, at(162, 162)));
        assert!(entry.excused(at(220, 220), TTL).is_none(), "it is over");
    }

    #[test]
    fn what_is_distrusted_is_neither_fresh_nor_excused() {
        let entry = entry(1);
        assert!(entry.is_fresh(at(100, 100)) && entry.excused(at(100, 100), TTL).is_some());
        entry.trusted.set(false);
        assert!(!entry.is_fresh(at(100, 100)));
        assert!(entry.excused(at(100, 100), TTL).is_none());
    }

    #[test]
    fn the_newer_revision_counts_and_of_equals_the_later() {
        let old = entry(2);
        for (revision, replaces) in [(1, false), (2, true), (3, true)] {
            let known = record(1, revision);
            let updated = old.updated(&known, Some(since(at(200, 200))));
            assert_eq!(updated.id == known.id, replaces, "{revision}");
            assert!(updated.is_fresh(at(259, 259)), "the answer is trusted, whatever it said");
        }
    }

    #[test]
    fn a_record_that_was_made_later_counts_whatever_its_revision() {
        for (seconds, replaces) in [(0, false), (1, true)] {
            let known = record(1 + seconds, 1);
            assert_eq!(entry(2).updated(&known, None).id == known.id, replaces, "{seconds}");
        }
    }
}
