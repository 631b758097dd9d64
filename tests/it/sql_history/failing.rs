//! What is full, closed, gone or not there.

use std::error::Error;
use std::time::Duration;

use http::Method;
use tower_token_auth::{
    Action, AuditSink, BuildError, HistoryFilter, MemoryStore, OnAuditFailure, Outcome, Scope, TokenAuthLayer,
};

use super::stage::Stage;
use super::{Asked, Database, Process};

fn cause(error: &dyn Error) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn noise_displaces_no_proved_event_and_all_of_it_is_accounted_for() {
    for database in Database::each().await {
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        stage.events();
        stage.read(&token, "export/1").await;
        stage.send(Method::GET, None, None).await;
        let [proved, noise] = <[_; 2]>::try_from(stage.events()).unwrap();
        let (history, writer) = database.builder().await.capacity(20).noise(2).build().unwrap();
        (0..1_000).for_each(|_| history.record(&noise).unwrap());
        (0..18).for_each(|_| history.record(&proved).unwrap());
        let full = history.record(&proved).unwrap_err();
        assert!(cause(&full).contains("nobody has spawned its writer"), "{}", cause(&full));
        (0..1_000).for_each(|_| history.record(&noise).unwrap());
        let process = Process { writer: tokio::spawn(writer), history };
        process.history.flush().await;
        let tally = process.history.tally().unwrap();
        assert_eq!((tally.written, tally.coalesced, tally.lost, tally.queued), (20, 1_998, 1, 0));
        let kept = async |filter: HistoryFilter| process.page(&filter, None).await.unwrap().events;
        assert_eq!(kept(HistoryFilter::all().outcome(Outcome::Allowed)).await.len(), 18);
        let noise = kept(HistoryFilter::all().outcome(Outcome::Refused)).await;
        assert_eq!(noise.iter().map(|event| event.count()).collect::<Vec<_>>().iter().sum::<u64>(), 2_000);
        let reports = kept(HistoryFilter::all().action(Action::ReportLoss)).await;
        assert_eq!(reports.iter().map(|event| event.count()).collect::<Vec<_>>(), [1]);
        (0..30).for_each(|_| drop(process.history.record(&proved)));
        process.history.flush().await;
        let lost = process.history.tally().unwrap().lost;
        assert!(lost > 1, "a full queue says so with its writer, too");
    }
}

#[tokio::test]
async fn nothing_is_lost_when_it_is_closed_or_the_last_handle_goes() {
    for database in Database::each().await {
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        stage.events();
        stage.read(&token, "export/1").await;
        let event = stage.events().pop().unwrap();
        for close in [true, false] {
            let before = database.process().await.len().await;
            let Process { history, writer } = database.process().await;
            (0..1_700).for_each(|_| history.record(&event).unwrap());
            if close {
                history.close();
                assert!(cause(&history.record(&event).unwrap_err()).contains("closed"));
            } else {
                drop(history);
            }
            writer.await.unwrap();
            let reported = usize::from(close);
            assert_eq!(database.process().await.len().await, before + 1_700 + reported, "closed: {close}");
        }
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_what_was_recorded_but_not_for_ever() {
    for database in Database::each().await {
        let stage = Stage::new();
        stage.token("alice", Scope::ReadOnly).await;
        let events = stage.events();
        let Process { history, writer } = database.process().await;
        events.iter().for_each(|event| history.record(event).unwrap());
        history.shutdown(Duration::from_secs(60)).await.unwrap();
        assert_eq!(history.events(&HistoryFilter::all(), None).await.unwrap().events.len(), 1);
        writer.abort();
        let (history, _writer) = database.builder().await.build().unwrap();
        events.iter().for_each(|event| history.record(event).unwrap());
        assert_eq!(history.shutdown(Duration::from_millis(1)).await.unwrap_err().events(), 1);
    }
}

#[tokio::test]
async fn a_writer_that_was_stopped_takes_nothing_in() {
    for database in Database::each().await {
        let stage = Stage::new();
        stage.token("alice", Scope::ReadOnly).await;
        let event = stage.events().pop().unwrap();
        let (history, writer) = database.builder().await.build().unwrap();
        history.record(&event).unwrap();
        let flush = history.flush();
        drop(writer);
        flush.await;
        assert!(history.record(&event).is_err());
        assert_eq!(history.tally().unwrap().lost, 2);
    }
}

#[tokio::test]
async fn it_can_be_required_to_record() {
    for database in Database::each().await {
        let Process { history, .. } = database.process().await;
        let builder = TokenAuthLayer::builder(MemoryStore::new()).audit(history);
        assert!(builder.on_audit_failure(OnAuditFailure::Refuse).build().is_ok());
        for (capacity, noise) in [(1, 0), (10, 10)] {
            let wrong = database.builder().await.capacity(capacity).noise(noise).build();
            assert!(matches!(wrong, Err(BuildError::AuditQueue)));
        }
        let wrong = database.builder().await.noise_per_minute(0).build();
        assert!(matches!(wrong, Err(BuildError::Zero(_))));
    }
}

#[tokio::test]
async fn an_event_that_the_database_objects_to_keeps_no_other_waiting() {
    for database in Database::each().await {
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        for number in 0..20 {
            stage.read(&token, &format!("export/{number}")).await;
        }
        let process = database.process().await;
        let index = "CREATE UNIQUE INDEX tta_objection ON tta_events (user_agent) WHERE user_agent = 'export/7'";
        database.by_hand(index).await;
        let events = stage.events();
        process.record(&events).await;
        assert_eq!(process.len().await, 21, "it objects to none yet");
        process.record(&events).await;
        let tally = process.history.tally().unwrap();
        assert_eq!((tally.written, tally.lost, tally.queued), (21 + 20, 1, 0));
        assert_eq!(process.seen(&token.id()).await.unwrap().applications.iter().map(|it| it.allowed).sum::<u64>(), 39);
        process.record(&events[..1]).await;
        assert_eq!(process.len().await, 21 + 20 + 1 + 1, "with the report of the loss");
    }
}

/// Another process holds the file for longer than anybody waits.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_batch_that_found_the_database_locked_is_written_once_it_is_free() {
    use sqlx::SqlitePool;
    use sqlx::sqlite::SqliteConnectOptions;
    use tower_token_auth::SqliteStore;

    let folder = crate::sqlite::Folder::new();
    crate::sqlite::open(&folder.database()).await;
    let options = SqliteConnectOptions::new().filename(folder.database()).busy_timeout(Duration::from_millis(1));
    let store = SqliteStore::new(SqlitePool::connect_with(options).await.unwrap());
    let stage = Stage::new();
    let token = stage.token("alice", Scope::ReadOnly).await;
    stage.read(&token, "export/1").await;
    let log = crate::tower_contract::Captured::default();
    let _listening = log.listen();
    let process = Process::start(super::remembering(store.history_builder()));
    let blocker = crate::sqlite::pool(&folder.database()).await;
    let lock = blocker.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    stage.events().iter().for_each(|event| process.history.record(event).unwrap());
    let flush = process.history.flush();
    while !log.text().contains("could not be written yet") {
        tokio::task::yield_now().await;
    }
    assert!(log.text().contains("database is locked"), "with its cause");
    assert_eq!(process.history.tally().unwrap().queued, 2);
    lock.rollback().await.unwrap();
    flush.await;
    assert_eq!(process.len().await, 2);
    assert_eq!(process.seen(&token.id()).await.unwrap().applications[0].allowed, 1);
    assert_eq!(process.history.tally().unwrap().written, 2);
}
