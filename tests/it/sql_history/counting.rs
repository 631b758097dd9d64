//! Applications seen, by several processes.

use futures_util::future::{join, join_all};
use http::Method;
use tower_token_auth::{ApplicationFilter, AuditHistory, OwnerId, Scope, TokenApplications, UserAgent};

use super::stage::Stage;
use super::{Asked, Database, Process};
use crate::tower_contract::Captured;

fn allowed(seen: &TokenApplications) -> u64 {
    seen.applications.iter().map(|application| application.allowed).sum()
}

#[tokio::test]
async fn applications_are_seen_as_in_memory() {
    let stage = Stage::new();
    let (token, hot) = (stage.token("alice", Scope::ReadOnly).await, stage.token("bob", Scope::ReadOnly).await);
    stage.read(&hot, "first").await;
    stage.send(Method::GET, Some(hot.expose()), None).await;
    for number in 0..20 {
        stage.read(&token, &format!("agent/{number}")).await;
    }
    stage.send(Method::POST, Some(token.expose()), Some(b"agent/3")).await;
    stage.guess(&token.id()).await;
    let events = stage.events();
    let memory = AuditHistory::new();
    memory.keep(&events).await;
    for database in Database::each().await {
        let process = database.process().await;
        process.record(&events).await;
        for id in [token.id(), hot.id()] {
            assert_eq!(process.seen(&id).await, memory.seen(&id).await);
        }
        let nobody = stage.token("carol", Scope::ReadOnly).await;
        assert_eq!(process.seen(&nobody.id()).await, None);
    }
}

#[tokio::test]
async fn a_claim_counts_only_for_a_token_that_was_proved() {
    for database in Database::each().await {
        let process = database.process().await;
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        stage.guess(&token.id()).await;
        process.record(&stage.events()).await;
        assert_eq!(process.seen(&token.id()).await, None);
        stage.read(&token, "export/1").await;
        stage.guess(&token.id()).await;
        process.record(&stage.events()).await;
        stage.guess(&token.id()).await;
        process.record(&stage.events()).await;
        assert_eq!(process.seen(&token.id()).await.unwrap().unproved, 2);
    }
}

#[tokio::test]
async fn tokens_are_listed_by_owner_in_pages() {
    let stage = Stage::new();
    let mut ids = Vec::new();
    for number in 0..7 {
        let token = stage.token(if number == 3 { "bob" } else { "alice" }, Scope::ReadOnly).await;
        stage.read(&token, "export/1").await;
        stage.read(&token, "export/2").await;
        ids.push(token.id());
    }
    let bobs = ids.remove(3);
    ids.sort();
    let events = stage.events();
    for database in Database::each().await {
        let process = database.process().await;
        process.record(&events).await;
        let filter = ApplicationFilter::all().owner(OwnerId::new("alice").unwrap()).page_size(2);
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = process.seen_page(&filter, cursor.as_ref()).await.unwrap();
            assert_eq!(page.tokens.len(), 2);
            assert!(page.tokens.iter().all(|token| token.applications.len() == 2));
            listed.extend(page.tokens.iter().map(|token| token.token));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(listed, ids);
        assert_eq!(process.seen_page(&ApplicationFilter::all(), None).await.unwrap().tokens.len(), 7);
        assert_eq!(process.seen(&bobs).await.unwrap().owner.as_str(), "bob");
    }
}

/// Each of four processes sees the same applications of the same tokens, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_processes_see_is_merged_and_never_set() {
    const ROUNDS: u64 = 10;
    for database in Database::each().await {
        let stage = Stage::new();
        let mut tokens = Vec::new();
        for _ in 0..5 {
            tokens.push(stage.token("alice", Scope::ReadOnly).await);
        }
        stage.events();
        for token in &tokens {
            stage.read(token, "export/1").await;
            stage.send(Method::POST, Some(token.expose()), Some(b"export/1")).await;
            stage.read(token, "phone/7").await;
            stage.guess(&token.id()).await;
        }
        let events = stage.events();
        let processes = join_all((0..4).map(|_| database.process())).await;
        let work = async |process: &Process| {
            for _ in 0..ROUNDS {
                process.record(&events).await;
            }
        };
        join_all(processes.iter().map(work)).await;
        for token in &tokens {
            let seen = processes[0].seen(&token.id()).await.unwrap();
            assert_eq!((seen.applications.len(), seen.unproved), (2, 4 * ROUNDS));
            let (export, phone) = (&seen.applications[0], &seen.applications[1]);
            assert_eq!((export.allowed, export.forbidden, phone.allowed), (4 * ROUNDS, 4 * ROUNDS, 4 * ROUNDS));
            assert!(export.first_at < export.last_at && phone.first_at == phone.last_at);
        }
        assert_eq!(processes[0].len().await as u64, 4 * ROUNDS * events.len() as u64);
    }
}

/// Each of four processes sees thirty applications that no other sees, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_applications_of_a_token_are_told_apart_by_all_processes_alike() {
    for database in Database::each().await {
        let stage = Stage::new();
        let token = stage.token("alice", Scope::ReadOnly).await;
        let mut batches = Vec::new();
        for process in 0..4 {
            stage.events();
            for number in 0..30 {
                stage.read(&token, &format!("agent/{process}/{number}")).await;
            }
            batches.push(stage.events());
        }
        let processes = join_all((0..4).map(|_| database.process())).await;
        let work = async |(process, events): (&Process, &Vec<_>)| {
            for events in events.chunks(3) {
                process.record(events).await;
            }
        };
        join_all(processes.iter().zip(&batches).map(work)).await;
        let seen = processes[3].seen(&token.id()).await.unwrap();
        assert_eq!((seen.applications.len(), allowed(&seen)), (17, 120), "none is lost");
        assert_eq!(seen.applications[16].user_agent, UserAgent::Other);
        assert_eq!(seen.applications[16].allowed, 120 - 16);
        for (process, events) in processes.iter().zip(&batches) {
            process.record(events).await;
        }
        let again = processes[0].seen(&token.id()).await.unwrap();
        let names = |seen: &TokenApplications| {
            seen.applications.iter().map(|application| application.user_agent.clone()).collect::<Vec<_>>()
        };
        assert_eq!((names(&again), allowed(&again)), (names(&seen), 240), "each has kept its place");
        assert!(again.applications[..16].iter().all(|application| application.allowed == 2));
    }
}

/// Each of two processes sees one token proved and the other claimed, both at once.
#[tokio::test]
async fn batches_that_meet_do_not_wait_for_each_other_in_a_circle() {
    for database in Database::each().await {
        let stage = Stage::new();
        let (a, b) = (stage.token("alice", Scope::ReadOnly).await, stage.token("bob", Scope::ReadOnly).await);
        let (here, there) = (database.process().await, database.process().await);
        let mut batches = Vec::new();
        for (proved, claimed) in [(&a, &b), (&b, &a)] {
            stage.events();
            stage.read(proved, "export/1").await;
            stage.guess(&claimed.id()).await;
            batches.push(stage.events());
        }
        here.record(&batches.concat()).await;
        let log = Captured::default();
        let _listening = log.listen();
        for _ in 0..20 {
            join(here.record(&batches[0]), there.record(&batches[1])).await;
        }
        assert!(!log.text().contains("could not be written yet"), "{}", log.text());
        for token in [a, b] {
            let seen = here.seen(&token.id()).await.unwrap();
            assert_eq!((allowed(&seen), seen.unproved), (21, 21));
        }
    }
}
