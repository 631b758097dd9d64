//! Attacks, in process and counted: what they cost, and that nobody else pays for them.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink, ScriptedStore};
use tower_token_auth::{LookupLimits, Scope, StoreError, TokenAuthLayer, TokenId, TokenRecord, TokenStore};

use crate::cache_rules::bench::{Bench, status};

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
