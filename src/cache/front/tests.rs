//! A thread's copies: never believed where the cache itself would not be.

use std::thread;
use std::time::Duration;

use super::super::tests::{claim, cold, hash, record};
use super::super::{Cache, Claim};
use crate::clock::{Moment, SystemClock};
use crate::config::CacheConfig;
use crate::decision::{AuthenticatedToken, GateId};
use crate::id::{OwnerId, TokenId};
use crate::token::{Cut, Revision, Seal};

/// What a thread sees that presents `claim` in the same words as before.
fn again(cache: &Cache, claim: &Claim, now: Moment) -> Option<AuthenticatedToken> {
    spelt(cache, claim, claim.seal, now)
}

fn spelt(cache: &Cache, claim: &Claim, seal: Seal, now: Moment) -> Option<AuthenticatedToken> {
    let sealed = Claim { seal, ..copy(claim) }.sealed();
    let text = Cut::of_parts(claim.id.as_bytes(), &sealed, seal.prefix);
    let token = cache.admit_again(&text, || now)?;
    assert_eq!(token.id(), claim.id);
    Some(token)
}

fn copy(claim: &Claim) -> Claim {
    Claim { id: claim.id, secret: claim.secret.clone(), tag: claim.tag, seal: claim.seal }
}

#[track_caller]
fn admit(cache: &Cache, claim: &Claim, now: Moment) {
    assert!(cache.admit(claim, now).is_some_and(|hit| hit.is_ok()));
}

/// A proved token that this thread has a copy of.
#[track_caller]
fn copied(cache: &Cache, claim: &Claim, now: Moment) {
    let found = cache.filled(1, claim, &hash("one"), now);
    cache.prove(claim, &found, &hash("one"));
    admit(cache, claim, now);
    assert!(again(cache, claim, now).is_none(), "its first turn");
    admit(cache, claim, now);
    assert!(again(cache, claim, now).is_some(), "its second");
}

#[test]
fn a_copy_is_of_one_text_in_one_gate() {
    let (cache, claim, now) = cold();
    copied(&cache, &claim, now);
    let guess = self::claim(&cache, claim.id);
    assert!(again(&cache, &guess, now).is_none(), "another secret");
    let [prefix, checksum] = [Seal { prefix: 1, ..claim.seal }, Seal { checksum: *b"000001", ..claim.seal }];
    assert!(spelt(&cache, &claim, prefix, now).is_none(), "another prefix");
    assert!(spelt(&cache, &claim, checksum, now).is_none(), "another checksum");
    let other = Cache::new(GateId::next(), CacheConfig::default()).unwrap();
    assert!(again(&other, &claim, now).is_none(), "another gate");
    assert!(again(&cache, &claim, now).is_some(), "and still the same");
}

#[test]
fn a_neighbour_on_the_same_seat_is_another_token() {
    let (cache, claim, now) = cold();
    copied(&cache, &claim, now);
    let seat = |id: &TokenId| super::place(GateId::NONE, super::super::key_of(id));
    let mut ids = std::iter::repeat_with(|| TokenId::generate().unwrap());
    let id = ids.find(|id| seat(id) == seat(&claim.id)).unwrap();
    let sealed = claim.sealed();
    let text = Cut::of_parts(id.as_bytes(), &sealed, claim.seal.prefix);
    assert!(cache.admit_again(&text, || now).is_none());
    assert!(again(&cache, &claim, now).is_some());
}

#[test]
fn a_proof_of_a_newer_record_ends_copies_of_the_older() {
    let (cache, claim, now) = cold();
    copied(&cache, &claim, now);
    let outdated = cache.mark(&claim.id);
    cache.distrust(&claim.id);
    cache.filled(1, &claim, &hash("one"), now);
    let newer = record(claim.id, 2, hash("one"), now);
    let found = cache.fill(&claim.id, Some(newer), now, outdated).unwrap();
    admit(&cache, &claim, now);
    assert!(again(&cache, &claim, now).is_some(), "what came too late is not remembered");
    cache.prove(&claim, &found, &hash("one"));
    assert!(again(&cache, &claim, now).is_none());
}

#[test]
fn a_copy_ends_with_its_trust_by_either_clock() {
    let (cache, claim, now) = cold();
    copied(&cache, &claim, now);
    let end = now + CacheConfig::default().ttl;
    for late in [end, Moment { wall: end.wall, ..now }, Moment { monotonic: end.monotonic, ..now }] {
        assert!(again(&cache, &claim, late).is_none());
    }
    assert!(again(&cache, &claim, now).is_some());
}

#[test]
fn a_copy_of_a_record_that_has_ended_says_nothing() {
    let (cache, claim, now) = cold();
    let record = record(claim.id, 1, hash("one"), now).with_expiry(Some(now.wall + Duration::from_secs(9)));
    let found = cache.fill(&claim.id, Some(record), now, cache.mark(&claim.id)).unwrap();
    cache.prove(&claim, &found, &hash("one"));
    (0..2).for_each(|_| admit(&cache, &claim, now));
    let last = now + Duration::from_millis(8_999);
    assert!(again(&cache, &claim, last).is_some());
    assert!(again(&cache, &claim, now + Duration::from_secs(9)).is_none());
}

type Change = fn(&Cache, &Claim, Moment);

/// What must not be missed, whether or not the entry is still there.
const CHANGES: [(&str, Change); 10] = [
    ("distrusted", |cache, claim, _| cache.distrust(&claim.id)),
    ("the owner distrusted", |cache, _, _| cache.distrust_owner(&OwnerId::new("o").unwrap())),
    ("all distrusted", |cache, _, _| cache.distrust_all()),
    ("outdated", |cache, claim, _| cache.distrust_before(&claim.id, Some(Revision::new(2)))),
    ("told of what is known", |cache, claim, _| cache.distrust_before(&claim.id, Some(Revision::new(1)))),
    ("changed at the desk", |cache, claim, now| cache.learn(record(claim.id, 2, hash("one"), now))),
    ("changed in the store", |cache, claim, now| drop(cache.filled(2, claim, &hash("one"), now))),
    ("read again", |cache, claim, now| drop(cache.filled(1, claim, &hash("one"), now))),
    ("unknown to the store", |cache, claim, now| {
        assert!(cache.fill(&claim.id, None, now, cache.mark(&claim.id)).is_none());
    }),
    ("limited by a policy", |cache, claim, now| {
        let narrowed = record(claim.id, 1, hash("one"), now).with_narrowed(true);
        drop(cache.fill(&claim.id, Some(narrowed), now, cache.mark(&claim.id)));
    }),
];

#[test]
fn no_copy_outlives_a_change_made_by_another_thread() {
    for (what, change) in CHANGES {
        for evicted in [false, true] {
            let cache = Cache::new(GateId::next(), CacheConfig::default().proved(1)).unwrap();
            let (now, claim) = (Moment::now(&SystemClock::new()), claim(&cache, TokenId::generate().unwrap()));
            copied(&cache, &claim, now);
            if evicted {
                let other = self::claim(&cache, TokenId::generate().unwrap());
                let found = cache.filled(1, &other, &hash("one"), now);
                cache.prove(&other, &found, &hash("one"));
                assert!(!cache.is_proved(&claim.id) && again(&cache, &claim, now).is_some());
            }
            thread::scope(|scope| scope.spawn(|| change(&cache, &claim, now)).join().unwrap());
            assert!(again(&cache, &claim, now).is_none(), "{what}, evicted: {evicted}");
        }
    }
}

#[test]
fn a_copy_does_not_go_on_asking_for_a_record_that_is_excused() {
    let config = CacheConfig::default().stale_if_error(Duration::from_secs(300));
    let cache = Cache::new(GateId::next(), config).unwrap();
    let (now, claim) = (Moment::now(&SystemClock::new()), claim(&cache, TokenId::generate().unwrap()));
    copied(&cache, &claim, now);
    let due = now + (config.ttl - Duration::from_secs(1));
    let tells = || cache.admit(&claim, due).unwrap().unwrap().news.is_some_and(|news| news.due);
    assert!(again(&cache, &claim, due).is_none(), "it is time to look it up");
    assert!(tells() && again(&cache, &claim, due).is_some(), "told of once, a copy is good until its end");
    assert!(cache.excuse(&claim.id, due) && again(&cache, &claim, due).is_none());
    assert!(!tells() && again(&cache, &claim, due).is_some(), "not again so soon");
}

#[test]
fn each_thread_has_copies_and_references_of_its_own() {
    let (cache, claim, now) = cold();
    copied(&cache, &claim, now);
    let (cache, claim) = (&cache, &claim);
    thread::scope(|scope| {
        scope.spawn(move || {
            assert!(again(cache, claim, now).is_none());
            (0..2).for_each(|_| admit(cache, claim, now));
            assert!(again(cache, claim, now).is_some());
        });
    });
}

#[test]
fn tokens_in_greater_number_than_seats_take_turns() {
    let (cache, _, now) = cold();
    let claims: Vec<Claim> = (0..4 * super::SEATS).map(|_| claim(&cache, TokenId::generate().unwrap())).collect();
    for claim in &claims {
        let found = cache.filled(1, claim, &hash("one"), now);
        cache.prove(claim, &found, &hash("one"));
        (0..2).for_each(|_| admit(&cache, claim, now));
    }
    let seated = claims.iter().filter(|claim| again(&cache, claim, now).is_some()).count();
    assert!((super::SEATS / 2..=super::SEATS).contains(&seated), "{seated}");
}

#[test]
fn what_is_forgotten_is_dropped_with_its_thread() {
    let (cache, claim, now) = cold();
    let token = thread::scope(|scope| {
        let copied = scope.spawn(|| {
            copied(&cache, &claim, now);
            let token = again(&cache, &claim, now).unwrap();
            assert_eq!(token.references(), 2, "here and in the copy");
            token
        });
        copied.join().unwrap()
    });
    assert_eq!(token.references(), 1, "here");
}
