//! Processes that share an SQLite file.

use sqlx::{AssertSqlSafe, SqlitePool};
use tower_token_auth::test_util::mint;
use tower_token_auth::{Scope, SqliteFeed, SqliteStore, TokenId};

use super::{Database, OWNER, crash, cut, find, lag, replica};
use crate::sqlite::Folder;

/// A new file, gone with the test.
struct Sqlite(Folder);

impl Sqlite {
    fn new() -> Self {
        Self(Folder::new())
    }
}

impl Database for Sqlite {
    type Store = SqliteStore;
    type Feed = SqliteFeed;

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(self.0.database()).await.unwrap()
    }

    fn feed(&self, store: &SqliteStore) -> SqliteFeed {
        store.feed()
    }

    /// There is no connection that anybody could cut: leaves numbers out, as one does who empties the table.
    async fn cut_feeds(&self) {
        let pool = SqlitePool::connect(self.0.database().to_str().unwrap()).await.unwrap();
        let gap = "INSERT INTO tta_changes (seq, notice) SELECT coalesce(max(seq), 0) + 20000, 'all' FROM tta_changes";
        sqlx::query(gap).execute(&pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_on_one_is_refused_on_all() {
    lag::revoked_on_one_is_refused_on_all("SQLite", &Sqlite::new()).await;
}

#[tokio::test]
async fn without_a_feed_the_bound_is_the_ttl() {
    cut::without_a_feed_the_bound_is_the_ttl(&Sqlite::new()).await;
}

#[tokio::test]
async fn everything_is_distrusted_at_the_reconnect() {
    cut::everything_is_distrusted_at_the_reconnect(&Sqlite::new()).await;
}

#[tokio::test]
async fn a_replica_that_lags_revives_nothing() {
    replica::a_replica_that_lags_revives_nothing(&Sqlite::new()).await;
}

/// Does nothing unless it is started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    if let Some(path) = crash::place() {
        crash::issue_and_revoke(SqliteStore::open(path).await.unwrap()).await;
    }
}

#[tokio::test]
async fn what_a_killed_process_acknowledged_is_there() {
    let database = Sqlite::new();
    let path = database.0.database();
    crash::what_a_killed_process_acknowledged_is_there(&database, "sqlite", path.to_str().unwrap()).await;
}

#[tokio::test]
async fn a_look_up_beside_the_bare_driver() {
    let database = Sqlite::new();
    let store = database.open().await;
    mint(&store, OWNER, Scope::ReadOnly).await.unwrap();
    let copies = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) INSERT INTO tta_tokens \
        (id, owner, created_by, created_at, on_behalf_right, label, scope, state, revision, secret, successor_used, \
        attributes) SELECT printf('%016d', i), owner, created_by, created_at, on_behalf_right, label, scope, state, \
        revision, secret, successor_used, attributes FROM (SELECT * FROM tta_tokens LIMIT 1), n";
    sqlx::query(copies).bind(find::size().0 as i64).execute(store.pool()).await.unwrap();
    let by_hand = async |id: TokenId| {
        let query = sqlx::query(AssertSqlSafe(store.find_sql())).bind(id.to_string());
        query.fetch_optional(store.pool()).await.map(|row| row.is_some())
    };
    find::beside_the_bare_driver("SQLite", &store, by_hand).await;
}
