//! What holds between processes that share a database, whichever it is: each has its own connections, gate and feed.
//!
//! The rules are written once, for any [`Database`]; the files named for the databases say where each is checked.

mod crash;
mod cut;
mod find;
mod lag;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod outage;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod replica;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::future::Future;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::{JoinHandle, yield_now};
use tower_token_auth::test_util::{ManualClock, mint};
use tower_token_auth::{
    AuthHandle, Change, ChangeFeed, FeedState, NoAudit, PlaintextToken, Revision, Scope, Sha256Hasher,
    TokenAuthBuilder, TokenAuthLayer, TokenRegistry, TokenStore,
};

use crate::cache_rules::bench::status;

const TTL: Duration = Duration::from_secs(30);
/// Far more than anything here takes: ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Whose tokens they are.
const OWNER: &str = "alice";
/// Changes on their way at once, where nothing else is meant.
const WRITERS: usize = 8;

/// A database that several processes share.
pub(crate) trait Database: Send + Sync + 'static {
    type Store: TokenRegistry + Clone + 'static;
    type Feed: ChangeFeed;

    /// The store as another process has it, with connections of its own.
    fn open(&self) -> impl Future<Output = Self::Store> + Send;

    fn feed(&self, store: &Self::Store) -> Self::Feed;

    /// Ends every feed that is connected, from the other side.
    fn cut_feeds(&self) -> impl Future<Output = ()> + Send;
}

/// A process's gate. Its clock stands still, so that no record ages unless the clock is turned.
struct Gate<S> {
    store: S,
    auth: TokenAuthLayer,
    clock: ManualClock,
}

impl<S: TokenStore + Clone + 'static> Gate<S> {
    fn over(store: S) -> Self {
        Self::with(store, |builder| builder.hasher(Sha256Hasher::new()))
    }

    fn with(store: S, configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> Self {
        let clock = ManualClock::default();
        let builder = TokenAuthLayer::builder(store.clone()).clock(clock.clone()).audit(NoAudit::new());
        Self { store, auth: configure(builder).build().unwrap(), clock }
    }

    async fn status(&self, token: &PlaintextToken) -> u16 {
        status(&self.auth, token.expose()).await
    }

    async fn statuses(&self, tokens: &[PlaintextToken]) -> Vec<u16> {
        join_all(tokens.iter().map(|token| self.status(token))).await
    }

    fn handle(&self) -> AuthHandle {
        self.auth.handle()
    }

    fn finds(&self) -> u64 {
        self.handle().stats().lookups.calls
    }

    /// Verifications that came to an end, however.
    fn hashes(&self) -> u64 {
        let hashes = self.handle().stats().hashes;
        hashes.proved + hashes.refuted + hashes.failed
    }

    /// Returns once the feed is connected, and everything distrusted.
    async fn follow(&self, feed: impl ChangeFeed) -> JoinHandle<()> {
        let following = tokio::spawn(self.handle().follow(feed));
        self.reach(FeedState::Connected).await;
        following
    }

    async fn reach(&self, state: FeedState) {
        eventually(|| async { self.handle().stats().feed == state }).await;
    }

    /// Lets the waits of a feed pass, and no more time, until it is connected. Nothing else is to wait for the clock.
    async fn reconnect(&self) {
        eventually(|| async {
            if self.clock.sleepers() > 0 {
                self.clock.advance(Duration::from_millis(100));
            }
            self.handle().stats().feed == FeedState::Connected
        })
        .await;
    }
}

/// Asks until it is so: for what other tasks and processes do in their own time.
async fn eventually<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it never came to be so");
}

async fn mint_many(store: &impl TokenRegistry, count: usize) -> Vec<PlaintextToken> {
    let mint_some = async |_| {
        let mut tokens = Vec::new();
        for _ in 0..count.div_ceil(WRITERS) {
            tokens.push(mint(store, OWNER, Scope::ReadOnly).await.unwrap());
        }
        tokens
    };
    let mut tokens: Vec<_> = join_all((0..WRITERS).map(mint_some)).await.into_iter().flatten().collect();
    tokens.truncate(count);
    tokens
}

async fn revoke(store: &impl TokenRegistry, token: &PlaintextToken) {
    let change = Change::Revoke { at: ManualClock::START };
    store.update(&token.id(), Revision::FIRST, change).await.unwrap();
}

async fn revoke_all(store: &impl TokenRegistry, tokens: &[PlaintextToken]) {
    let revoke_some = async |tokens: &[PlaintextToken]| {
        for token in tokens {
            revoke(store, token).await;
        }
    };
    join_all(tokens.chunks(tokens.len().div_ceil(WRITERS)).map(revoke_some)).await;
}
