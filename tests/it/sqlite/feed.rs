//! What other processes are told.

use std::time::Duration;

use futures_util::FutureExt;
use sqlx::SqlitePool;
use tower_token_auth::test_util::mint;
use tower_token_auth::{ChangeFeed, Notice, Revision, Scope, SqliteFeed, SqliteStore};

use super::{Folder, by_hand, open, pool};
use crate::sql::{Told, another_gate_refuses_what_was_revoked_here};

async fn told() -> (Folder, SqlitePool, Told<SqliteStore, SqliteFeed>) {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    let feed = open(&folder.database()).await.feed().poll_every(Duration::from_millis(1));
    (folder, pool, Told::new(store, feed).await)
}

#[tokio::test]
async fn every_change_is_told_once_and_nothing_else() {
    let (_folder, _, mut told) = told().await;
    told.every_change_is_told_once_and_nothing_else().await;
}

#[tokio::test]
async fn pruning_what_was_revoked_is_not_told() {
    let (_folder, _, mut told) = told().await;
    told.pruning_what_was_revoked_is_not_told().await;
}

#[tokio::test]
async fn a_gate_of_another_process_refuses_what_was_revoked_here() {
    let folder = Folder::new();
    let (here, there) = (open(&folder.database()).await, open(&folder.database()).await);
    let feed = there.feed().poll_every(Duration::from_millis(1));
    another_gate_refuses_what_was_revoked_here(here, there, feed).await;
}

#[tokio::test]
async fn changes_by_hand_are_told_without_a_revision_unless_it_is_raised() {
    let (_folder, pool, mut told) = told().await;
    let id = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap().id();
    told.next().await;
    by_hand(&pool, "UPDATE tta_tokens SET state = 'paused'").await;
    assert_eq!(told.next().await, Notice::Token { id, revision: None });
    by_hand(&pool, "UPDATE tta_tokens SET state = 'active', revision = revision + 1").await;
    assert_eq!(told.next().await, Notice::Token { id, revision: Some(Revision::new(2)) });
    by_hand(&pool, "DELETE FROM tta_tokens").await;
    assert_eq!(told.next().await, Notice::Token { id, revision: None });
    by_hand(&pool, "INSERT INTO tta_changes (notice) VALUES ('all'), ('what?')").await;
    assert_eq!((told.next().await, told.next().await), (Notice::All, Notice::All));
}

#[tokio::test]
async fn a_gap_is_an_error_and_a_new_connection_goes_on() {
    for gap in [
        "INSERT INTO tta_changes (seq, notice) VALUES (30000, 'all')",
        "DELETE FROM tta_changes",
        "DELETE FROM tta_changes WHERE seq = 2",
    ] {
        let (_folder, pool, mut told) = told().await;
        mint(&told.store, "alice", Scope::ReadOnly).await.unwrap();
        told.next().await;
        let mut transaction = pool.begin().await.unwrap();
        for sql in ["INSERT INTO tta_changes (notice) VALUES ('all'), ('all')", gap] {
            sqlx::query(sql).execute(&mut *transaction).await.unwrap();
        }
        transaction.commit().await.unwrap();
        assert!(told.feed.next().await.is_err(), "{gap}");
        told.feed.connect().await.unwrap();
        mint(&told.store, "alice", Scope::ReadOnly).await.unwrap();
        let goes_on = match told.feed.next().await {
            // Where nothing was left, the first number is not known.
            Err(_) => told.feed.connect().await.is_ok(),
            Ok(notice) => matches!(notice, Notice::Token { .. }),
        };
        assert!(goes_on, "{gap}");
    }
}

#[tokio::test]
async fn the_last_ten_thousand_changes_are_kept() {
    let (_folder, pool, _) = told().await;
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) \
                INSERT INTO tta_changes (notice) SELECT 'all' FROM n";
    by_hand(&pool, many).await;
    let kept: (i64, i64) = sqlx::query_as("SELECT min(seq), count(*) FROM tta_changes").fetch_one(&pool).await.unwrap();
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
