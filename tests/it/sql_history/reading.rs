//! What is read is what was recorded.

use std::time::Duration;

use http::Method;
use tower_token_auth::{
    Action, ApplicationFilter, AuditEvent, AuditHistory, AuditSink, HistoryCursor, HistoryError, HistoryFilter,
    IssueRefusal, Outcome, OwnerId, Reason, Scope, SqlHistoryBuilder, Timestamp,
};

use super::stage::Stage;
use super::{Asked, Database, all_told, remembering, told};

fn owner(name: &str) -> OwnerId {
    OwnerId::new(name).unwrap()
}

#[tokio::test]
async fn an_event_read_back_shows_what_the_one_recorded_showed() {
    for database in Database::each().await {
        let process = database.process().await;
        let story = Stage::new().story().await;
        assert!(story.len() > 20, "{}", story.len());
        process.record(&story).await;
        let page = database.process().await.page(&HistoryFilter::all(), None).await.unwrap();
        assert_eq!((page.unreadable, page.next), (0, None));
        let read: Vec<_> = page.events.iter().rev().map(told).collect();
        let recorded = all_told(&story);
        let different = read.iter().zip(&recorded).find(|(read, recorded)| read != recorded);
        assert_eq!((different, read.len()), (None, recorded.len()), "in the order in which they came");
    }
}

#[tokio::test]
async fn each_filter_lets_through_what_it_lets_through_in_memory() {
    let stage = Stage::new();
    let story = stage.story().await;
    let memory = AuditHistory::new();
    memory.keep(&story).await;
    let (token, middle) = (story[0].token_id().unwrap(), story[story.len() / 2].at());
    let all = HistoryFilter::all;
    let mut filters = vec![all(), all().token(token), all().since(middle), all().before(middle)];
    filters.extend(["alice", "bob", "eve", "nobody"].map(|name| all().owner(owner(name))));
    filters.extend([Outcome::Allowed, Outcome::Refused, Outcome::Abandoned].map(|outcome| all().outcome(outcome)));
    filters.extend([Action::Authenticate, Action::Issue, Action::ChangePolicy].map(|action| all().action(action)));
    let reasons = story.iter().filter_map(|event| event.reason());
    filters.extend(reasons.map(|reason| all().reason(reason)));
    filters.push(all().reason(Reason::NotIssued(IssueRefusal::Rule("not on a Monday"))));
    filters.push(all().token(token).outcome(Outcome::Refused).action(Action::Authenticate).since(middle));
    for database in Database::each().await {
        let process = database.process().await;
        process.keep(&story).await;
        for filter in &filters {
            let (expected, read) =
                (memory.page(filter, None).await.unwrap(), process.page(filter, None).await.unwrap());
            assert!(all_told(&read.events) == all_told(&expected.events), "{filter:?}");
            assert!(read.events.iter().all(|event| filter.matches(event)));
        }
    }
}

/// Reads all pages while events come.
async fn walk(history: &impl Asked, stage: &Stage) {
    let token = stage.token("alice", Scope::ReadOnly).await;
    for number in 0..50 {
        stage.read(&token, &number.to_string()).await;
    }
    let events = stage.events();
    history.keep(&events).await;
    let filter = HistoryFilter::all().owner(owner("alice")).page_size(7);
    let (mut read, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let at = cursor.map(HistoryCursor::new);
        let page = history.page(&filter, at.as_ref()).await.unwrap();
        read.extend(all_told(&page.events));
        assert!(page.events.len() == 7 || page.next.is_none());
        cursor = page.next.map(|next| next.as_str().to_owned());
        if cursor.is_none() {
            break;
        }
        stage.read(&token, "meanwhile").await;
        history.keep(&stage.events()).await;
    }
    read.reverse();
    assert_eq!(read, all_told(&events));
}

#[tokio::test]
async fn pages_have_neither_gaps_nor_repetitions_while_events_come() {
    walk(&AuditHistory::new(), &Stage::new()).await;
    for database in Database::each().await {
        walk(&database.process().await, &Stage::new()).await;
    }
}

#[tokio::test]
async fn many_events_of_one_instant_are_paged_by_their_numbers() {
    for database in Database::each().await {
        let process = database.process().await;
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        stage.read(&token, "export/1").await;
        let event = stage.events().pop().unwrap();
        process.record(&vec![event; 1_200]).await;
        let (mut read, mut cursor) = (0, None);
        loop {
            let page = process.page(&HistoryFilter::all().page_size(100), cursor.as_ref()).await.unwrap();
            read += page.events.len();
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(read, 1_200);
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_is_an_error() {
    for database in Database::each().await {
        let process = database.process().await;
        for wrong in ["", "at-1", "1-1", "at-1-1'; --", "0000000000000000"] {
            let page = process.page(&HistoryFilter::all(), Some(&HistoryCursor::new(wrong))).await;
            assert!(matches!(page, Err(HistoryError::Cursor)), "{wrong:?}");
        }
        let seen = process.seen_page(&ApplicationFilter::all(), Some(&HistoryCursor::new("at-1-1"))).await;
        assert!(matches!(seen, Err(HistoryError::Cursor)));
    }
}

#[tokio::test]
async fn what_a_later_release_has_written_is_counted_and_left_out() {
    for database in Database::each().await {
        let process = database.process().await;
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        for agent in ["1", "2", "3"] {
            stage.read(&token, agent).await;
        }
        process.record(&stage.events()).await;
        for (column, later, known) in [
            ("reason", "'later'", "NULL"),
            ("action", "'later'", "'authenticate'"),
            ("outcome", "'later'", "'allowed'"),
            ("scope", "'admin'", "'read-only'"),
            ("subject", "'later'", "'proved'"),
            ("version", "2", "1"),
            ("client_address", "'here'", "'::1'"),
        ] {
            database.by_hand(&format!("UPDATE tta_events SET {column} = {later} WHERE user_agent = '2'")).await;
            let page = process.page(&HistoryFilter::all().page_size(3), None).await.unwrap();
            let agents: Vec<_> = page.events.iter().map(|event| event.user_agent().unwrap()).collect();
            assert_eq!((agents, page.unreadable, page.next.is_some()), (vec!["3", "1"], 1, true), "{column}");
            database.by_hand(&format!("UPDATE tta_events SET {column} = {known} WHERE user_agent = '2'")).await;
            assert_eq!(process.page(&HistoryFilter::all(), None).await.unwrap().unreadable, 0, "{column}");
        }
    }
}

#[tokio::test]
async fn what_is_older_is_forgotten_and_nothing_else() {
    for database in Database::each().await {
        let process = database.process().await;
        let stage = Stage::new();
        let (old, new) = (stage.token("alice", Scope::ReadOnly).await, stage.token("bob", Scope::ReadOnly).await);
        stage.read(&old, "export/1").await;
        stage.read(&new, "export/1").await;
        stage.clock.advance(Duration::from_secs(3600));
        stage.read(&new, "export/2").await;
        let events = stage.events();
        process.record(&events).await;
        let last = events.last().unwrap().at();
        assert_eq!(process.history.prune_before(events[0].at()).await.unwrap(), 0);
        assert_eq!(process.history.prune_before(last).await.unwrap(), 4);
        assert_eq!(process.len().await, 1);
        assert_eq!(process.seen(&old.id()).await, None);
        assert_eq!(process.seen(&new.id()).await.unwrap().applications.len(), 2, "of a token that is in use");
    }
}

/// By itself: noise after a week, other requests after three months, acts at the desk after two years.
#[tokio::test]
async fn each_kind_is_forgotten_in_its_time() {
    for database in Database::each().await {
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        stage.read(&token, "export/1").await;
        stage.send(Method::GET, None, None).await;
        let events = stage.events();
        database.process().await.record(&events).await;
        for (days, left) in [(6, 3), (8, 2), (89, 2), (91, 1), (729, 1), (731, 0)] {
            let clock =
                tower_token_auth::test_util::ManualClock::new(events[0].at() + Duration::from_secs(days * 86_400));
            let (history, writer) = database.forgetful().await.clock(clock.clone()).build().unwrap();
            let writer = tokio::spawn(writer);
            // It sleeps for an hour once it has forgotten, beside the timer of nobody else.
            while clock.sleepers() == 0 {
                tokio::task::yield_now().await;
            }
            let page = history.events(&HistoryFilter::all(), None).await.unwrap();
            assert_eq!(page.events.len(), left, "after {days} days");
            writer.abort();
        }
    }
}

/// Writes what was recorded, and forgets all of it.
async fn remember_and_forget(builder: SqlHistoryBuilder, story: &[AuditEvent<'static>]) {
    let (history, writer) = remembering(builder).build().unwrap();
    tokio::spawn(writer);
    story.iter().for_each(|event| history.record(event).unwrap());
    history.flush().await;
    assert!(history.prune_before(Timestamp::MAX).await.unwrap() > 0);
}

#[tokio::test]
async fn history_moves_no_feed() {
    let stage = Stage::new();
    let story = stage.story().await;
    #[cfg(feature = "sqlite")]
    {
        let folder = crate::sqlite::Folder::new();
        let store = crate::sqlite::open(&folder.database()).await;
        let feed = crate::sqlite::open(&folder.database()).await.feed().poll_every(Duration::from_millis(1));
        let mut told = crate::sql::Told::new(store.clone(), feed).await;
        remember_and_forget(store.history_builder(), &story).await;
        told.assert_silent().await;
    }
    #[cfg(feature = "postgres")]
    if let Some((store, prefix)) = crate::postgres::open().await {
        let feed = crate::postgres::with_prefix(&prefix).await.unwrap().feed();
        let mut told = crate::sql::Told::new(store.clone(), feed).await;
        remember_and_forget(store.history_builder(), &story).await;
        told.assert_silent().await;
    }
}
