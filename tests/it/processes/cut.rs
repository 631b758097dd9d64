//! How long a revoked token is still accepted by gates that are not told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::task::yield_now;
use tower_token_auth::test_util::ScriptedStore;
use tower_token_auth::{
    ChangeFeed, Clock, FeedState, LookupLimits, Monotonic, Notice, PlaintextToken, Sha256Hasher, StoreError,
    TokenRegistry,
};

use super::{Database, Gate, TTL, mint_many, revoke_all};
use crate::cache_rules::bench::status;

const REVOCATIONS: usize = 1_000;
/// How long each answer of the store is on its way.
const SLOW: Duration = Duration::from_secs(10);
/// Between the beginnings of two look-ups.
const STEP: Duration = Duration::from_millis(1);
const INSTANT: Duration = Duration::from_nanos(1);

/// A feed that cannot be connected while there is no way.
struct Way<F> {
    feed: F,
    barred: Arc<AtomicBool>,
}

impl<F: ChangeFeed> ChangeFeed for Way<F> {
    async fn connect(&mut self) -> Result<(), StoreError> {
        match self.barred.load(Ordering::SeqCst) {
            true => Err(StoreError::new("there is no way")),
            false => self.feed.connect().await,
        }
    }

    async fn next(&mut self) -> Result<Notice, StoreError> {
        self.feed.next().await
    }
}

type Slow<D> = Gate<ScriptedStore<<D as Database>::Store>>;

async fn slow<D: Database>(database: &D) -> Slow<D> {
    let lookup = LookupLimits::default().in_flight(REVOCATIONS).timeout(2 * SLOW);
    Gate::with(ScriptedStore::new(database.open().await), |gate| gate.hasher(Sha256Hasher::new()).lookup(lookup))
}

/// Has a gate look all tokens up, one after the other, each answer late; answers when each look-up began.
async fn warm<S: TokenRegistry + Clone + 'static>(
    gate: &Gate<ScriptedStore<S>>,
    tokens: &[PlaintextToken],
) -> Vec<Monotonic> {
    gate.store.delay(SLOW, gate.clock.clone());
    let (mut began, mut requests) = (Vec::new(), Vec::new());
    for token in tokens {
        began.push(gate.clock.monotonic());
        let (auth, text) = (gate.auth.clone(), token.expose().to_owned());
        requests.push(tokio::spawn(async move { status(&auth, &text).await }));
        while gate.store.finds() < began.len() {
            yield_now().await;
        }
        gate.clock.advance(STEP);
    }
    gate.clock.advance(SLOW);
    assert!(try_join_all(requests).await.unwrap().iter().all(|status| *status == 200));
    gate.store.work();
    began
}

/// Each token is accepted up to the last instant of its TTL, as nobody has told, and not at its end.
async fn assert_bound<S: TokenRegistry + Clone + 'static>(
    gate: &Gate<S>,
    tokens: &[PlaintextToken],
    began: &[Monotonic],
) {
    for (token, began) in tokens.iter().zip(began) {
        let left = TTL - gate.clock.monotonic().since(*began);
        gate.clock.advance(left - INSTANT);
        assert_eq!(gate.status(token).await, 200, "nobody has told");
        gate.clock.advance(INSTANT);
        assert_eq!(gate.status(token).await, 401, "at the end of the TTL");
    }
    for token in tokens {
        assert_eq!(gate.status(token).await, 401, "for good");
    }
}

/// Three gates: one that follows no feed, one whose feed is dropped, one whose feed is cut by the other side.
pub(super) async fn without_a_feed_the_bound_is_the_ttl<D: Database>(database: &D) {
    let desk = database.open().await;
    let tokens = mint_many(&desk, REVOCATIONS).await;
    let (never, dropped, cut) = (slow(database).await, slow(database).await, slow(database).await);
    let following = dropped.follow(database.feed(dropped.store.inner())).await;
    let barred = Arc::new(AtomicBool::new(false));
    cut.follow(Way { feed: database.feed(cut.store.inner()), barred: Arc::clone(&barred) }).await;
    let mut began = Vec::new();
    for gate in [&never, &dropped, &cut] {
        began.push(warm(gate, &tokens).await);
    }
    following.abort();
    barred.store(true, Ordering::SeqCst);
    database.cut_feeds().await;
    dropped.reach(FeedState::NotFollowed).await;
    cut.reach(FeedState::Interrupted).await;
    revoke_all(&desk, &tokens).await;
    for (gate, began) in [&never, &dropped, &cut].into_iter().zip(&began) {
        assert_bound(gate, &tokens, began).await;
    }
}

/// A gate that was not told of some revocations refuses them once it is connected again, long before the TTL.
pub(super) async fn everything_is_distrusted_at_the_reconnect<D: Database>(database: &D) {
    let (desk, gate) = (database.open().await, Gate::over(database.open().await));
    let barred = Arc::new(AtomicBool::new(false));
    gate.follow(Way { feed: database.feed(&gate.store), barred: Arc::clone(&barred) }).await;
    barred.store(true, Ordering::SeqCst);
    database.cut_feeds().await;
    gate.reach(FeedState::Interrupted).await;
    let (revoked, kept) = (mint_many(&desk, 100).await, mint_many(&desk, 100).await);
    for token in revoked.iter().chain(&kept) {
        assert_eq!(gate.status(token).await, 200);
    }
    revoke_all(&desk, &revoked).await;
    for token in &revoked {
        assert_eq!(gate.status(token).await, 200, "nobody has told");
    }
    let (start, finds, hashes) = (gate.clock.monotonic(), gate.finds(), gate.hashes());
    barred.store(false, Ordering::SeqCst);
    gate.reconnect().await;
    for token in &revoked {
        assert_eq!(gate.status(token).await, 401);
    }
    assert_eq!(gate.statuses(&kept).await, [200; 100]);
    assert!(gate.clock.monotonic().since(start) < TTL);
    let asked = gate.finds() - finds;
    assert_eq!(
        (asked, gate.hashes() - hashes),
        (200, 0),
        "(look-ups, hashes): each is asked for, none is proved again"
    );
}
