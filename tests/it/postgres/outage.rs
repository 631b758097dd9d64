//! What is there after the server was killed, and what is said while it is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tower_token_auth::test_util::{conformance, mint};
use tower_token_auth::{
    Change, PostgresStore, Revision, Scope, Timestamp, TokenFilter, TokenId, TokenRegistry, TokenState, TokenStore,
};

use crate::servers::{Kind, Server};

const WRITERS: usize = 4;
/// In the middle of 1,000 issues and revokes.
const ENOUGH: usize = 1_000;

async fn open(server: &Server) -> PostgresStore {
    // The pool tries to connect for as long as it may.
    let options = PgPoolOptions::new().acquire_timeout(Duration::from_secs(5));
    let store = PostgresStore::new(options.connect(&server.url()).await.unwrap());
    store.migrate().await.unwrap();
    store
}

#[tokio::test]
async fn it_survives_a_crash_of_the_server() {
    let Some(mut server) = Server::start(Kind::Postgres) else { return };
    let store = open(&server).await;
    let server = &mut server;
    let crash = |store: PostgresStore| async move {
        server.crash();
        assert!(store.list(&TokenFilter::all(), None).await.is_err(), "an outage is an error, not an empty list");
        server.start_again();
        store
    };
    conformance::check_survival(store, crash).await.unwrap();
}

/// Issues and revokes until it fails; answers with what was acknowledged.
async fn write(store: PostgresStore, acknowledged: Arc<AtomicUsize>) -> Vec<(TokenId, Revision)> {
    let mut known = Vec::new();
    while let Ok(token) = mint(&store, "alice", Scope::ReadOnly).await {
        known.push((token.id(), Revision::FIRST));
        acknowledged.fetch_add(1, Ordering::SeqCst);
        let revoke = Change::Revoke { at: Timestamp::from_unix_seconds(1) };
        let Ok(revoked) = store.update(&token.id(), Revision::FIRST, revoke).await else { break };
        known.push((token.id(), revoked.revision()));
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let Some(mut server) = Server::start(Kind::Postgres) else { return };
    let store = open(&server).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let writer = |_| tokio::spawn(write(store.clone(), Arc::clone(&acknowledged)));
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    while acknowledged.load(Ordering::SeqCst) < ENOUGH {
        tokio::task::yield_now().await;
    }
    server.crash();
    let mut known = Vec::new();
    for writer in writers {
        known.extend(writer.await.unwrap());
    }
    server.start_again();
    for (id, revision) in &known {
        let record = store.find(id).await.unwrap().expect("an acknowledged token");
        assert!(record.revision() >= *revision, "{id}");
        assert_eq!(record.state() == TokenState::Revoked, record.revision() == Revision::new(2), "half done");
    }
    let issued = known.iter().filter(|(_, revision)| *revision == Revision::FIRST).count();
    let stored = store.list(&TokenFilter::all().page_size(100_000), None).await.unwrap().records.len();
    assert!((issued..=issued + WRITERS).contains(&stored), "{stored} stored, {issued} known");
}
