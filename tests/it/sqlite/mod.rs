//! The store in SQLite: what the suite for every store cannot see.

mod feed;
mod migrations;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, SqlitePool};
use tower_token_auth::test_util::conformance;
use tower_token_auth::{Durability, SqliteStore, TokenId, TokenRegistry};

/// A folder of a test's own, gone with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tower-token-auth-{}", TokenId::generate().unwrap()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("tokens.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A pool as an application would make it that knows nothing of this crate.
pub(crate) async fn pool(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqlitePool::connect_with(options).await.unwrap()
}

/// A store as another process would open it.
pub(crate) async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

/// Does by hand what no store does.
pub(crate) async fn by_hand(pool: &SqlitePool, sql: &str) -> u64 {
    sqlx::query(AssertSqlSafe(sql)).execute(pool).await.unwrap().rows_affected()
}

#[tokio::test]
async fn it_conforms() {
    let (folder, fresh) = (Folder::new(), AtomicUsize::new(0));
    let make = || async { open(&folder.0.join(fresh.fetch_add(1, Ordering::Relaxed).to_string())).await };
    conformance::check(make).await.unwrap();
}

#[tokio::test]
async fn it_survives_a_restart() {
    let folder = Folder::new();
    let path = &folder.database();
    let restart = |store: SqliteStore| async move {
        store.pool().close().await;
        open(path).await
    };
    conformance::check_survival(open(path).await, restart).await.unwrap();
}

#[tokio::test]
async fn it_declares_what_its_settings_promise() {
    let folder = Folder::new();
    assert_eq!(open(&folder.database()).await.durability(), Durability::Durable);
    let path = folder.database();
    let options = SqliteConnectOptions::new().filename(&path);
    for (synchronous, declared) in [
        (SqliteSynchronous::Off, Durability::CrashSafe),
        (SqliteSynchronous::Normal, Durability::CrashSafe),
        (SqliteSynchronous::Full, Durability::Durable),
    ] {
        let pool = SqlitePool::connect_with(options.clone().synchronous(synchronous)).await.unwrap();
        let store = SqliteStore::new(pool);
        assert_eq!(store.durability(), Durability::Volatile, "nobody has looked");
        store.migrate().await.unwrap();
        assert_eq!(store.durability(), declared, "{synchronous:?}");
    }
    let memory = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::new(memory);
    store.migrate().await.unwrap();
    assert_eq!(store.durability(), Durability::Volatile, "in memory");
}
