//! The store in PostgreSQL, on a real server: what the suite for every store cannot see.

mod feed;
mod migrations;
mod outage;
mod rows;

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tower_token_auth::test_util::conformance;
use tower_token_auth::{Durability, PostgresStore, TokenRegistry};

use crate::servers::{Kind, shared, unique};

/// Another process's pool, `None` where there is no server.
pub(crate) async fn pool() -> Option<PgPool> {
    let url = shared(Kind::Postgres)?;
    Some(PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap())
}

pub(crate) async fn with_prefix(prefix: &str) -> Option<PostgresStore> {
    Some(PostgresStore::new(pool().await?).with_table_prefix(prefix).unwrap())
}

/// An empty store, and the prefix of its tables.
pub(crate) async fn open() -> Option<(PostgresStore, String)> {
    let prefix = unique("t");
    let store = with_prefix(&prefix).await?;
    store.migrate().await.unwrap();
    Some((store, prefix))
}

/// Does by hand what no store does.
pub(crate) async fn by_hand(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

#[tokio::test]
async fn it_conforms() {
    if open().await.is_some() {
        conformance::check(|| async { open().await.unwrap().0 }).await.unwrap();
    }
}

#[tokio::test]
async fn it_declares_what_its_settings_promise() {
    let Some((_, prefix)) = open().await else { return };
    let url = shared(Kind::Postgres).unwrap();
    for (commit, declared) in
        [("off", Durability::Volatile), ("local", Durability::Durable), ("on", Durability::Durable)]
    {
        let options =
            url.parse::<sqlx::postgres::PgConnectOptions>().unwrap().options([("synchronous_commit", commit)]);
        let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
        let store = PostgresStore::new(pool).with_table_prefix(&prefix).unwrap();
        assert_eq!(store.durability(), Durability::Volatile, "nobody has looked");
        store.migrate().await.unwrap();
        assert_eq!(store.durability(), declared, "{commit}");
    }
}
