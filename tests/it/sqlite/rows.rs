//! What is stored, and what is read of it.

use futures_util::FutureExt;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Row};
use tower_token_auth::test_util::{draft, mint};
use tower_token_auth::{
    Change, InsertError, LastUsed, RetiringSecret, Scope, SecretHash, SqliteStore, TokenFilter, TokenRegistry,
    TokenStore, UpdateError,
};

use super::{Folder, by_hand, open, pool};
use crate::sql::{no_change_is_lost_between_processes, told};

#[tokio::test]
async fn what_cannot_be_read_is_an_error_that_names_token_and_column() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    let (token, record) = draft("alice", Scope::ReadOnly).unwrap();
    let hash = SecretHash::parse("$sha256$v=1$Z29vZA").unwrap();
    let retiring = RetiringSecret::new(hash, record.created_at());
    store.insert(record.with_retiring(Some(retiring))).await.unwrap();
    for (column, unreadable, readable) in [
        ("owner", "''", "'bob'"),
        ("owner", "char(10)", "'bob'"),
        ("created_by", "'robot:7'", "'user:bob'"),
        ("created_at", "-1", "0"),
        ("created_at", "253402300800000", "253402300799999"),
        ("label", "printf('%200s', 'x')", "'x'"),
        ("scope", "'admin'", "'read-write'"),
        ("scope", "''", "'read-only'"),
        ("expires_at", "-1", "NULL"),
        ("state", "'asleep'", "'paused'"),
        ("revoked_at", "-1", "NULL"),
        ("revision", "-1", "1"),
        ("secret", "'correct horse'", "'$sha256$v=1$AAAA'"),
        ("retiring_secret", "'$$'", "'$sha256$v=1$AAAA'"),
        ("retiring_until", "NULL", "0"),
        ("attributes", "'tenant'", "'tenant' || char(9) || 'acme'"),
        ("used_at", "-1", "7"),
        ("used_from", "'localhost'", "'::1'"),
        ("wrote_at", "-1", "NULL"),
    ] {
        by_hand(&pool, &format!("UPDATE tta_tokens SET {column} = {unreadable}")).await;
        let error = store.find(&token.id()).await.expect_err(column);
        let told = told(&error);
        assert!(told.contains(token.id().as_str()) && told.contains(column), "{column}: {told}");
        assert!(!told.contains("horse"), "{told}");
        assert!(store.list(&TokenFilter::all(), None).await.is_err(), "{column}");
        assert!(matches!(
            store.update(&token.id(), tower_token_auth::Revision::FIRST, Change::Pause).await,
            Err(UpdateError::Store(_))
        ));
        by_hand(&pool, &format!("UPDATE tta_tokens SET {column} = {readable}")).await;
        assert!(store.find(&token.id()).await.unwrap().is_some(), "{column}");
    }
}

/// The driver would read 7 as a yes.
#[tokio::test]
async fn a_flag_is_yes_or_no() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    mint(&store, "alice", Scope::ReadOnly).await.unwrap();
    for column in ["on_behalf_right", "successor_used"] {
        for (value, can_be_stored) in [("7", false), ("'yes'", false), ("NULL", false), ("1", true)] {
            let update = AssertSqlSafe(format!("UPDATE tta_tokens SET {column} = {value}"));
            assert_eq!(sqlx::query(update).execute(&pool).await.is_ok(), can_be_stored, "{column} = {value}");
        }
    }
}

#[tokio::test]
async fn an_error_tells_neither_path_nor_hash() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    by_hand(&pool, "CREATE TRIGGER no BEFORE INSERT ON tta_tokens BEGIN SELECT raise(ABORT, 'not today'); END").await;
    let (_, record) = draft("alice", Scope::ReadOnly).unwrap();
    let hash = record.secret().to_text();
    let Err(InsertError::Store(error)) = store.insert(record).await else { panic!("inserted") };
    let told = told(&error);
    assert!(told.contains("not today"), "{told}");
    assert!(!told.contains(&hash) && !told.contains(folder.database().to_str().unwrap()), "{told}");
}

#[tokio::test]
async fn a_look_up_is_one_search_by_the_primary_key() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    let explain = format!("EXPLAIN QUERY PLAN {}", store.find_sql());
    let plan = sqlx::query(AssertSqlSafe(explain)).bind("0123456789abcdef").fetch_all(&pool).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    assert!(plan[0].starts_with("SEARCH t USING INDEX sqlite_autoindex_tta_tokens_1 (id=?)"), "{plan:?}");
    assert!(plan.iter().all(|step| !step.contains("SCAN")), "{plan:?}");
}

#[tokio::test]
async fn a_store_of_another_prefix_is_another_store() {
    let folder = Folder::new();
    let store = open(&folder.database()).await;
    let other = SqliteStore::new(pool(&folder.database()).await).with_table_prefix("acme_tta_").unwrap();
    other.migrate().await.unwrap();
    let token = mint(&other, "alice", Scope::ReadOnly).await.unwrap();
    assert!(other.find(&token.id()).await.unwrap().is_some());
    assert!(store.find(&token.id()).await.unwrap().is_none());
    for wrong in ["", "a-b", "x; DROP TABLE tta_tokens; --", "\"", "Tta_"] {
        assert!(store.clone().with_table_prefix(wrong).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_written_whole_is_not_written_at_all() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    let mut uses = Vec::new();
    for _ in 0..3 {
        let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
        let at = store.find(&token.id()).await.unwrap().unwrap().created_at();
        uses.push((token.id(), LastUsed::new(at)));
    }
    let last = uses.iter().map(|(id, _)| id).max().unwrap();
    let no = format!(
        "CREATE TRIGGER no BEFORE UPDATE ON tta_tokens WHEN OLD.id = '{last}' BEGIN SELECT raise(ABORT, 'no'); END"
    );
    by_hand(&pool, &no).await;
    assert!(store.touch(&uses).await.is_err());
    let used = async || {
        let page = store.list(&TokenFilter::all(), None).await.unwrap();
        page.records.iter().filter(|record| record.last_used().is_some()).count()
    };
    assert_eq!(used().await, 0);
    by_hand(&pool, "DROP TRIGGER no").await;
    store.touch(&uses).await.unwrap();
    assert_eq!(used().await, 3);
}

#[tokio::test]
async fn no_change_is_lost() {
    let folder = Folder::new();
    let (here, there) = (open(&folder.database()).await, open(&folder.database()).await);
    no_change_is_lost_between_processes(here, there).await;
}

#[tokio::test]
async fn who_reads_does_not_wait_for_those_who_write() {
    let folder = Folder::new();
    let (store, pool) = (open(&folder.database()).await, pool(&folder.database()).await);
    let (token, record) = draft("alice", Scope::ReadOnly).unwrap();
    store.insert(record).await.unwrap();
    let another_process_writes = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    // More than the pool has connections.
    let mut inserts = Box::pin(join_all((0..20).map(|_| mint(&store, "alice", Scope::ReadOnly))));
    for _ in 0..50 {
        assert!((&mut inserts).now_or_never().is_none());
        assert!(store.find(&token.id()).await.unwrap().is_some());
    }
    another_process_writes.rollback().await.unwrap();
    assert!(inserts.await.iter().all(Result::is_ok));
}
