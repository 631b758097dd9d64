//! Attacks, in process and counted: what they cost, and that nobody else pays for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink, ScriptedStore};
use tower_token_auth::{
    Actor, CacheConfig, Change, Clock, IssuePolicy, LookupLimits, RetiringSecret, Scope, Scratch, SecretHasher,
    StoreError, TokenAuthLayer, TokenId, TokenRecord, TokenStore, VerifyLimits,
};

use crate::cache_rules::bench::{Bench, forge, status};

/// A store that is pending so often before it answers.
struct Slow(ScriptedStore, usize);

impl TokenStore for Slow {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        for _ in 0..self.1 {
            tokio::task::yield_now().await;
        }
        self.0.find(id).await
    }
}

fn slow_bench(pauses: usize) -> Bench {
    let (store, clock) = (ScriptedStore::default(), ManualClock::default());
    let (hasher, sink) = (CheapHasher::new(), RecordingSink::new());
    let builder = TokenAuthLayer::builder(Slow(store.clone(), pauses)).clock(clock.clone());
    let auth = builder.hasher(hasher.clone()).audit(sink.clone()).build().unwrap();
    Bench { store, clock, hasher, sink, auth }
}

#[tokio::test]
async fn a_leader_may_vanish_at_any_await() {
    const PAUSES: usize = 5;
    for polls in 1..=PAUSES + 2 {
        let bench = slow_bench(PAUSES);
        let token = bench.token(Scope::ReadOnly).await;
        let mut leader = Box::pin(bench.status(&token));
        assert!(leader.as_mut().now_or_never().is_none());
        let mut others: Vec<_> = (0..10).map(|_| Box::pin(bench.status(&token))).collect();
        for _ in 1..polls {
            if leader.as_mut().now_or_never().is_some() {
                leader = Box::pin(bench.status(&token));
            }
        }
        let early: Vec<_> = others.iter_mut().map(|other| other.as_mut().now_or_never()).collect();
        drop(leader);
        for (other, early) in others.into_iter().zip(early) {
            let status = match early {
                Some(status) => status,
                None => other.await,
            };
            assert_eq!(status, 200, "after {polls} polls");
        }
        assert_eq!(bench.counts(), (1, 1), "after {polls} polls: (look-ups, hashes)");
        assert_eq!(bench.store.in_flight(), 0);
    }
}

#[tokio::test]
async fn after_invalidate_all_each_hot_token_costs_one_look_up_and_no_hash() {
    let bench = Bench::new();
    let tokens = join_all((0..1_000).map(|_| bench.hot(Scope::ReadOnly))).await;
    assert_eq!(bench.counts(), (1_000, 1_000), "(look-ups, hashes)");
    bench.auth.handle().invalidate_all();
    for _then_hot in 0..2 {
        let statuses = join_all(tokens.iter().map(|token| bench.status(token))).await;
        assert!(statuses.iter().all(|status| *status == 200));
        assert_eq!(bench.counts(), (2_000, 1_000), "(look-ups, hashes)");
    }
}

#[tokio::test]
async fn a_flood_of_unknown_ids_keeps_no_refresh_waiting() {
    let limits = LookupLimits::default().in_flight(8).waiting(8);
    let bench = Bench::with(|builder| builder.lookup(limits));
    let tokens = join_all((0..16).map(|_| bench.hot(Scope::ReadOnly))).await;
    bench.clock.advance(Duration::from_secs(30));
    bench.store.hold();
    let strangers: Vec<_> = (0..1_000).map(|_| bench.stranger()).collect();
    let mut flood: Vec<_> = strangers.iter().map(|token| Box::pin(status(&bench.auth, token.expose()))).collect();
    let answers = flood.iter_mut().map(|request| request.as_mut().now_or_never());
    assert_eq!(answers.filter(|answer| *answer == Some(503)).count(), 1_000 - 16, "no more than fit");
    assert_eq!(bench.store.in_flight(), 8, "no more than the bound");
    bench.store.work();
    for token in &tokens {
        assert_eq!(bench.status(token).now_or_never(), Some(200), "a refresh");
    }
}

/// Many callers of one cold token; all have begun before the store answers, and every tenth leaves.
async fn stampede() {
    const CALLERS: usize = 10_000;
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    bench.store.hold();
    let mut callers: Vec<_> = (0..CALLERS).map(|_| Box::pin(bench.status(&token))).collect();
    for caller in &mut callers {
        assert!(caller.as_mut().now_or_never().is_none());
    }
    let mut at = 0;
    callers.retain(|_| {
        at += 1;
        at % 10 != 1
    });
    bench.store.release();
    assert!(join_all(callers).await.iter().all(|status| *status == 200));
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    assert_eq!(bench.store.in_flight(), 0);
}

#[tokio::test]
async fn ten_thousand_callers_of_a_cold_token_cost_one_look_up_and_one_hash() {
    stampede().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_callers_on_threads_cost_one_look_up_and_one_hash() {
    stampede().await;
}

#[tokio::test]
async fn callers_who_give_up_during_the_hash_find_its_proof() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let held = bench.hasher.hold();
    let mut callers: Vec<_> = (0..100).map(|_| Box::pin(bench.status(&token))).collect();
    for caller in &mut callers {
        assert!(caller.as_mut().now_or_never().is_none());
    }
    while bench.hasher.verifications() == 0 {
        tokio::task::yield_now().await;
    }
    drop(callers);
    drop(held);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn ten_thousand_guesses_die_at_the_precheck_and_cost_the_holder_nothing() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let guesses =
        || join_all((0..10_000).map(|_| async { status(&bench.auth, &forge(&token.id(), &bench.stranger())).await }));
    assert!(guesses().await.iter().all(|status| *status == 401));
    assert_eq!(bench.counts(), (1, 0), "(look-ups, hashes)");
    assert_eq!(bench.status(&token).await, 200, "cold");
    let (statuses, hot) = tokio::join!(guesses(), bench.status(&token));
    assert!(statuses.iter().all(|status| *status == 401));
    assert_eq!((hot, bench.counts()), (200, (1, 1)), "hot: (look-ups, hashes)");
}

#[tokio::test]
async fn the_store_away_is_never_a_refusal_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let (hot, other) = (bench.hot(Scope::ReadOnly).await, bench.draft(Scope::ReadOnly).1);
    let troubles: [&dyn Fn(); 4] =
        [&|| bench.store.fail(), &|| bench.store.panic(), &|| bench.store.answer(Some(other.clone())), &|| {
            bench.store.hang()
        }];
    for trouble in troubles {
        let cold = bench.token(Scope::ReadOnly).await;
        trouble();
        let mut call = Box::pin(bench.status(&cold));
        let status = match call.as_mut().now_or_never() {
            Some(status) => status,
            None => {
                bench.clock.advance(Duration::from_secs(2));
                call.await
            }
        };
        assert_eq!(status, 503);
        assert_eq!(bench.auth.handle().stats().cache.negatives, 0);
        assert_eq!(bench.status(&hot).now_or_never(), Some(200), "others are unaffected");
        bench.store.work();
        assert_eq!(bench.status(&cold).await, 200, "the first request after it is back");
    }
}

#[tokio::test]
async fn a_thousand_cold_tokens_get_in_by_and_by() {
    let limits = (LookupLimits::default().in_flight(8).waiting(8), VerifyLimits::default().ids(8).own_workers(2));
    let bench = Bench::with(|builder| builder.lookup(limits.0).verification(limits.1));
    let mut tokens = Vec::new();
    for _ in 0..1_000 {
        tokens.push(bench.token(Scope::ReadOnly).await);
    }
    let insist = async |token| {
        let mut refused = 0;
        loop {
            match bench.status(token).await {
                200 => return refused,
                503 => refused += 1,
                status => panic!("{status} for a valid token"),
            }
            tokio::task::yield_now().await;
        }
    };
    let refused: Vec<usize> = join_all(tokens.iter().map(insist)).await;
    assert!(refused.iter().sum::<usize>() > 0, "the bounds were reached");
    assert_eq!(bench.hasher.verifications(), 1_000);
}

#[tokio::test]
async fn a_rotation_costs_one_hash_and_both_secrets_work_until_the_old_one_ends() {
    let bench = Bench::new();
    let old = bench.hot(Scope::ReadOnly).await;
    let new = bench.stranger();
    let hash = bench.hasher.hash(new.secret(), &mut Scratch::new()).unwrap().with_precheck(&old.id(), new.secret());
    let end = bench.clock.wall() + Duration::from_secs(60);
    let retiring = Some(RetiringSecret::new(bench.record(&old).await.secret().clone(), end));
    bench.change(&old, Change::Secrets { secret: hash, retiring }).await;
    bench.invalidate(&old.id());
    let new = forge(&old.id(), &new);
    for _ in 0..10 {
        assert_eq!(status(&bench.auth, &new).await, 200);
        assert_eq!(bench.status(&old).await, 200);
    }
    assert_eq!(bench.hasher.verifications(), 2, "one for each secret");
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.status(&old).await, 401);
    assert_eq!(status(&bench.auth, &new).await, 200);
    assert_eq!(bench.hasher.verifications(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_who_begins_after_a_revocation_is_let_in() {
    const ROUNDS: usize = 500;
    let bench = Arc::new(Bench::with(|builder| builder.cache(CacheConfig::default().ttl(Duration::ZERO))));
    let desk = bench.auth.issuer(bench.store.inner().clone(), IssuePolicy::default());
    for round in 0..ROUNDS {
        let token = Arc::new(bench.token(Scope::ReadOnly).await);
        if round % 2 == 0 {
            assert_eq!(bench.status(&token).await, 200);
        }
        let revoked = Arc::new(AtomicBool::new(false));
        let users: Vec<_> = (0..4)
            .map(|_| {
                let (bench, token, revoked) = (Arc::clone(&bench), Arc::clone(&token), Arc::clone(&revoked));
                tokio::spawn(async move {
                    loop {
                        let before = revoked.load(Ordering::SeqCst);
                        let status = bench.status(&token).await;
                        assert!(!before || status == 401, "{status} after the revocation");
                        if before {
                            return;
                        }
                    }
                })
            })
            .collect();
        desk.revoke(&Actor::system("siege"), &token.id()).await.unwrap();
        revoked.store(true, Ordering::SeqCst);
        for user in users {
            user.await.unwrap();
        }
    }
}
