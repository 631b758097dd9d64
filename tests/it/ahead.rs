//! Looking up ahead of the TTL, going on without a store, obeying a feed: what nobody should have to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tower_token_auth::{
    AuthHandle, CacheConfig, Change, ChangeFeed, Clock, FeedState, LookupLimits, Notice, PlaintextToken, Revision,
    Scope, StoreError,
};

use crate::cache_rules::bench::{Bench, forge, status};
use crate::tower_contract::Captured;

const TTL: Duration = Duration::from_secs(30);
const INSTANT: Duration = Duration::from_millis(1);
/// A fifth of the TTL before its end.
const DUE: Duration = Duration::from_secs(24);
/// What one failed look-up excuses.
const EXCUSE: Duration = Duration::from_secs(5);

fn at_once(bench: &Bench, token: &PlaintextToken) -> Option<u16> {
    bench.status(token).now_or_never()
}

/// Lets tasks run until they all wait.
pub(crate) async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

pub(crate) async fn with_background(bench: &Bench) -> JoinHandle<()> {
    let background = tokio::spawn(bench.auth.background());
    settle().await;
    background
}

#[tokio::test]
async fn a_token_in_use_is_looked_up_ahead_of_its_ttl_and_nobody_waits() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let _background = with_background(&bench).await;
    for round in 1..=3 {
        bench.clock.advance(DUE - INSTANT);
        assert_eq!(at_once(&bench, &token), Some(200));
        settle().await;
        assert_eq!(bench.counts(), (round, 1), "not due yet");
        bench.clock.advance(INSTANT);
        assert_eq!(at_once(&bench, &token), Some(200));
        assert_eq!(at_once(&bench, &token), Some(200), "told once");
        settle().await;
        assert_eq!(bench.counts(), (round + 1, 1), "(look-ups, hashes)");
    }
    assert_eq!(bench.auth.handle().stats().lookups.ahead, 3);
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200), "the TTL counts from the last look-up");
}

#[tokio::test]
async fn a_token_that_nobody_uses_is_not_looked_up() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let _background = with_background(&bench).await;
    bench.clock.advance(TTL * 10);
    settle().await;
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    assert_eq!(at_once(&bench, &token), Some(200), "one look-up, which this store answers at once");
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn without_a_background_one_request_asks_at_the_ttl() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200));
    settle().await;
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    bench.clock.advance(INSTANT);
    let _background = with_background(&bench).await;
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn refresh_ahead_of_zero_is_never() {
    let bench = Bench::with(|builder| builder.cache(CacheConfig::default().refresh_ahead(Duration::ZERO)));
    let token = bench.hot(Scope::ReadOnly).await;
    let _background = with_background(&bench).await;
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200));
    settle().await;
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_revocation_during_a_look_up_ahead_is_obeyed() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let _background = with_background(&bench).await;
    bench.store.hold();
    bench.clock.advance(DUE);
    assert_eq!(at_once(&bench, &token), Some(200));
    settle().await;
    assert_eq!(bench.store.in_flight(), 1);
    bench.revoke(&token).await;
    bench.invalidate(&token.id());
    bench.store.release();
    settle().await;
    assert_eq!(bench.status(&token).await, 401);
    bench.assert_last("refused revoked");
}

#[tokio::test]
async fn a_failed_look_up_ahead_harms_nobody() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let _background = with_background(&bench).await;
    for trouble in [ScriptedTrouble::Fails, ScriptedTrouble::Panics] {
        trouble.begin(&bench);
        bench.clock.advance(DUE);
        assert_eq!(at_once(&bench, &token), Some(200));
        settle().await;
        assert_eq!(at_once(&bench, &token), Some(200), "still within its TTL");
        bench.store.work();
        bench.clock.advance(TTL - DUE);
        assert_eq!(bench.status(&token).await, 200);
    }
}

#[derive(Clone, Copy)]
enum ScriptedTrouble {
    Fails,
    Panics,
}

impl ScriptedTrouble {
    fn begin(self, bench: &Bench) {
        match self {
            Self::Fails => bench.store.fail(),
            Self::Panics => bench.store.panic(),
        }
    }
}

#[tokio::test]
async fn the_background_ends_with_the_gate() {
    let bench = Bench::new();
    let background = with_background(&bench).await;
    let handle = bench.auth.handle();
    drop(bench);
    settle().await;
    assert!(!background.is_finished(), "a handle is the gate, too");
    drop(handle);
    background.await.unwrap();
}

/// Uses a token when it is due, twice; answers with how often the log names the line that is missing.
async fn told_of_the_missing_line(bench: &Bench) -> usize {
    let captured = Captured::default();
    let listening = captured.listen();
    for _ in 0..2 {
        let token = bench.hot(Scope::ReadOnly).await;
        bench.clock.advance(DUE);
        assert_eq!(at_once(bench, &token), Some(200));
    }
    drop(listening);
    captured.text().matches("add `tokio::spawn(layer.background())`").count()
}

#[tokio::test]
async fn who_asks_for_a_refresh_ahead_and_runs_no_background_is_told_once() {
    let asking = |ahead| Bench::with(|builder| builder.cache(CacheConfig::default().refresh_ahead(ahead)));
    assert_eq!(told_of_the_missing_line(&asking(TTL - DUE)).await, 1);
    assert_eq!(told_of_the_missing_line(&asking(Duration::ZERO)).await, 0);
    assert_eq!(told_of_the_missing_line(&Bench::new()).await, 0, "nobody has asked");
    let bench = asking(TTL - DUE);
    let _background = with_background(&bench).await;
    assert_eq!(told_of_the_missing_line(&bench).await, 0);
    let bench = asking(TTL - DUE);
    bench.auth.handle().shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(told_of_the_missing_line(&bench).await, 0, "it is shut down");
}

fn stale(max: u64) -> Bench {
    Bench::with(|builder| builder.cache(CacheConfig::default().stale_if_error(Duration::from_secs(max))))
}

#[tokio::test]
async fn a_proved_token_outlives_its_ttl_only_where_the_application_says_so() {
    for (max, expected) in [(60, 200), (0, 503)] {
        let bench = stale(max);
        let token = bench.hot(Scope::ReadOnly).await;
        bench.store.fail();
        bench.clock.advance(TTL);
        assert_eq!(bench.status(&token).await, expected);
        assert_eq!(bench.auth.handle().stats().cache.excused, u64::from(max > 0));
    }
}

#[tokio::test]
async fn an_excused_record_is_judged_at_once_and_the_store_is_spared() {
    let bench = stale(60);
    let token = bench.hot(Scope::ReadOnly).await;
    bench.store.fail();
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 200);
    for _ in 0..100 {
        assert_eq!(at_once(&bench, &token), Some(200));
    }
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
    assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401, "a guess is still one");
    bench.clock.advance(EXCUSE);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (3, 1), "asked again");
    bench.store.work();
    bench.clock.advance(EXCUSE);
    assert_eq!(bench.status(&token).await, 200);
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200), "fresh again, for a whole TTL");
    assert_eq!(bench.counts(), (4, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_store_that_panics_excuses_and_one_that_talks_nonsense_does_not() {
    let bench = stale(60);
    let (token, other) = (bench.hot(Scope::ReadOnly).await, bench.draft(Scope::ReadWrite).1);
    bench.clock.advance(TTL);
    bench.store.answer(Some(other));
    assert_eq!(bench.status(&token).await, 503);
    bench.store.panic();
    assert_eq!(bench.status(&token).await, 200);
}

#[tokio::test]
async fn a_hung_store_excuses_after_the_timeout() {
    let bench = stale(60);
    let token = bench.hot(Scope::ReadOnly).await;
    bench.store.hang();
    bench.clock.advance(TTL);
    let mut request = Box::pin(bench.status(&token));
    assert!(request.as_mut().now_or_never().is_none());
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(request.await, 200);
    assert_eq!(at_once(&bench, &token), Some(200));
}

#[tokio::test]
async fn a_full_budget_excuses() {
    let limits = LookupLimits::default().refreshes(1).waiting(0);
    let cache = CacheConfig::default().stale_if_error(Duration::from_secs(60));
    let bench = Bench::with(|builder| builder.cache(cache).lookup(limits));
    let (one, two) = (bench.hot(Scope::ReadOnly).await, bench.hot(Scope::ReadOnly).await);
    bench.store.hang();
    bench.clock.advance(TTL);
    let mut waiting = Box::pin(bench.status(&one));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(at_once(&bench, &two), Some(200));
}

#[tokio::test]
async fn no_excuse_holds_longer_than_it_may() {
    let bench = stale(7);
    let token = bench.hot(Scope::ReadOnly).await;
    bench.store.fail();
    bench.clock.advance(TTL + EXCUSE);
    assert_eq!(bench.status(&token).await, 200);
    bench.clock.advance(Duration::from_secs(2) - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200));
    bench.clock.advance(INSTANT);
    assert_eq!(bench.status(&token).await, 503, "30 s and 7 s after it was read");
    bench.store.work();
    assert_eq!(bench.status(&token).await, 200, "and works with the store");
}

#[tokio::test]
async fn no_excuse_holds_past_the_expiry() {
    let bench = stale(3_600);
    let token = bench.token(Scope::ReadOnly).await;
    let end = bench.clock.wall() + TTL + EXCUSE;
    bench.change(&token, Change::Expiry(Some(end))).await;
    assert_eq!(bench.status(&token).await, 200);
    bench.store.fail();
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 200);
    bench.clock.advance(EXCUSE - INSTANT);
    assert_eq!(bench.status(&token).await, 200);
    bench.clock.advance(INSTANT);
    assert_eq!(bench.status(&token).await, 401);
}

#[tokio::test]
async fn no_excuse_holds_after_an_invalidation_or_a_denial() {
    for denied in [false, true] {
        let bench = stale(3_600);
        let token = bench.hot(Scope::ReadOnly).await;
        if denied {
            bench.store.answer(None);
            bench.clock.advance(TTL);
            assert_eq!(bench.status(&token).await, 401);
            bench.clock.advance(TTL);
        } else {
            bench.invalidate(&token.id());
        }
        bench.store.fail();
        assert_eq!(bench.status(&token).await, 503, "denied: {denied}");
    }
    let bench = stale(3_600);
    let token = bench.hot(Scope::ReadOnly).await;
    bench.store.fail();
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 200);
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 503, "an excuse that was given is taken back");
}

#[tokio::test]
async fn the_background_retries_before_an_excuse_ends() {
    let bench = stale(60);
    let token = bench.hot(Scope::ReadOnly).await;
    let _background = with_background(&bench).await;
    bench.store.fail();
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(at_once(&bench, &token), Some(200));
    settle().await;
    assert_eq!(bench.counts(), (2, 1), "a store that has just failed is left alone for a while");
    for _ in 0..5 {
        bench.clock.advance(Duration::from_secs(2));
        assert_eq!(at_once(&bench, &token), Some(200));
        settle().await;
    }
    assert_eq!(bench.counts(), (7, 1), "one at the TTL and five retries");
}

#[tokio::test]
async fn a_request_that_slept_through_its_answer_asks_again() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    bench.store.hold();
    let mut sleeper = Box::pin(bench.status(&token));
    assert!(sleeper.as_mut().now_or_never().is_none());
    let driver = Box::pin(bench.status(&token));
    bench.store.release();
    assert_eq!(driver.await, 200);
    bench.revoke(&token).await;
    bench.clock.advance(TTL);
    assert_eq!(sleeper.await, 401, "the answer it waited for is too old");
}

/// A feed that tells what it is given; closing the channel interrupts it.
struct Told {
    connections: Arc<AtomicUsize>,
    notices: mpsc::UnboundedReceiver<Result<Notice, StoreError>>,
}

impl ChangeFeed for Told {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn next(&mut self) -> Result<Notice, StoreError> {
        match self.notices.recv().await {
            Some(notice) => notice,
            None => std::future::pending().await,
        }
    }
}

struct Following {
    bench: Bench,
    tell: mpsc::UnboundedSender<Result<Notice, StoreError>>,
    connections: Arc<AtomicUsize>,
    handle: AuthHandle,
    task: JoinHandle<()>,
}

async fn following() -> Following {
    let (bench, connections) = (Bench::new(), Arc::<AtomicUsize>::default());
    let handle = bench.auth.handle();
    assert_eq!(handle.stats().feed, FeedState::NotFollowed);
    let (tell, notices) = mpsc::unbounded_channel();
    let task = tokio::spawn(handle.follow(Told { connections: Arc::clone(&connections), notices }));
    settle().await;
    assert_eq!(handle.stats().feed, FeedState::Connected);
    Following { bench, tell, connections, handle, task }
}

impl Following {
    async fn tell(&self, notice: Notice) {
        self.tell.send(Ok(notice)).unwrap();
        settle().await;
    }
}

#[tokio::test]
async fn what_a_feed_names_is_asked_for_again() {
    let following = following().await;
    let bench = &following.bench;
    let token = bench.hot(Scope::ReadOnly).await;
    let owner = bench.record(&token).await.owner().clone();
    let id = token.id();
    let notices = [
        Notice::Token { id, revision: None },
        Notice::Owner(owner),
        Notice::All,
        Notice::Token { id, revision: Some(Revision::new(2)) },
    ];
    for (finds, notice) in (2..).zip(notices) {
        following.tell(notice).await;
        assert_eq!(bench.status(&token).await, 200);
        assert_eq!(bench.counts(), (finds, 1), "(look-ups, hashes)");
    }
    following.tell(Notice::Token { id, revision: Some(Revision::FIRST) }).await;
    assert_eq!(at_once(bench, &token), Some(200));
    assert_eq!(bench.counts(), (5, 1), "a revision that is known already costs nothing");
}

#[tokio::test]
async fn after_a_gap_everything_is_asked_for_again() {
    let following = following().await;
    let bench = &following.bench;
    let token = bench.hot(Scope::ReadOnly).await;
    following.tell.send(Err(StoreError::new("connection lost"))).unwrap();
    settle().await;
    assert_eq!(following.handle.stats().feed, FeedState::Interrupted);
    bench.change(&token, Change::Revoke { at: bench.clock.wall() }).await;
    assert_eq!(at_once(bench, &token), Some(200), "nobody has told");
    bench.clock.advance(Duration::from_millis(100));
    settle().await;
    assert_eq!(following.connections.load(Ordering::SeqCst), 2);
    assert_eq!(following.handle.stats().feed, FeedState::Connected);
    assert_eq!(bench.status(&token).await, 401);
}

#[tokio::test]
async fn a_feed_that_breaks_at_once_is_connected_ever_more_seldom() {
    let following = following().await;
    let bench = &following.bench;
    for _ in 0..1_000 {
        following.tell.send(Err(StoreError::new("connection lost"))).unwrap();
    }
    for _ in 0..600 {
        bench.clock.advance(Duration::from_millis(100));
        settle().await;
    }
    let connections = following.connections.load(Ordering::SeqCst);
    // 0.1, 0.2, … 6.4 s, then each 10 s, by a jitter of up to a half of it.
    assert!((8..30).contains(&connections), "{connections} in a minute");
}

#[tokio::test]
async fn a_feed_is_left_when_the_gate_is_gone() {
    let following = following().await;
    drop((following.bench, following.handle));
    following.task.await.unwrap();
}

#[tokio::test]
async fn a_dropped_feed_is_not_followed_any_more() {
    let following = following().await;
    following.task.abort();
    assert!(following.task.await.is_err());
    assert_eq!(following.handle.stats().feed, FeedState::NotFollowed);
}
