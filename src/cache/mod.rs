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

use bounded::Bounded;
use entry::{Entry, Trust};
pub(crate) use entry::{Found, FreshUntil, Known};
pub(crate) use flight::{Boarded, Landed, Lookup, Lookups};
use generations::Generations;
pub(crate) use generations::Mark;
pub(crate) use judge::Judgement;
pub(crate) use proof::Tag;
use proof::{Proofs, TagKey};
pub use stats::{CacheStats, LookupStats};

use crate::base62::{self, RandomError};
use crate::clock::Moment;
use crate::config::CacheConfig;
use crate::decision::{AuthenticatedToken, GateId};
use crate::id::TokenId;
use crate::secret::{SecretHash, TokenSecret};
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
    proved: Bounded<u128, Entry>,
    unproved: Bounded<u128, Entry>,
    negatives: Bounded<Negative, Absence>,
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

#[derive(Debug, Clone, Copy)]
struct Absence {
    until: FreshUntil,
    mark: Mark,
    /// What a refuted secret was judged against: the record, and whether its retiring secret was live.
    judged: Option<(Version, bool)>,
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
        let (hit, entry) = self.proved.read(&key, |entry| {
            let trust = entry.trust.filter(|trust| trust.holds(now))?;
            let slot = SecretSlot::ALL.into_iter().find(|slot| entry.proofs.matches(*slot, &claim.tag));
            let hit = entry.known.hit(&entry.known.token, slot, &trust, now)?;
            let kept = slot.filter(|_| hit.is_ok() && front::takes_turn(self.gate, key));
            Some((hit, kept.map(|slot| (entry.known.token.by(slot), entry.known.unchanged_until(slot, &trust, now)))))
        })??;
        if let Some((token, until)) = entry {
            let (prefix, text_tag) = (claim.seal.prefix, self.tags.tag_text(&claim.sealed()));
            let token = token.detached();
            front::keep(self.gate, key, front::Copied { mark, until, prefix, text_tag, token });
        }
        Some(hit)
    }

    /// What is remembered and may be believed now.
    pub(crate) fn recall(&self, id: &TokenId, now: Moment) -> Recalled {
        let key = key_of(id);
        // Before the entry: whatever distrusts it afterwards outdates this mark.
        let mark = self.invalidations.mark(key);
        let found = |map: &Bounded<u128, Entry>| {
            map.read(&key, |entry| entry.is_fresh(now).then(|| Found::of(entry, mark))).flatten()
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
    pub(crate) fn is_refuted(&self, claim: &Claim, record: &TokenRecord, hashes: &[SecretHash], now: Moment) -> bool {
        let key = key_of(&claim.id);
        // A wall clock that was stepped back makes a retired secret live again: that one was not refuted.
        let retiring = record.live_secret(SecretSlot::Retiring, now.wall).is_some_and(|hash| hashes.contains(hash));
        let covers = |(version, with): (Version, bool)| version == record.version() && (with || !retiring);
        let negative = Negative::Refuted(key, claim.tag);
        let refuted = self.recall_absence(&negative, now, |absence| absence.judged.is_some_and(covers));
        self.negative_hits.fetch_add(u64::from(refuted), Ordering::Relaxed);
        refuted
    }

    fn recall_absence(&self, negative: &Negative, now: Moment, covers: impl Fn(&Absence) -> bool) -> bool {
        let holds = |absence: &Absence| {
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
        let proves = |entry: &Entry| {
            let mut probe = Proofs::default();
            probe.note(&entry.known.record, hash, claim.tag);
            SecretSlot::ALL.into_iter().any(|slot| probe.of(slot).is_some() && entry.proofs.matches(slot, &claim.tag))
        };
        self.proved.read(&key_of(&claim.id), proves).unwrap_or(false)
    }

    /// Whether the current secret of this record has been proved, fresh or not.
    pub(crate) fn has_proof_of_current(&self, record: &TokenRecord) -> bool {
        let proves = |entry: &Entry| {
            let carried = entry.proofs.carried(&entry.known.record, record);
            carried.of(SecretSlot::Current).is_some()
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
        // When it was used is nothing to judge by, and takes room.
        let known = Known::new(self.gate, record.with_last_used(None));
        let trust = Trust::since(started, self.config.ttl, self.config.ahead());
        Some(self.settle(key, &known, mark, Some((trust, started))))
    }

    fn remember_unknown(&self, key: u128, started: Moment, mark: Mark) {
        let until = FreshUntil(started + self.config.negative_ttl);
        let current = || self.invalidations.is_current(mark);
        for map in [&self.proved, &self.unproved] {
            // Not removed: a replica that lags behind the token's creation must not erase what is known of its end.
            map.alter(&key, |entry| entry.trust = entry.trust.filter(|_| !current()));
        }
        self.changes.advance(key);
        let is_live = |old: &Absence| old.until.holds(started);
        self.negatives.merge(Negative::Unknown(key), is_live, |old| match current() {
            true => Some(Absence { until, mark, judged: None }),
            // What came late must not erase what a later look-up has found meanwhile.
            false => old.copied(),
        });
    }

    /// The store knows the id by now: that it did not is over, also for a wall clock that is stepped back.
    fn forget_unknown(&self, key: u128, mark: Mark) {
        let outdated = || !self.invalidations.is_current(mark);
        self.negatives.merge(Negative::Unknown(key), |_| true, |old| old.copied().filter(|_| outdated()));
    }

    /// Updates what is remembered of a token with a record: beside its proofs where there are any, else unproved.
    fn settle(&self, key: u128, known: &Arc<Known>, mark: Mark, answered: Option<(Trust, Moment)>) -> Found {
        let trust = answered.map(|(trust, _)| trust);
        let is_live = |old: &Entry| answered.is_none_or(|(_, started)| old.is_fresh(started));
        let fresh = Entry { known: Arc::clone(known), proofs: Proofs::default(), trust };
        let mut settled = fresh.clone();
        // Judged while the shard is locked: an invalidation that comes later waits for it, and finds the entry.
        // What nobody has answered is believed by nobody, so no invalidation outdates it: it is kept for its revision.
        let current = || answered.is_none() || self.invalidations.is_current(mark);
        self.proved.merge(
            key,
            |_| true,
            |old| {
                settled = old?.updated(known, trust);
                if !current() {
                    return old.cloned();
                }
                (!settled.proofs.is_empty()).then(|| settled.clone())
            },
        );
        if settled.proofs.is_empty() {
            self.unproved.merge(key, is_live, |old| {
                settled = old.map_or_else(|| settled.clone(), |old| old.updated(&settled.known, trust));
                if current() { Some(settled.clone()) } else { old.cloned() }
            });
            // A proof may have come between the two maps: it is not to stand on an older record.
            self.proved.alter(&key, |entry| {
                if current() {
                    *entry = entry.updated(&settled.known, trust);
                }
            });
        }
        self.changes.advance(key);
        Found::of(&settled, mark)
    }

    /// Believes a proved record a little longer, because the store could not be asked; `false` where that is not
    /// allowed: never after an invalidation, nor after the store has denied the token.
    pub(crate) fn excuse(&self, id: &TokenId, now: Moment) -> bool {
        let max = self.config.stale_if_error;
        let mut excused = false;
        if !max.is_zero() {
            let key = key_of(id);
            self.proved.alter(&key, |entry| excused = entry.excuse(now, max));
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
        let key = key_of(&claim.id);
        let mut proved = None;
        self.proved.merge(
            key,
            |_| true,
            |old| {
                // Read while the shard of the proved is locked: an invalidation goes over the unproved first, so it finds
                // what is copied here.
                let latest = self.unproved.read(&key, Entry::clone);
                let mut entry = match old.or(latest.as_ref()) {
                    Some(newer) if newer.known.record.version() >= found.known.record.version() => newer.clone(),
                    Some(older) => older.updated(&found.known, None),
                    None => Entry { known: Arc::clone(&found.known), proofs: Proofs::default(), trust: None },
                };
                entry.proofs.note(&entry.known.record, hash, claim.tag);
                proved = (!entry.proofs.is_empty()).then(|| entry.known.record.version());
                proved.map(|_| entry)
            },
        );
        // What is newer than the proof's record stays: whoever brought it is about to add it to the proof.
        let newer = |left: &&Entry| Some(left.known.record.version()) > proved;
        self.unproved.merge(key, |_| true, |left| left.filter(newer).cloned());
        self.changes.advance(key);
    }

    /// Notes that a slow hash has refuted a secret.
    pub(crate) fn refute(&self, claim: &Claim, found: &Found, now: Moment) {
        let record = &found.known.record;
        let retiring = record.live_secret(SecretSlot::Retiring, now.wall).is_some();
        let absence = Absence {
            until: FreshUntil(now + self.config.negative_ttl),
            mark: found.mark,
            judged: Some((record.version(), retiring)),
        };
        let negative = Negative::Refuted(key_of(&claim.id), claim.tag);
        self.negatives.merge(negative, |old| old.until.holds(now), |_| Some(absence));
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
