//! What a gate says of itself: every number, after a known history.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{
    CacheConfig, FeedState, LookupLimits, Scope, Scratch, SecretHasher, Stats, TokenRecord, TokenRegistry, VerifyLimits,
};

use crate::cache_rules::bench::{Bench, forge, status};

fn stats(bench: &Bench) -> Stats {
    bench.auth.handle().stats()
}

#[tokio::test]
async fn a_new_gate_has_done_nothing() {
    let crew = VerifyLimits::default().own_workers(1);
    assert_eq!(stats(&Bench::with(|builder| builder.verification(crew))), Stats::default());
}

#[tokio::test]
async fn hits_misses_and_what_is_remembered_are_told_apart() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let stranger = bench.stranger();
    for _ in 0..3 {
        assert_eq!(bench.status(&token).await, 200);
        assert_eq!(bench.status(&stranger).await, 401);
    }
    // Known, and its secret not proved.
    let other = bench.token(Scope::ReadOnly).await;
    assert_eq!(status(&bench.auth, &forge(&other.id(), &stranger)).await, 401);
    let cache = stats(&bench).cache;
    assert_eq!((cache.hits, cache.misses), (3 + 2, 1 + 1 + 1));
    assert_eq!(cache.negative_hits, 2);
    assert_eq!((cache.proved, cache.unproved, cache.negatives), (1, 1, 1));
    assert_eq!((cache.proved_evicted, cache.unproved_evicted, cache.negatives_evicted), (0, 0, 0));
}

#[tokio::test]
async fn only_what_was_still_live_counts_as_evicted() {
    let room = CacheConfig::default().proved(1).unproved(1).negatives(1);
    let bench = Bench::with(|builder| builder.cache(room));
    for _ in 0..3 {
        bench.hot(Scope::ReadOnly).await;
        assert_eq!(bench.status(&bench.stranger()).await, 401);
    }
    let cache = stats(&bench).cache;
    assert_eq!((cache.proved, cache.proved_evicted), (1, 2));
    assert_eq!((cache.negatives, cache.negatives_evicted), (1, 2));
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bench.status(&bench.stranger()).await, 401);
    assert_eq!(stats(&bench).cache.negatives_evicted, 2, "the last one had had its time");
}

#[tokio::test]
async fn look_ups_are_counted_by_what_became_of_them() {
    let limits = LookupLimits::default().in_flight(1).waiting(0);
    let bench = Bench::with(|builder| builder.lookup(limits));
    let (one, two) = (bench.token(Scope::ReadOnly).await, bench.token(Scope::ReadOnly).await);
    bench.store.hold();
    let mut callers = Box::pin(join_all((0..5).map(|_| bench.status(&one))));
    assert!((&mut callers).now_or_never().is_none());
    assert_eq!(bench.status(&two).await, 503);
    assert_eq!(stats(&bench).lookups.in_flight, 1);
    bench.store.release();
    assert!(callers.await.iter().all(|status| *status == 200));
    bench.store.fail();
    assert_eq!(bench.status(&two).await, 503);
    let lookups = stats(&bench).lookups;
    assert_eq!((lookups.calls, lookups.joined, lookups.refused, lookups.failed), (2, 4, 1, 1));
    assert_eq!((lookups.in_flight, lookups.refreshes_in_flight, lookups.ahead), (0, 0, 0));
}

/// A record whose hash has no precheck.
async fn old_token(bench: &Bench) -> tower_token_auth::PlaintextToken {
    let (token, made) = bench.draft(Scope::ReadOnly);
    let hash = bench.hasher.hash(token.secret(), &mut Scratch::new()).unwrap();
    let (owner, label) = (made.owner().clone(), made.label().clone());
    let record = TokenRecord::new(token.id(), owner, label, Scope::ReadOnly, hash, ManualClock::START);
    bench.store.insert(record).await.unwrap();
    token
}

#[tokio::test]
async fn hashes_are_counted_by_what_became_of_them() {
    let limits = VerifyLimits::default().own_workers(1).ids(1);
    let bench = Bench::with(|builder| builder.verification(limits));
    let tokens = [old_token(&bench).await, old_token(&bench).await, old_token(&bench).await];
    let held = bench.hasher.hold();
    let mut callers = Box::pin(join_all((0..3).map(|_| bench.status(&tokens[0]))));
    assert!((&mut callers).now_or_never().is_none());
    while stats(&bench).hashes.running == 0 {
        tokio::task::yield_now().await;
    }
    let mut queued = Box::pin(bench.status(&tokens[1]));
    assert!((&mut queued).now_or_never().is_none());
    assert_eq!(stats(&bench).hashes.waiting, 1);
    assert_eq!(bench.status(&tokens[2]).await, 503, "one id waits, and one may");
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(queued.await, 503);
    assert!(callers.await.iter().all(|status| *status == 503));
    drop(held);
    while stats(&bench).hashes.proved < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.status(&tokens[0]).await, 200, "the job wrote its proof");
    bench.hasher.fail_next();
    assert_eq!(bench.status(&tokens[2]).await, 503);
    assert_eq!(status(&bench.auth, &forge(&tokens[2].id(), &bench.stranger())).await, 401);
    let hashes = stats(&bench).hashes;
    assert_eq!((hashes.proved, hashes.refuted, hashes.failed), (2, 1, 1));
    assert_eq!((hashes.refused, hashes.timed_out, hashes.joined), (1, 4, 2));
    // The answer is there a moment before its worker is free.
    while stats(&bench).hashes.running > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stats(&bench).hashes.waiting, 0);
}

#[tokio::test]
async fn every_event_is_accounted_for() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.sink.fail_all(true);
    assert_eq!(bench.status(&token).await, 200);
    bench.sink.fail_all(false);
    bench.sink.panic_all(true);
    assert_eq!(bench.status(&bench.stranger()).await, 401);
    bench.sink.panic_all(false);
    bench.store.hang();
    assert!(bench.status(&bench.stranger()).now_or_never().is_none(), "and leaves");
    let audit = stats(&bench).audit;
    assert_eq!((audit.events, audit.written, audit.lost), (4, 2, 2));
    assert_eq!((audit.unheard, audit.coalesced, audit.queued), (0, 0, 0));
    assert_eq!(stats(&bench).feed, FeedState::NotFollowed);
}

#[tokio::test]
async fn events_that_nobody_wants_are_counted_as_such() {
    let bench = Bench::with(|builder| builder.audit(tower_token_auth::NoAudit::new()));
    bench.hot(Scope::ReadOnly).await;
    let audit = stats(&bench).audit;
    assert_eq!((audit.events, audit.unheard, audit.written, audit.lost), (1, 1, 0, 0));
}

#[tokio::test]
async fn look_ups_of_proved_tokens_are_counted_apart_while_they_run() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.invalidate(&token.id());
    bench.store.hold();
    let mut refresh = Box::pin(bench.status(&token));
    assert!((&mut refresh).now_or_never().is_none());
    let lookups = stats(&bench).lookups;
    assert_eq!((lookups.refreshes_in_flight, lookups.in_flight), (1, 0));
    bench.store.release();
    assert_eq!(refresh.await, 200);
    assert_eq!(stats(&bench).lookups.refreshes_in_flight, 0);
}
