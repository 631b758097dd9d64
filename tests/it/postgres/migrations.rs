//! Making the tables.

use std::error::Error;

use futures_util::future::join_all;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Row};
use tower_token_auth::test_util::mint;
use tower_token_auth::{HistoryFilter, PostgresStore, Scope, TokenStore};

use super::{by_hand, open, pool, with_prefix};
use crate::servers::unique;

const REPEATS: usize = 50;
/// Of the tables: how many migrations there are.
const VERSION: i64 = 2;

#[tokio::test]
async fn several_processes_migrate_at_once() {
    let Some(pool) = pool().await else { return };
    for _ in 0..REPEATS {
        let prefix = unique("m");
        let mut stores = Vec::new();
        for _ in 0..2 {
            stores.push(with_prefix(&prefix).await.unwrap());
        }
        for outcome in join_all(stores.iter().map(PostgresStore::migrate)).await {
            outcome.unwrap();
        }
        let count = format!("SELECT count(*) AS n FROM {prefix}migrations");
        let row = sqlx::query(AssertSqlSafe(count)).fetch_one(&pool).await.unwrap();
        assert_eq!(row.get::<i64, _>("n"), VERSION);
    }
}

#[tokio::test]
async fn migrating_again_keeps_what_is_there() {
    let Some((store, _)) = open().await else { return };
    let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.find(&token.id()).await.unwrap().is_some());
}

/// As the first release has left them.
#[tokio::test]
async fn tables_of_an_earlier_release_are_brought_up_to_date() {
    let Some(pool) = pool().await else { return };
    let prefix = unique("m");
    let first = include_str!("../../../src/store/sql/postgres/1.sql").replace("tta_", &prefix);
    by_hand(&pool, &first).await;
    let store = with_prefix(&prefix).await.unwrap();
    let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
    store.migrate().await.unwrap();
    assert!(store.find(&token.id()).await.unwrap().is_some());
    let history = store.history().0;
    assert!(history.events(&HistoryFilter::all(), None).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn tables_of_a_later_release_are_left_alone() {
    let Some((store, prefix)) = open().await else { return };
    let pool = pool().await.unwrap();
    by_hand(&pool, &format!("INSERT INTO {prefix}migrations (version) VALUES (3)")).await;
    assert!(store.migrate().await.is_err());
    by_hand(&pool, &format!("DELETE FROM {prefix}migrations WHERE version = 3")).await;
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let Some(pool) = pool().await else { return };
    for (encoding, fits) in [("LATIN1", false), ("SQL_ASCII", false), ("UTF8", true)] {
        let name = unique("d");
        let locale = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
        by_hand(&pool, &format!("CREATE DATABASE {name} ENCODING '{encoding}' {locale}")).await;
        let options = (*pool.connect_options()).clone().database(&name);
        let there = PgPoolOptions::new().connect_with(options).await.unwrap();
        let migrated = PostgresStore::new(there.clone()).migrate().await;
        there.close().await;
        by_hand(&pool, &format!("DROP DATABASE {name}")).await;
        let why = migrated.err().map(|error| error.source().unwrap().to_string());
        let told = format!("the encoding of the database has to be UTF8, and is {encoding}");
        assert_eq!(why, (!fits).then_some(told));
    }
}

#[tokio::test]
async fn a_store_in_another_schema_is_another_store() {
    let Some((store, prefix)) = open().await else { return };
    let pool = pool().await.unwrap();
    let schema = unique("s");
    let other = with_prefix(&prefix).await.unwrap().with_schema(&schema).unwrap();
    assert!(other.migrate().await.is_err(), "the schema is not there");
    by_hand(&pool, &format!("CREATE SCHEMA {schema}")).await;
    other.migrate().await.unwrap();
    let token = mint(&other, "alice", Scope::ReadOnly).await.unwrap();
    assert!(other.find(&token.id()).await.unwrap().is_some());
    assert!(store.find(&token.id()).await.unwrap().is_none());
    for wrong in ["", "a-b", "x\"; DROP SCHEMA public; --", "Auth", "$user"] {
        assert!(store.clone().with_schema(wrong).is_err(), "{wrong:?}");
    }
    let keyword = store.with_schema("user").unwrap();
    assert!(keyword.migrate().await.is_err(), "a keyword is a name like any other, and there is no such schema");
}
