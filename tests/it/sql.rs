//! What the tests of SQL stores share.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::future::join_all;
use http::Request;
use tower::ServiceExt;
use tower_token_auth::test_util::{draft, mint};
use tower_token_auth::{
    CacheConfig, Change, ChangeFeed, FeedState, LastUsed, NoAudit, Notice, OwnerId, PlaintextToken, Revision, Scope,
    Sha256Hasher, Timestamp, TokenAuthLayer, TokenRegistry, UpdateError,
};

/// An error and all its causes, in both forms.
pub(crate) fn told(error: &dyn Error) -> String {
    let mut told = format!("{error:?} ");
    let mut next = Some(error);
    while let Some(error) = next {
        told.push_str(&format!("{error}: "));
        next = error.source();
    }
    told
}

/// A store, as its own process has it, and another process's feed, which is connected.
pub(crate) struct Told<S, F> {
    pub(crate) store: S,
    pub(crate) feed: F,
}

impl<S: TokenRegistry, F: ChangeFeed> Told<S, F> {
    pub(crate) async fn new(store: S, mut feed: F) -> Self {
        feed.connect().await.unwrap();
        Self { store, feed }
    }

    pub(crate) async fn next(&mut self) -> Notice {
        self.feed.next().await.unwrap()
    }

    /// That nothing else was told before now: a bar is told next.
    pub(crate) async fn assert_silent(&mut self) {
        let owner = OwnerId::new("who marks the end").unwrap();
        self.store.bar_owner(&owner).await.unwrap();
        assert_eq!(self.next().await, Notice::Owner(owner.clone()));
        self.store.lift_owner(&owner).await.unwrap();
        assert_eq!(self.next().await, Notice::Owner(owner));
    }

    pub(crate) async fn every_change_is_told_once_and_nothing_else(&mut self) {
        let owner = OwnerId::new("a team of two").unwrap();
        let id = mint(&self.store, owner.as_str(), Scope::ReadOnly).await.unwrap().id();
        let revision = |number| Notice::Token { id, revision: Some(Revision::new(number)) };
        assert_eq!(self.next().await, revision(1));
        self.store.update(&id, Revision::FIRST, Change::Pause).await.unwrap();
        assert_eq!(self.next().await, revision(2));
        self.store.update(&id, Revision::FIRST, Change::Resume).await.unwrap_err();
        self.store.touch(&[(id, LastUsed::new(Timestamp::MAX))]).await.unwrap();
        self.assert_silent().await;
        for _ in 0..2 {
            self.store.bar_owner(&owner).await.unwrap();
        }
        assert_eq!(self.next().await, Notice::Owner(owner.clone()));
        for _ in 0..2 {
            self.store.lift_owner(&owner).await.unwrap();
        }
        assert_eq!(self.next().await, Notice::Owner(owner));
        let (_, record) = draft("alice", Scope::ReadOnly).unwrap();
        self.store.insert(record.clone()).await.unwrap();
        self.next().await;
        self.store.insert(record).await.unwrap_err();
        self.assert_silent().await;
    }

    pub(crate) async fn pruning_what_was_revoked_is_not_told(&mut self) {
        let id = mint(&self.store, "alice", Scope::ReadOnly).await.unwrap().id();
        self.next().await;
        self.store.update(&id, Revision::FIRST, revoke()).await.unwrap();
        self.next().await;
        assert_eq!(self.store.prune(Timestamp::MAX).await.unwrap(), 1);
        self.assert_silent().await;
    }
}

const WRITERS: usize = 8;
const CHANGES: usize = 10;

/// Two processes: of their writers, who read and try again when they were beaten to it, no change is lost.
pub(crate) async fn no_change_is_lost_between_processes<S: TokenRegistry>(here: S, there: S) {
    let id = mint(&here, "alice", Scope::ReadOnly).await.unwrap().id();
    let change_until_done = async |store: &S| {
        for _ in 0..CHANGES {
            loop {
                let revision = store.find(&id).await.unwrap().unwrap().revision();
                match store.update(&id, revision, Change::Pause).await {
                    Ok(_) => break,
                    Err(error) => assert!(matches!(error, UpdateError::Conflict), "{}", told(&error)),
                }
            }
        }
    };
    let stores = [&here, &there].into_iter().cycle().take(WRITERS);
    join_all(stores.map(change_until_done)).await;
    let changed = here.find(&id).await.unwrap().unwrap();
    assert_eq!(changed.revision(), Revision::new(1 + (WRITERS * CHANGES) as u64));
}

fn revoke() -> Change {
    Change::Revoke { at: Timestamp::from_unix_seconds(1) }
}

async fn status(app: &Router, token: &PlaintextToken) -> u16 {
    let request = Request::builder().header("authorization", format!("Bearer {}", token.expose()));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
}

/// Two processes: what one revokes, the gate of the other refuses, long before its TTL.
pub(crate) async fn another_gate_refuses_what_was_revoked_here<S: TokenRegistry + 'static>(
    here: S,
    there: S,
    feed: impl ChangeFeed,
) {
    let cache = CacheConfig::default().ttl(Duration::from_secs(3600));
    let builder = TokenAuthLayer::builder(there).hasher(Sha256Hasher::new()).audit(NoAudit::new());
    let auth = builder.cache(cache).build().unwrap();
    let app = Router::new().route("/", get(|| async {})).route_layer(auth.clone());
    let follow = tokio::spawn(auth.handle().follow(feed));
    while auth.handle().stats().feed != FeedState::Connected {
        tokio::task::yield_now().await;
    }
    let token = mint(&here, "alice", Scope::ReadOnly).await.unwrap();
    assert_eq!((status(&app, &token).await, status(&app, &token).await), (200, 200));
    here.update(&token.id(), Revision::FIRST, revoke()).await.unwrap();
    // Nothing but the feed ends this.
    while status(&app, &token).await == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&app, &token).await, 401);
    follow.abort();
}
