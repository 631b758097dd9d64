//! What is stored, and what is read of it.

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tower_token_auth::test_util::{draft, mint};
use tower_token_auth::{
    Cursor, InsertError, LastUsed, PostgresStore, RetiringSecret, Scope, Timestamp, TokenFilter, TokenRecord,
    TokenRegistry, TokenStore,
};

use super::{by_hand, open, pool, with_prefix};
use crate::servers::unique;
use crate::sql::{no_change_is_lost_between_processes, told};
use crate::tower_contract::Captured;

#[tokio::test]
async fn what_cannot_be_read_is_an_error_that_names_token_and_column() {
    let Some((store, prefix)) = open().await else { return };
    let pool = pool().await.unwrap();
    let (token, record) = draft("alice", Scope::ReadOnly).unwrap();
    let retiring = RetiringSecret::new(record.secret().clone(), record.created_at());
    store.insert(record.with_retiring(Some(retiring))).await.unwrap();
    for (column, unreadable, readable) in [
        ("owner", "E'\\n'", "'bob'"),
        ("created_by", "'robot:7'", "'user:bob'"),
        ("created_at", "-1", "0"),
        ("scope", "'admin'", "'read-write'"),
        ("expires_at", "253402300800000", "253402300799999"),
        ("state", "'asleep'", "'paused'"),
        ("revision", "-1", "1"),
        ("secret", "'correct horse'", "'$sha256$v=1$AAAA'"),
        ("retiring_secret", "'$$'", "'$sha256$v=1$AAAA'"),
        ("retiring_until", "NULL", "0"),
        ("attributes", "'tenant'", "E'tenant\\tacme'"),
        ("used_at", "-1", "7"),
        ("used_from", "'localhost'", "'::1'"),
    ] {
        by_hand(&pool, &format!("UPDATE {prefix}tokens SET {column} = {unreadable}")).await;
        let told = told(&store.find(&token.id()).await.expect_err(column));
        assert!(told.contains(token.id().as_str()) && told.contains(column), "{column}: {told}");
        assert!(!told.contains("horse"), "{told}");
        assert!(store.list(&TokenFilter::all(), None).await.is_err(), "{column}");
        by_hand(&pool, &format!("UPDATE {prefix}tokens SET {column} = {readable}")).await;
        assert!(store.find(&token.id()).await.unwrap().is_some(), "{column}");
    }
}

#[tokio::test]
async fn an_error_tells_no_row() {
    let Some((store, prefix)) = open().await else { return };
    let pool = pool().await.unwrap();
    // Of such a row PostgreSQL tells every column.
    by_hand(&pool, &format!("ALTER TABLE {prefix}tokens ADD CHECK (owner <> 'alice')")).await;
    let (_, record) = draft("alice", Scope::ReadOnly).unwrap();
    // Each is cut short.
    let hash = record.secret().to_text().split_off(24).split_at(8).0.to_owned();
    let Err(InsertError::Store(error)) = store.insert(record).await else { panic!("inserted") };
    let told = told(&error);
    assert!(told.contains("23514") && told.contains("check constraint"), "{told}");
    for secret in [&*hash, "alice", "127.0.0.1"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

#[tokio::test]
async fn a_look_up_in_a_large_table_is_one_search_by_the_primary_key() {
    let Some((store, prefix)) = open().await else { return };
    let pool = pool().await.unwrap();
    let id = mint(&store, "alice", Scope::ReadOnly).await.unwrap().id();
    let many = format!(
        "INSERT INTO {prefix}tokens (id, owner, created_by, created_at, on_behalf_right, label, scope, state, revision, \
         secret, successor_used, attributes) SELECT lpad(n::text, 16, '0'), owner, created_by, created_at, \
         on_behalf_right, label, scope, state, revision, secret, successor_used, attributes \
         FROM {prefix}tokens, generate_series(1, 20000) n; ANALYZE {prefix}tokens"
    );
    by_hand(&pool, &many).await;
    let explain = format!("EXPLAIN {}", store.find_sql());
    let plan = sqlx::query(AssertSqlSafe(explain)).bind(id.as_str()).fetch_all(&pool).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan[0].starts_with(&format!("Index Scan using {prefix}tokens_pkey on {prefix}tokens t")), "{plan:#?}");
    assert!(plan.iter().all(|step| !step.contains("Seq Scan on") || step.contains("barred")), "{plan:#?}");
    assert!(store.find(&id).await.unwrap().is_some());
}

/// The order of a database's locale is not that of bytes, and may change with the system.
#[tokio::test]
async fn ids_are_listed_in_the_order_of_their_bytes() {
    let Some(pool) = pool().await else { return };
    let database = unique("d");
    by_hand(&pool, &format!("CREATE DATABASE {database} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"))
        .await;
    let options = pool.connect_options().as_ref().clone().database(&database);
    let store = PostgresStore::new(PgPool::connect_with(options).await.unwrap());
    store.migrate().await.unwrap();
    let ids = ["0000000000000000", "AAAAAAAAAAAAAAAA", "BbBbBbBbBbBbBbBb", "aaaaaaaaaaaaaaaa", "bBbBbBbBbBbBbBbB"];
    for id in ids.into_iter().rev() {
        let (_, draft) = draft("alice", Scope::ReadOnly).unwrap();
        let (label, secret) = (draft.label().clone(), draft.secret().clone());
        let (owner, id) = (draft.owner().clone(), id.parse().unwrap());
        let record = TokenRecord::new(id, owner, label, Scope::ReadOnly, secret, draft.created_at());
        store.insert(record).await.unwrap();
    }
    let listed = store.list(&TokenFilter::all(), None).await.unwrap().records;
    assert_eq!(listed.iter().map(|record| record.id().to_string()).collect::<Vec<_>>(), ids);
    let after = store.list(&TokenFilter::all(), Some(&Cursor::new(ids[2]))).await.unwrap().records;
    assert_eq!(after.len(), 2);
}

#[tokio::test]
async fn batches_that_meet_do_not_wait_for_each_other_in_a_circle() {
    let Some((store, prefix)) = open().await else { return };
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(mint(&store, "alice", Scope::ReadOnly).await.unwrap().id());
    }
    let other = with_prefix(&prefix).await.unwrap();
    let batch = |millis| ids.iter().map(|id| (*id, LastUsed::new(Timestamp::from_unix_millis(millis)))).collect();
    let batches: Vec<Vec<_>> = (0..40).map(batch).collect();
    let stores = [&store, &other].into_iter().cycle();
    for outcome in join_all(batches.iter().zip(stores).map(|(batch, store)| store.touch(batch))).await {
        outcome.unwrap();
    }
    for record in store.list(&TokenFilter::all(), None).await.unwrap().records {
        assert_eq!(record.last_used().unwrap().at, Timestamp::from_unix_millis(39));
    }
}

#[tokio::test]
async fn no_change_is_lost() {
    let Some((here, prefix)) = open().await else { return };
    let there = with_prefix(&prefix).await.unwrap();
    no_change_is_lost_between_processes(here, there).await;
}

#[tokio::test]
async fn logs_show_the_statement_and_no_value() {
    let Some((store, prefix)) = open().await else { return };
    let captured = Captured::default();
    let mut values = Vec::new();
    // Another test that begins or ceases to listen may make this one deaf for a moment.
    while !captured.text().contains(&format!("{prefix}tokens")) {
        let (_, record) = draft("who is not named", Scope::ReadOnly).unwrap();
        let _listening = captured.listen();
        store.insert(record.clone()).await.unwrap();
        store.find(&record.id()).await.unwrap().unwrap();
        values.push(record.secret().to_text().split_off(40));
    }
    let logged = captured.text();
    for value in values.iter().map(String::as_str).chain(["who is not named"]) {
        assert!(!logged.contains(value), "{value} in {logged}");
    }
}
