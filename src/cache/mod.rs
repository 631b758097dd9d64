//! What a gate remembers: proved tokens, found records, and what does not exist.
//!
//! Three bounded maps, so that no flood of one kind displaces another:
//! * **proved**: tokens whose secret was shown, with a MAC of it. Only they take a place here.
//! * **unproved**: records the store answered with, whose secret nobody has shown yet.
//! * **negatives**: ids the store does not know, and secrets that a slow hash has refuted.
//!
//! # What it guarantees
//! * A record is believed until its TTL, counted from the start of its look-up, or until it is distrusted. Where the
//!   application allows it, a proved one that is still trusted outlives its TTL while the store cannot be asked.
//! * Distrust keeps proofs: the next use costs a look-up, not a hash.
//! * After [`Cache::distrust`] returns, nothing that was read before it is believed, whenever it arrives.
//! * An older revision never replaces a newer one, nor the record that was made anew under its id after it was pruned.
//!
//! # Cost
//! [`Cache::admit_again`], the hottest path: one tag and its comparison, on what the thread has copied for itself.
//! [`Cache::admit`], the hot path: one shard's read lock, one tag comparison, one reference count.

mod bounded;
mod budget;
mod distrust;
mod entry;
mod flight;
mod front;
mod generations;
mod judge;
#[cfg(all(test, shuttle))]
mod models;
mod proof;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use zeroize::Zeroizing;

use bounded::{Bounded, Kept};
pub(crate) use entry::{Found, FreshUntil};
pub(crate) use flight::{Boarded, Landed, Lookup, Lookups};
use generations::Generations;
pub(crate) use generations::Mark;
pub(crate) use judge::Judgement;
use proof::{Fingerprints, TagKey};
pub use stats::{CacheStats, LookupStats};

use crate::base62::{self, RandomError};
use crate::clock::Moment;
use crate::config::CacheConfig;
use crate::decision::{AuthenticatedToken, GateId, Known, Place};
use crate::id::TokenId;
use crate::secret::{SecretHash, TokenSecret};
pub(crate) use crate::token::Tag;
use crate::token::{Cut, DeadReason, ParsedToken, SEALED_LEN, Seal, SecretSlot, TokenRecord, Version};

/// What a request claims: an id, and a secret that may be its.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) id: TokenId,
    pub(crate) secret: TokenSecret,
    pub(crate) tag: Tag,
    pub(crate) seal: Seal,
}

impl Claim {
    /// What was presented, apart from the prefix and the id.
    fn sealed(&self) -> Zeroizing<[u8; SEALED_LEN]> {
        let mut sealed = Zeroizing::new([0; SEALED_LEN]);
        let presented = self.secret.as_bytes().iter().chain(&self.seal.checksum);
        sealed.iter_mut().zip(presented).for_each(|(place, byte)| *place = *byte);
        sealed
    }
}

/// What is remembered of an id.
#[derive(Debug)]
pub(crate) enum Recalled {
    Found(Found),
    Unknown,
    Nothing,
}

/// A proved token, from what is remembered.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) token: AuthenticatedToken,
    /// Boxed, because there rarely is any.
    pub(crate) news: Option<Box<News>>,
}

/// What a hit tells the background, once.
#[derive(Debug)]
pub(crate) struct News {
    /// It is time to look the record up, ahead of its end.
    pub(crate) due: bool,
    /// As [`Known::tells_successor`] says.
    pub(crate) successor: Option<SecretHash>,
}

pub(crate) struct Cache {
    gate: GateId,
    config: CacheConfig,
    tags: TagKey,
    fingerprints: Fingerprints,
    /// How long before its end a record is due.
    ahead: Duration,
    proved: Bounded<Known>,
    unproved: Bounded<Known>,
    negatives: Bounded<Absence>,
    /// Tells whether a look-up began before an invalidation.
    invalidations: Generations,
    /// Tells a thread whether what it has copied of an entry is still what the entry says.
    changes: Generations,
    excused: AtomicU64,
    negative_hits: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Negative {
    Unknown(u128),
    Refuted(u128, Tag),
}

#[derive(Debug)]
struct Absence {
    negative: Negative,
    place: Place,
    until: FreshUntil,
    mark: Mark,
    /// What a refuted secret was judged against: the record, and whether its retiring secret was tried.
    judged: Option<(Version, bool)>,
}

impl Kept for Absence {
    type Key = Negative;

    fn key(&self) -> Negative {
        self.negative
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

fn key_of(id: &TokenId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}

impl Cache {
    pub(crate) fn new(gate: GateId, config: CacheConfig) -> Result<Self, RandomError> {
        let hasher = random_hasher()?;
        Ok(Self {
            gate,
            config,
            tags: TagKey::generate()?,
            fingerprints: Fingerprints::generate()?,
            ahead: config.ahead(),
            proved: Bounded::new(config.proved, hasher.clone()),
            unproved: Bounded::new(config.unproved, hasher.clone()),
            negatives: Bounded::new(config.negatives, hasher.clone()),
            invalidations: Generations::new(hasher.clone()),
            changes: Generations::new(hasher),
            excused: AtomicU64::new(0),
            negative_hits: AtomicU64::new(0),
        })
    }

    /// Everything of [`CacheStats`] but hits and misses, which whoever asks the cache counts.
    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            negative_hits: self.negative_hits.load(Ordering::Relaxed),
            excused: self.excused.load(Ordering::Relaxed),
            proved: self.proved.len(),
            unproved: self.unproved.len(),
            negatives: self.negatives.len(),
            proved_evicted: self.proved.evicted(),
            unproved_evicted: self.unproved.evicted(),
            negatives_evicted: self.negatives.evicted(),
            ..CacheStats::default()
        }
    }

    pub(crate) fn claim(&self, token: ParsedToken) -> Claim {
        let ParsedToken { id, secret, seal } = token;
        Claim { id, tag: self.tags.tag(secret.as_bytes()), secret, seal }
    }

    /// The hottest path: what this thread has admitted lately, presented in the same words. `None` says nothing.
    #[inline(always)]
    pub(crate) fn admit_again(&self, text: &Cut<'_>, now: impl FnOnce() -> Moment) -> Option<AuthenticatedToken> {
        front::look(self.gate, u128::from_be_bytes(*text.id), |copied| {
            let same = copied.prefix == text.prefix && self.changes.is_current(copied.mark);
            let same = same && self.tags.tag_text(text.sealed).is(&copied.text_tag);
            (same && copied.until.holds(now())).then(|| copied.token.clone())
        })
    }

    /// The hot path: a fresh record and a proved secret. `None` where it takes more to decide.
    pub(crate) fn admit(&self, claim: &Claim, now: Moment) -> Option<Result<Hit, DeadReason>> {
        let key = key_of(&claim.id);
        // Before the entry: whatever changes it afterwards outdates this mark.
        let mark = self.changes.mark(key);
        let (known, trust, hit) = self.proved.read(&key, |known| {
            let trust = known.trust(self.ahead).filter(|trust| trust.holds(now))?;
            let slot = SecretSlot::ALL.into_iter().find(|slot| known.matches(*slot, &claim.tag));
            Some((Arc::clone(known), trust, known.hit(slot, &trust, now)?))
        })??;
        let (slot, news) = match hit {
            Ok(hit) => hit,
            Err(reason) => return Some(Err(reason)),
        };
        let until = known.unchanged_until(slot, &trust, now);
        let token = AuthenticatedToken::of_known(self.gate, known, slot);
        if front::takes_turn(self.gate, key) {
            let (prefix, text_tag) = (claim.seal.prefix, self.tags.tag_text(&claim.sealed()));
            front::keep(self.gate, key, front::Copied { mark, until, prefix, text_tag, token: token.detached() });
        }
        Some(Ok(Hit { token, news }))
    }

    /// What is remembered and may be believed now.
    pub(crate) fn recall(&self, id: &TokenId, now: Moment) -> Recalled {
        let key = key_of(id);
        // Before the entry: whatever distrusts it afterwards outdates this mark.
        let mark = self.invalidations.mark(key);
        let found = |map: &Bounded<Known>| {
            map.read(&key, |known| known.is_fresh(now).then(|| Found { known: Arc::clone(known), mark })).flatten()
        };
        if let Some(found) = found(&self.proved).or_else(|| found(&self.unproved)) {
            return Recalled::Found(found);
        }
        match self.recall_absence(&Negative::Unknown(key), now, |_| true) {
            true => Recalled::Unknown,
            false => Recalled::Nothing,
        }
    }

    /// What is remembered by the next request; counts those that are refused by it.
    pub(crate) fn recall_counted(&self, id: &TokenId, now: Moment) -> Recalled {
        let recalled = self.recall(id, now);
        self.negative_hits.fetch_add(u64::from(matches!(recalled, Recalled::Unknown)), Ordering::Relaxed);
        recalled
    }

    /// Whether a slow hash has refuted this secret lately for these hashes, which are of this record.
    pub(crate) fn is_refuted(&self, claim: &Claim, known: &Known, hashes: &[SecretHash], now: Moment) -> bool {
        let key = key_of(&claim.id);
        // A wall clock that was stepped back makes a retired secret live again: that one was not refuted.
        let slot = SecretSlot::Retiring;
        let retiring = known.is_live(slot, now.wall) && known.hash(slot).is_some_and(|hash| hashes.contains(hash));
        let covers = |(version, with): (Version, bool)| version == known.version && (with || !retiring);
        let negative = Negative::Refuted(key, claim.tag);
        let refuted = self.recall_absence(&negative, now, |absence| absence.judged.is_some_and(covers));
        self.negative_hits.fetch_add(u64::from(refuted), Ordering::Relaxed);
        refuted
    }

    fn recall_absence(&self, negative: &Negative, now: Moment, covers: impl Fn(&Absence) -> bool) -> bool {
        let holds = |absence: &Arc<Absence>| {
            absence.until.holds(now) && self.invalidations.is_current(absence.mark) && covers(absence)
        };
        self.negatives.read(negative, holds).unwrap_or(false)
    }

    /// Whether a token is among the proved, fresh or not: its look-ups have a budget of their own.
    pub(crate) fn is_proved(&self, id: &TokenId) -> bool {
        self.proved.read(&key_of(id), |_| ()).is_some()
    }

    /// Whether this secret has been proved against this hash, fresh or not.
    pub(crate) fn has_proof(&self, claim: &Claim, hash: &SecretHash) -> bool {
        let hash = Some(self.fingerprints.of(hash));
        let proves = |known: &Arc<Known>| {
            SecretSlot::ALL.into_iter().any(|slot| known.fingerprint(slot) == hash && known.matches(slot, &claim.tag))
        };
        self.proved.read(&key_of(&claim.id), proves).unwrap_or(false)
    }

    /// Whether the current secret of this record has been proved, fresh or not.
    pub(crate) fn has_proof_of_current(&self, record: &TokenRecord) -> bool {
        let hash = Some(self.fingerprints.of(record.secret()));
        let proves = |known: &Arc<Known>| {
            SecretSlot::ALL.into_iter().any(|slot| known.fingerprint(slot) == hash && known.proof(slot).is_some())
        };
        self.proved.read(&key_of(&record.id()), proves).unwrap_or(false)
    }

    pub(crate) fn mark(&self, id: &TokenId) -> Mark {
        self.invalidations.mark(key_of(id))
    }

    pub(crate) fn is_current(&self, mark: Mark) -> bool {
        self.invalidations.is_current(mark)
    }

    /// Takes in what a look-up brought that began at `started`, when the generations stood at `mark`; answers with
    /// what is known now. What was invalidated in between is not remembered.
    pub(crate) fn fill(&self, id: &TokenId, record: Option<TokenRecord>, started: Moment, mark: Mark) -> Option<Found> {
        let key = key_of(id);
        let Some(record) = record else {
            self.remember_unknown(key, started, mark);
            return None;
        };
        self.forget_unknown(key, mark);
        let until = FreshUntil(started + self.config.ttl);
        Some(self.settle(key, self.known(&record), mark, Some((until, started))))
    }

    fn known(&self, record: &TokenRecord) -> Known {
        Known::of_record(record, |hash| self.fingerprints.of(hash))
    }

    fn remember_unknown(&self, key: u128, started: Moment, mark: Mark) {
        let until = FreshUntil(started + self.config.negative_ttl);
        let current = || self.invalidations.is_current(mark);
        // In this order, which is the way an entry goes while its secret is being proved.
        for map in [&self.unproved, &self.proved] {
            // Not removed: a replica that lags behind the token's creation must not erase what is known of its end.
            map.alter(&key, |known| {
                if current() {
                    known.trusted.set(false);
                }
            });
        }
        self.changes.advance(key);
        let is_live = |old: &Absence| old.until.holds(started);
        let (negative, place) = (Negative::Unknown(key), Place::default());
        self.negatives.merge(negative, is_live, |old| match current() {
            true => Some(Arc::new(Absence { negative, place, until, mark, judged: None })),
            // What came late must not erase what a later look-up has found meanwhile.
            false => old.cloned(),
        });
    }

    /// The store knows the id by now: that it did not is over, also for a wall clock that is stepped back.
    fn forget_unknown(&self, key: u128, mark: Mark) {
        let outdated = || !self.invalidations.is_current(mark);
        self.negatives.merge(Negative::Unknown(key), |_| true, |old| old.cloned().filter(|_| outdated()));
    }

    /// Updates what is remembered of a token with a record: beside its proofs where there are any, else unproved.
    fn settle(&self, key: u128, known: Known, mark: Mark, answered: Option<(FreshUntil, Moment)>) -> Found {
        let trust = answered.map(|(trust, _)| trust);
        let is_live = |old: &Known| answered.is_none_or(|(_, started)| old.is_fresh(started));
        let mut settled = Arc::new(known.trusted(trust));
        // Judged while the shard is locked: an invalidation that comes later waits for it, and finds the entry.
        // What nobody has answered is believed by nobody, so no invalidation outdates it: it is kept for its revision.
        let current = || answered.is_none() || self.invalidations.is_current(mark);
        self.proved.merge(
            key,
            |_| true,
            |old| {
                settled = Arc::new(old?.updated(&settled, trust));
                if !current() {
                    return old.cloned();
                }
                settled.is_proved().then(|| Arc::clone(&settled))
            },
        );
        if !settled.is_proved() {
            self.unproved.merge(key, is_live, |old| {
                settled = old.map_or_else(|| Arc::clone(&settled), |old| Arc::new(old.updated(&settled, trust)));
                if current() { Some(Arc::clone(&settled)) } else { old.cloned() }
            });
            // A proof may have come between the two maps: it is not to stand on an older record.
            self.proved.alter(&key, |known| {
                if current() {
                    *known = Arc::new(known.updated(&settled, trust));
                }
            });
        }
        self.changes.advance(key);
        Found { known: settled, mark }
    }

    /// Believes a proved record a little longer, because the store could not be asked; `false` where that is not
    /// allowed: never after an invalidation, nor after the store has denied the token.
    pub(crate) fn excuse(&self, id: &TokenId, now: Moment) -> bool {
        let max = self.config.stale_if_error;
        let mut excused = false;
        if !max.is_zero() {
            let key = key_of(id);
            self.proved.alter(&key, |known| {
                if let Some(longer) = known.excused(now, max) {
                    *known = Arc::new(longer);
                    excused = true;
                }
            });
            // Threads' copies do not know when to ask again.
            self.changes.advance(key);
        }
        self.excused.fetch_add(u64::from(excused), Ordering::Relaxed);
        excused
    }

    /// How long a look-up that was asked for at `started` may be judged by those who waited for it, though it may
    /// never be remembered: with a TTL of zero it still is an answer to them.
    pub(crate) fn answers_until(&self, started: Moment, timeout: Duration) -> FreshUntil {
        FreshUntil(started + self.config.ttl.max(timeout))
    }

    /// Notes that a secret was proved against a hash of this record. A proof makes nothing believed: what is remembered
    /// of the record keeps the trust it has, and what is not costs a look-up at its next use.
    pub(crate) fn prove(&self, claim: &Claim, found: &Found, hash: &SecretHash) {
        let (key, hash) = (key_of(&claim.id), self.fingerprints.of(hash));
        let mut proved = None;
        self.proved.merge(
            key,
            |_| true,
            |old| {
                // Read while the shard of the proved is locked: an invalidation goes over the unproved first, so it finds
                // what is copied here.
                let latest = self.unproved.read(&key, Arc::clone);
                let mut known = match old.or(latest.as_ref()) {
                    Some(newer) if newer.version >= found.known.version => Known::clone(newer),
                    Some(older) => older.updated(&found.known, None),
                    None => Known::clone(&found.known).trusted(None),
                };
                known.note(hash, claim.tag);
                proved = known.is_proved().then_some(known.version);
                proved.map(|_| Arc::new(known))
            },
        );
        // What is newer than the proof's record stays: whoever brought it is about to add it to the proof.
        let newer = |left: &&Arc<Known>| Some(left.version) > proved;
        self.unproved.merge(key, |_| true, |left| left.filter(newer).cloned());
        self.changes.advance(key);
    }

    /// Notes that slow hashes have refuted a secret: of this record's, these.
    pub(crate) fn refute<'h>(
        &self,
        claim: &Claim,
        found: &Found,
        mut hashes: impl Iterator<Item = &'h SecretHash>,
        now: Moment,
    ) {
        let known = &found.known;
        // Those that were hashed, not those that are live now: the wall clock may have been stepped meanwhile.
        let retiring = known.hash(SecretSlot::Retiring).is_some_and(|old| hashes.any(|hash| hash == old));
        let negative = Negative::Refuted(key_of(&claim.id), claim.tag);
        let absence = Absence {
            negative,
            place: Place::default(),
            until: FreshUntil(now + self.config.negative_ttl),
            mark: found.mark,
            judged: Some((known.version, retiring)),
        };
        self.negatives.merge(negative, |old| old.until.holds(now), |_| Some(Arc::new(absence)));
    }
}

fn random_hasher() -> Result<RandomState, RandomError> {
    let mut seeds = [0_u8; 32];
    base62::random_bytes(&mut seeds)?;
    let mut words = seeds.chunks_exact(8).map(word_of);
    let mut word = || words.next().unwrap_or_default();
    Ok(RandomState::with_seeds(word(), word(), word(), word()))
}

fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
