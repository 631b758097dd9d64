//! The cache by itself: what is believed of what it was told, in whatever order.

use super::*;
use crate::clock::SystemClock;
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::token::{RetiringSecret, Revision};

/// A cache, a claim, and the time of both.
pub(super) fn cold() -> (Cache, Claim, Moment) {
    let cache = Cache::new(GateId::NONE, CacheConfig::default()).unwrap();
    let claim = claim(&cache, TokenId::generate().unwrap());
    (cache, claim, Moment::now(&SystemClock::new()))
}

pub(super) fn claim(cache: &Cache, id: TokenId) -> Claim {
    cache.claim(ParsedToken::of_parts(id, TokenSecret::generate().unwrap()))
}

pub(super) fn hash(scheme: &str) -> SecretHash {
    SecretHash::parse(&format!("${scheme}$v=1$AAAA")).unwrap()
}

pub(super) fn record(id: TokenId, revision: u64, hash: SecretHash, now: Moment) -> TokenRecord {
    let (owner, label) = (OwnerId::new("o").unwrap(), Label::new("l").unwrap());
    TokenRecord::new(id, owner, label, Scope::ReadOnly, hash, now.wall).with_revision(Revision::new(revision))
}

/// The revision that is remembered and believed.
fn recalled(cache: &Cache, id: &TokenId, now: Moment) -> Option<u64> {
    match cache.recall(id, now) {
        Recalled::Found(found) => Some(found.known.version.revision().number()),
        Recalled::Unknown | Recalled::Nothing => None,
    }
}

impl Cache {
    pub(super) fn filled(&self, revision: u64, claim: &Claim, hash: &SecretHash, now: Moment) -> Found {
        self.fill(&claim.id, Some(record(claim.id, revision, hash.clone(), now)), now, self.mark(&claim.id)).unwrap()
    }
}

#[test]
fn a_proof_is_of_one_secret_against_one_hash() {
    let (cache, claim, now) = cold();
    let (other, hashes) = (self::claim(&cache, claim.id), [hash("one"), hash("two")]);
    let found = cache.filled(1, &claim, &hashes[0], now);
    assert!(!cache.has_proof(&claim, &hashes[0]));
    cache.prove(&claim, &found, &hashes[0]);
    assert!(cache.has_proof(&claim, &hashes[0]));
    assert!(!cache.has_proof(&claim, &hashes[1]), "another hash");
    assert!(!cache.has_proof(&other, &hashes[0]), "another secret");
    assert_eq!((cache.stats().proved, cache.stats().unproved), (1, 0), "it takes one place");
}

#[test]
fn a_proof_of_an_older_revision_counts_for_the_newer_one_with_its_hash() {
    let (cache, claim, now) = cold();
    let found = cache.filled(1, &claim, &hash("one"), now);
    cache.filled(2, &claim, &hash("one"), now);
    cache.prove(&claim, &found, &hash("one"));
    assert!(cache.admit(&claim, now).is_some_and(|hit| hit.is_ok()), "believed as the newer one was");
    assert_eq!(recalled(&cache, &claim.id, now), Some(2));
}

#[test]
fn a_proof_of_a_newer_revision_replaces_the_older_one() {
    let (cache, claim, now) = cold();
    cache.filled(1, &claim, &hash("one"), now);
    let outdated = cache.mark(&claim.id);
    cache.distrust(&claim.id);
    let newer = record(claim.id, 2, hash("two"), now);
    let found = cache.fill(&claim.id, Some(newer), now, outdated).unwrap();
    cache.prove(&claim, &found, &hash("two"));
    assert!(cache.has_proof(&claim, &hash("two")));
    assert!(cache.admit(&claim, now).is_none(), "a proof makes nothing believed");
}

#[test]
fn a_proof_whose_hash_is_gone_leaves_the_newer_revision_alone() {
    let (cache, claim, now) = cold();
    let found = cache.filled(1, &claim, &hash("one"), now);
    cache.filled(2, &claim, &hash("two"), now);
    cache.prove(&claim, &found, &hash("one"));
    assert_eq!(recalled(&cache, &claim.id, now), Some(2));
    assert_eq!((cache.stats().proved, cache.stats().unproved), (0, 1));
}

#[test]
fn a_secret_is_refuted_for_one_revision_and_a_while() {
    let (cache, claim, now) = cold();
    let (other, found) = (self::claim(&cache, claim.id), cache.filled(1, &claim, &hash("one"), now));
    let hashes = [hash("one")];
    let [first, second] = [1, 2].map(|revision| cache.known(&record(claim.id, revision, hash("one"), now)));
    assert!(!cache.is_refuted(&claim, &first, &hashes, now));
    cache.refute(&claim, &found, hashes.iter(), now);
    assert!(cache.is_refuted(&claim, &first, &hashes, now));
    assert!(!cache.is_refuted(&claim, &second, &hashes, now), "another revision");
    assert!(!cache.is_refuted(&other, &first, &hashes, now), "another secret");
    assert!(!cache.is_refuted(&claim, &first, &hashes, now + CacheConfig::default().negative_ttl), "it has ended");
    cache.distrust(&claim.id);
    assert!(!cache.is_refuted(&claim, &first, &hashes, now), "and nothing read before is believed");
}

#[test]
fn a_retiring_secret_that_was_not_tried_is_not_refuted_whatever_the_clock_says_then() {
    for tried in [false, true] {
        let (cache, claim, now) = cold();
        let retiring = RetiringSecret::new(hash("two"), now.wall + Duration::from_secs(9));
        let record = record(claim.id, 1, hash("one"), now).with_retiring(Some(retiring));
        let found = cache.fill(&claim.id, Some(record), now, cache.mark(&claim.id)).unwrap();
        let hashes = [hash("one"), hash("two")];
        cache.refute(&claim, &found, hashes.iter().take(1 + usize::from(tried)), now);
        assert!(cache.is_refuted(&claim, &found.known, &hashes[..1], now), "the current one was");
        assert_eq!(cache.is_refuted(&claim, &found.known, &hashes, now), tried);
    }
}

#[test]
fn an_unknown_id_is_remembered_for_the_negative_ttl() {
    let (cache, claim, now) = cold();
    assert!(cache.fill(&claim.id, None, now, cache.mark(&claim.id)).is_none());
    let end = now + CacheConfig::default().negative_ttl;
    assert!(matches!(cache.recall_counted(&claim.id, now), Recalled::Unknown));
    assert!(matches!(cache.recall_counted(&claim.id, end), Recalled::Nothing));
    assert_eq!((cache.stats().negatives, cache.stats().negative_hits), (1, 1));
}

#[test]
fn what_was_asked_before_an_invalidation_is_not_remembered() {
    let (cache, claim, now) = cold();
    let outdated = cache.mark(&claim.id);
    cache.distrust(&claim.id);
    assert!(!cache.is_current(outdated));
    assert!(cache.fill(&claim.id, None, now, outdated).is_none());
    assert!(matches!(cache.recall(&claim.id, now), Recalled::Nothing));
    let known = record(claim.id, 1, hash("one"), now);
    assert!(cache.fill(&claim.id, Some(known), now, outdated).is_some(), "it is an answer to who asked");
    assert_eq!(recalled(&cache, &claim.id, now), None);
    assert_eq!(cache.stats().unproved, 0);
}

#[test]
fn a_denial_ends_trust_and_keeps_the_proof_unless_it_is_outdated() {
    let (cache, claim, now) = cold();
    let found = cache.filled(1, &claim, &hash("one"), now);
    cache.prove(&claim, &found, &hash("one"));
    let outdated = cache.mark(&claim.id);
    cache.distrust(&claim.id);
    cache.filled(1, &claim, &hash("one"), now);
    cache.fill(&claim.id, None, now, outdated);
    assert_eq!(recalled(&cache, &claim.id, now), Some(1), "it came late");
    cache.fill(&claim.id, None, now, cache.mark(&claim.id));
    assert_eq!(recalled(&cache, &claim.id, now), None);
    assert!(cache.has_proof(&claim, &hash("one")));
}

#[test]
fn only_a_proved_record_is_excused_and_only_where_that_is_allowed() {
    let day = Duration::from_secs(86_400);
    for (max, allowed) in [(Duration::ZERO, false), (day, true)] {
        let config = CacheConfig::default().stale_if_error(max);
        let (_, _, now) = cold();
        let cache = Cache::new(GateId::NONE, config).unwrap();
        let claim = claim(&cache, TokenId::generate().unwrap());
        let (found, end) = (cache.filled(1, &claim, &hash("one"), now), now + config.ttl);
        assert!(!cache.is_proved(&claim.id) && !cache.excuse(&claim.id, end));
        cache.prove(&claim, &found, &hash("one"));
        assert!(cache.is_proved(&claim.id) && cache.admit(&claim, end).is_none());
        assert_eq!(cache.excuse(&claim.id, end), allowed);
        assert_eq!(cache.admit(&claim, end).is_some(), allowed);
        assert_eq!(cache.stats().excused, u64::from(allowed));
    }
}

#[test]
fn an_answer_holds_for_its_waiters_as_long_as_one_may_wait() {
    let (_, _, now) = cold();
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(3600));
    let cache = Cache::new(GateId::NONE, CacheConfig::default().ttl(Duration::ZERO)).unwrap();
    assert!(cache.answers_until(now, long).holds(now + short));
    assert!(!cache.answers_until(now, short).holds(now + short));
}

#[test]
fn each_way_of_distrust_ends_what_it_names() {
    type Way = fn(&Cache, &TokenId);
    let ways: [(Way, bool); 7] = [
        (|cache, id| cache.distrust(id), true),
        (|cache, _| cache.distrust_owner(&OwnerId::new("o").unwrap()), true),
        (|cache, _| cache.distrust_owner(&OwnerId::new("other").unwrap()), false),
        (|cache, _| cache.distrust_all(), true),
        (|cache, id| cache.distrust_before(id, None), true),
        (|cache, id| cache.distrust_before(id, Some(Revision::new(1))), false),
        (|cache, id| cache.distrust_before(id, Some(Revision::new(2))), true),
    ];
    for (at, (way, ends)) in ways.into_iter().enumerate() {
        for proved in [false, true] {
            let (cache, claim, now) = cold();
            let found = cache.filled(1, &claim, &hash("one"), now);
            if proved {
                cache.prove(&claim, &found, &hash("one"));
            }
            way(&cache, &claim.id);
            assert_eq!(recalled(&cache, &claim.id, now).is_none(), ends, "way {at}, proved: {proved}");
        }
    }
}

#[test]
fn every_byte_of_a_seed_counts() {
    assert_eq!(word_of(&[1, 2, 3, 4, 5, 6, 7, 8]), 0x0102_0304_0506_0708);
    assert_eq!(word_of(&[0xff; 8]), u64::MAX);
}

#[test]
fn no_two_gates_hash_alike() {
    let [one, two] = [(), ()].map(|()| random_hasher().unwrap());
    assert_ne!(one.hash_one(7), two.hash_one(7));
}

#[test]
fn one_id_is_not_another() {
    let (cache, claim, now) = cold();
    let other = self::claim(&cache, TokenId::generate().unwrap());
    cache.filled(1, &claim, &hash("one"), now);
    assert_eq!((recalled(&cache, &claim.id, now), recalled(&cache, &other.id, now)), (Some(1), None));
    cache.fill(&other.id, None, now, cache.mark(&other.id));
    assert_eq!(recalled(&cache, &claim.id, now), Some(1));
}

#[test]
fn each_kind_makes_room_for_its_own_and_counts_what_went() {
    let cache = Cache::new(GateId::NONE, CacheConfig::default().proved(1).unproved(1).negatives(1)).unwrap();
    let now = Moment::now(&SystemClock::new());
    let mut claims = (0..9).map(|_| claim(&cache, TokenId::generate().unwrap()));
    for claim in claims.by_ref().take(2) {
        let found = cache.filled(1, &claim, &hash("one"), now);
        cache.prove(&claim, &found, &hash("one"));
    }
    for claim in claims.by_ref().take(3) {
        cache.filled(1, &claim, &hash("one"), now);
    }
    for claim in claims {
        cache.fill(&claim.id, None, now, cache.mark(&claim.id));
    }
    let stats = cache.stats();
    assert_eq!((stats.proved, stats.unproved, stats.negatives), (1, 1, 1));
    assert_eq!((stats.proved_evicted, stats.unproved_evicted, stats.negatives_evicted), (1, 2, 3));
}
