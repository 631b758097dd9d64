//! Making the tables.

use std::process::{Command, Stdio};

use futures_util::future::join_all;
use sqlx::SqlitePool;
use tower_token_auth::test_util::mint;
use tower_token_auth::{HistoryFilter, Scope, SqliteStore, TokenStore};

use super::{Folder, by_hand, open, pool};

const REPEATS: usize = 50;
/// Of the tables: how many migrations there are.
const VERSION: i64 = 2;
/// Where a child process is told which database to migrate.
const CHILD: &str = "TOWER_TOKEN_AUTH_TEST_MIGRATE";

async fn applied(pool: &SqlitePool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM tta_migrations").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn several_stores_open_a_new_file_at_once() {
    for _ in 0..REPEATS {
        let folder = Folder::new();
        let path = folder.database();
        for store in join_all((0..4).map(|_| SqliteStore::open(&path))).await {
            mint(&store.unwrap(), "alice", Scope::ReadOnly).await.unwrap();
        }
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&pool(&path).await).await.unwrap();
        assert_eq!((mode.as_str(), applied(&pool(&path).await).await), ("wal", VERSION));
    }
}

#[tokio::test]
async fn several_pools_migrate_at_once() {
    for _ in 0..REPEATS {
        let folder = Folder::new();
        let path = folder.database();
        let stores = join_all((0..4).map(|_| async { SqliteStore::new(pool(&path).await) })).await;
        for outcome in join_all(stores.iter().map(SqliteStore::migrate)).await {
            outcome.unwrap();
        }
        assert_eq!(applied(&pool(&path).await).await, VERSION);
        mint(&stores[0], "alice", Scope::ReadOnly).await.unwrap();
    }
}

/// Does nothing unless it is started by the test below.
#[tokio::test]
async fn child() {
    if let Ok(path) = std::env::var(CHILD) {
        open(path.as_ref()).await;
    }
}

#[tokio::test]
async fn two_processes_migrate_at_once() {
    for _ in 0..REPEATS {
        let folder = Folder::new();
        let path = folder.database();
        let start = || {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "sqlite::migrations::child"]).env(CHILD, &path);
            child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for child in [start(), start()] {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        assert_eq!(applied(&pool(&path).await).await, VERSION);
    }
}

#[tokio::test]
async fn migrating_again_keeps_what_is_there() {
    let folder = Folder::new();
    let store = open(&folder.database()).await;
    let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.find(&token.id()).await.unwrap().is_some());
}

/// As the first release has left them.
#[tokio::test]
async fn tables_of_an_earlier_release_are_brought_up_to_date() {
    let folder = Folder::new();
    let pool = pool(&folder.database()).await;
    sqlx::raw_sql(include_str!("../../../src/store/sql/sqlite/1.sql")).execute(&pool).await.unwrap();
    let store = SqliteStore::new(pool.clone());
    let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(applied(&pool).await, VERSION);
    assert!(store.find(&token.id()).await.unwrap().is_some());
    let history = store.history().0;
    assert!(history.events(&HistoryFilter::all(), None).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn tables_of_a_later_release_are_left_alone() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    by_hand(&pool, "INSERT INTO tta_migrations (version) VALUES (3)").await;
    assert!(store.migrate().await.is_err());
    by_hand(&pool, "DELETE FROM tta_migrations WHERE version = 3").await;
    store.migrate().await.unwrap();
}
