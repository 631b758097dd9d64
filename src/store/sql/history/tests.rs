use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{AssertSqlSafe, Row};

use super::*;
use crate::audit::fixtures::{allowed, anonymous, any_event, claimed, desk, id, owner};
use crate::audit::{Action, Outcome};
use crate::decision::Reason;
use crate::store::{SqliteStore, TokenRegistry};

async fn store() -> SqliteStore {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::new(pool);
    store.migrate().await.unwrap();
    store
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn append(store: &SqliteStore, key: BatchKey, events: &[AuditEvent<'static>]) -> Result<(), StoreError> {
    let events: Vec<_> = events.iter().cloned().map(Box::new).collect();
    Archive::append(store, key, &events).await
}

fn key(number: u64) -> BatchKey {
    BatchKey { writer: id(1), number, at: Timestamp::from_unix_seconds(1) }
}

/// All that an event shows. Of a reason the text: the sentence of a rule is stored as an event shows it.
fn shown(event: &AuditEvent<'_>) -> String {
    let token = event.proved().map(|token| (token.issued_scope(), token.expires_at(), token.works_until()));
    format!(
        "{:?} {:?}",
        (event.at(), event.first_at(), event.count(), event.is_anonymous(), event.action(), event.outcome(), token),
        (
            (event.reason().map(Reason::as_str), event.detail(), event.token_id(), event.claimed_id(), event.owner()),
            (event.label(), event.scope(), event.secret_slot(), event.access(), event.method(), event.path()),
            (event.route(), event.user_agent(), event.client_address(), event.request_id(), event.actor()),
            (event.before(), event.after()),
        )
    )
}

async fn events(history: &SqlHistory) -> Vec<AuditEvent<'static>> {
    let page = history.events(&HistoryFilter::all().page_size(1_000), None).await.unwrap();
    assert_eq!((page.unreadable, page.next), (0, None));
    page.events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_event_read_back_shows_what_the_one_recorded_showed(all in prop::collection::vec(any_event(), 1..20)) {
        runtime().block_on(async {
            let store = store().await;
            let mut recorded: Vec<_> = all.iter().map(shown).collect();
            append(&store, key(1), &all).await.unwrap();
            let mut read: Vec<_> = events(&store.history().0).await.iter().map(shown).collect();
            recorded.sort();
            read.sort();
            assert_eq!(read, recorded);
        });
    }
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_not_written_twice() {
    let store = store().await;
    let history = store.history().0;
    let batch = [allowed(1), claimed(Reason::Mismatch, 1), anonymous()];
    let written = async || {
        let seen = history.applications_of(&id(1)).await.unwrap().unwrap();
        (events(&history).await.len(), seen.applications[0].allowed, seen.unproved)
    };
    for _ in 0..3 {
        append(&store, key(1), &batch).await.unwrap();
        assert_eq!(written().await, (3, 1, 1));
    }
    append(&store, key(2), &batch).await.unwrap();
    assert_eq!(written().await, (6, 2, 2), "the next is another one");
    append(&store, key(1), &batch).await.unwrap();
    assert_eq!(written().await, (6, 2, 2), "late");
    let other = BatchKey { writer: id(2), ..key(1) };
    append(&store, other, &batch).await.unwrap();
    assert_eq!(written().await, (9, 3, 3), "of another writer");
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let store = store().await;
    let history = store.history().0;
    let rename = async |from: &str, to: &str| {
        let sql = AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
        sqlx::query(sql).execute(store.pool()).await.unwrap();
    };
    let batch = [allowed(1), allowed(2)];
    for table in ["tta_seen_tokens", "tta_seen_applications"] {
        rename(table, "hidden").await;
        assert!(append(&store, key(1), &batch).await.is_err());
        rename("hidden", table).await;
        assert!(events(&history).await.is_empty() && history.applications_of(&id(1)).await.unwrap().is_none());
    }
    append(&store, key(1), &batch).await.unwrap();
    assert_eq!(events(&history).await.len(), 2, "its key was not used up");
}

/// How the database would answer.
async fn plan(store: &SqliteStore, filter: &HistoryFilter) -> String {
    let cursor = statements::cursor(5, 5);
    let mut statement = Archive::statements(store).list(filter, Some(&cursor)).unwrap();
    statement.sql = Arc::from(format!("EXPLAIN QUERY PLAN {}", statement.sql));
    let rows = crate::store::sql::bound!(statement).fetch_all(store.pool()).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn pages_are_read_from_an_index_in_their_order() {
    let (store, all) = (store().await, HistoryFilter::all);
    let time = Timestamp::from_unix_seconds;
    for (filter, index) in [
        (all(), "tta_events_by_time"),
        (all().since(time(1)).before(time(9)), "tta_events_by_time"),
        (all().token(id(1)), "tta_events_by_token"),
        (all().owner(owner("alice")), "tta_events_by_owner"),
        (all().reason(Reason::Mismatch), "tta_events_by_reason"),
        (all().outcome(Outcome::Refused), "tta_events_by_outcome"),
        (all().action(Action::ChangePolicy), "tta_events_by_action"),
    ] {
        let plan = plan(&store, &filter).await;
        assert!(plan.contains(&format!("USING INDEX {index} ")) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

/// What callers cause is forgotten with their requests, also what sinks report of it.
#[tokio::test]
async fn reports_are_forgotten_with_requests_and_acts_are_kept() {
    let store = store().await;
    let history = store.history().0;
    let report = |action| AuditEvent { action, ..claimed(Reason::Mismatch, 1) };
    let all = [report(Action::ReportThreshold), report(Action::ReportLoss), allowed(1), desk(1)];
    append(&store, key(1), &all).await.unwrap();
    let forget = Archive::statements(&store).forget(statements::Forget::Requests, Timestamp::MAX);
    assert_eq!(Archive::change(&store, forget).await.unwrap(), 3);
    assert_eq!(events(&history).await[0].action(), Action::Issue);
}

/// On one thread, where whoever gives a turn up goes on first.
#[tokio::test(flavor = "current_thread")]
async fn a_desk_writes_while_history_has_always_more_to_write() {
    let folder = std::env::temp_dir().join(format!("tta-turn-{}", TokenId::generate().unwrap()));
    std::fs::create_dir(&folder).unwrap();
    let store = SqliteStore::open(folder.join("tokens.db")).await.unwrap();
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let flood = async {
        while written.load(Ordering::Relaxed) < FLOOD && !done.load(Ordering::Relaxed) {
            let number = written.load(Ordering::Relaxed) + 1;
            append(&store, key(number), &[allowed(1)]).await.unwrap();
            written.store(number, Ordering::Relaxed);
        }
    };
    let desk = async {
        while written.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        store.prune(Timestamp::from_unix_seconds(1)).await.unwrap();
        done.store(true, Ordering::Relaxed);
        written.load(Ordering::Relaxed)
    };
    let done_after = futures_util::future::join(flood, desk).await.1;
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(done_after < FLOOD / 2, "after {done_after} batches");
}

const FLOOD: u64 = 2_000;
