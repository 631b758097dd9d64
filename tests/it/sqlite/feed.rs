//! What other processes are told.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::FutureExt;
use http::Request;
use sqlx::SqlitePool;
use tower::ServiceExt;
use tower_token_auth::test_util::{draft, mint};
use tower_token_auth::{
    CacheConfig, Change, ChangeFeed, Clock, FeedState, LastUsed, NoAudit, Notice, OwnerId, PlaintextToken, Revision,
    Scope, Sha256Hasher, SqliteFeed, SqliteStore, SystemClock, Timestamp, TokenAuthLayer, TokenRegistry,
};

use super::{Folder, by_hand, open, pool};

/// A store, as its own process has it, and another process's feed.
struct Told {
    store: SqliteStore,
    pool: SqlitePool,
    feed: SqliteFeed,
    _folder: Folder,
}

async fn told() -> Told {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    let mut feed = open(&folder.database()).await.feed().poll_every(Duration::from_millis(1));
    feed.connect().await.unwrap();
    Told { store, pool, feed, _folder: folder }
}

impl Told {
    async fn next(&mut self) -> Notice {
        self.feed.next().await.unwrap()
    }

    /// That nothing else was told before now: a bar that is told next.
    async fn assert_silent(&mut self) {
        let owner = OwnerId::new("who marks the end").unwrap();
        self.store.bar_owner(&owner).await.unwrap();
        assert_eq!(self.next().await, Notice::Owner(owner.clone()));
        self.store.lift_owner(&owner).await.unwrap();
        assert_eq!(self.next().await, Notice::Owner(owner));
    }
}

#[tokio::test]
async fn every_change_is_told_and_a_use_is_not() {
    let mut told = told().await;
    let owner = OwnerId::new("alice").unwrap();
    let token = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap();
    let id = token.id();
    let revision = |number| Notice::Token { id, revision: Some(Revision::new(number)) };
    assert_eq!(told.next().await, revision(1));
    told.store.update(&id, Revision::FIRST, Change::Pause).await.unwrap();
    assert_eq!(told.next().await, revision(2));
    told.store.touch(&[(id, LastUsed::new(Timestamp::MAX))]).await.unwrap();
    told.assert_silent().await;
    told.store.bar_owner(&owner).await.unwrap();
    told.store.bar_owner(&owner).await.unwrap();
    assert_eq!(told.next().await, Notice::Owner(owner.clone()));
    told.store.lift_owner(&owner).await.unwrap();
    told.store.lift_owner(&owner).await.unwrap();
    assert_eq!(told.next().await, Notice::Owner(owner));
    told.assert_silent().await;
}

#[tokio::test]
async fn a_change_that_is_refused_is_not_told() {
    let mut told = told().await;
    let (_, record) = draft("alice", Scope::ReadOnly).unwrap();
    told.store.insert(record.clone()).await.unwrap();
    told.next().await;
    told.store.insert(record.clone()).await.unwrap_err();
    told.store.update(&record.id(), Revision::new(7), Change::Pause).await.unwrap_err();
    told.assert_silent().await;
}

#[tokio::test]
async fn changes_by_hand_are_told_without_a_revision_unless_it_is_raised() {
    let mut told = told().await;
    let id = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap().id();
    told.next().await;
    by_hand(&told.pool, "UPDATE tta_tokens SET state = 'paused'").await;
    assert_eq!(told.next().await, Notice::Token { id, revision: None });
    by_hand(&told.pool, "UPDATE tta_tokens SET state = 'active', revision = revision + 1").await;
    assert_eq!(told.next().await, Notice::Token { id, revision: Some(Revision::new(2)) });
    by_hand(&told.pool, "DELETE FROM tta_tokens").await;
    assert_eq!(told.next().await, Notice::Token { id, revision: None });
    by_hand(&told.pool, "INSERT INTO tta_changes (notice) VALUES ('all'), ('what?')").await;
    assert_eq!((told.next().await, told.next().await), (Notice::All, Notice::All));
}

#[tokio::test]
async fn pruning_what_was_revoked_is_not_told() {
    let mut told = told().await;
    let id = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap().id();
    told.next().await;
    let at = Timestamp::from_unix_seconds(1);
    told.store.update(&id, Revision::FIRST, Change::Revoke { at }).await.unwrap();
    told.next().await;
    assert_eq!(told.store.prune(Timestamp::MAX).await.unwrap(), 1);
    told.assert_silent().await;
}

#[tokio::test]
async fn a_gap_is_an_error_and_a_new_connection_goes_on() {
    for gap in [
        "INSERT INTO tta_changes (seq, notice) VALUES (30000, 'all')",
        "DELETE FROM tta_changes",
        "DELETE FROM tta_changes WHERE seq = 2",
    ] {
        let mut told = told().await;
        mint(&told.store, "alice", Scope::ReadOnly).await.unwrap();
        told.next().await;
        by_hand(&told.pool, "INSERT INTO tta_changes (notice) VALUES ('all'), ('all')").await;
        by_hand(&told.pool, gap).await;
        assert!(told.feed.next().await.is_err(), "{gap}");
        told.feed.connect().await.unwrap();
        mint(&told.store, "alice", Scope::ReadOnly).await.unwrap();
        let recovered = match told.feed.next().await {
            // Where nothing was left, the first number is not known.
            Err(_) => told.feed.connect().await.is_ok(),
            Ok(notice) => matches!(notice, Notice::Token { .. }),
        };
        assert!(recovered, "{gap}");
    }
}

#[tokio::test]
async fn the_last_ten_thousand_changes_are_kept() {
    let told = told().await;
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) \
                INSERT INTO tta_changes (notice) SELECT 'all' FROM n";
    by_hand(&told.pool, many).await;
    let kept: (i64, i64) =
        sqlx::query_as("SELECT min(seq), count(*) FROM tta_changes").fetch_one(&told.pool).await.unwrap();
    assert_eq!(kept, (501, 10_000));
}

#[tokio::test]
async fn a_feed_that_is_not_connected_is_an_error() {
    let folder = Folder::new();
    let mut feed = open(&folder.database()).await.feed();
    assert!(feed.next().await.is_err());
    feed.connect().await.unwrap();
    assert!(feed.next().now_or_never().is_none());
}

async fn status(app: &Router, token: &PlaintextToken) -> u16 {
    let request = Request::builder().header("authorization", format!("Bearer {}", token.expose()));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_gate_of_another_process_refuses_what_was_revoked_here() {
    let mut told = told().await;
    told.feed = told.store.feed();
    let cache = CacheConfig::default().ttl(Duration::from_secs(3600));
    let other = open(&told._folder.database()).await;
    let feed = other.feed().poll_every(Duration::from_millis(1));
    let builder = TokenAuthLayer::builder(other).hasher(Sha256Hasher::new()).audit(NoAudit::new());
    let auth = builder.cache(cache).build().unwrap();
    let app = Router::new().route("/", get(|| async {})).route_layer(auth.clone());
    let follow = tokio::spawn(auth.handle().follow(feed));
    while auth.handle().stats().feed != FeedState::Connected {
        tokio::task::yield_now().await;
    }
    let token = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap();
    assert_eq!((status(&app, &token).await, status(&app, &token).await), (200, 200));
    let at = SystemClock::new().wall();
    told.store.update(&token.id(), Revision::FIRST, Change::Revoke { at }).await.unwrap();
    // Nothing but the feed ends this.
    while status(&app, &token).await == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&app, &token).await, 401);
    follow.abort();
}
