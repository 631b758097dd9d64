//! The store in SQLite: what the suite for every store cannot see.

mod crash;
mod feed;
mod migrations;
mod rows;

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, SqlitePool};
use tower_token_auth::{SqliteStore, TokenId};

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tower-token-auth-{}", TokenId::generate().unwrap()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("tokens.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A pool as an application would make it that knows nothing of this crate.
async fn pool(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    SqlitePool::connect_with(options).await.unwrap()
}

/// A store as another process would open it.
async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

/// Does by hand what no store does.
async fn by_hand(pool: &SqlitePool, sql: &str) -> u64 {
    sqlx::query(AssertSqlSafe(sql)).execute(pool).await.unwrap().rows_affected()
}
