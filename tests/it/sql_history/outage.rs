//! A server that dies, and an answer that does not arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_token_auth::{AuditSink, PostgresStore, Scope, Timestamp};

use super::stage::Stage;
use super::{Asked, Database, Process, remembering};
use crate::servers::{Kind, Server, shared};

#[tokio::test]
async fn what_is_recorded_while_the_server_is_away_is_written_once() {
    let Some(mut server) = Server::start(Kind::Postgres) else { return };
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(500));
    let store = PostgresStore::new(pool.connect(&server.url()).await.unwrap());
    store.migrate().await.unwrap();
    let log = crate::tower_contract::Captured::default();
    let _listening = log.listen();
    let process = Process::start(remembering(store.history_builder()));
    let stage = Stage::new();
    let token = stage.token("alice", Scope::ReadOnly).await;
    stage.read(&token, "export/1").await;
    let events = stage.events();
    process.record(&events).await;
    server.crash();
    for _ in 0..600 {
        events.iter().for_each(|event| process.history.record(event).unwrap());
    }
    let flush = process.history.flush();
    while !log.text().contains("could not be written yet") {
        tokio::task::yield_now().await;
    }
    server.start_again();
    flush.await;
    assert_eq!(process.len().await, 601 * events.len());
    assert_eq!(process.seen(&token.id()).await.unwrap().applications[0].allowed, 601);
    let tally = process.history.tally().unwrap();
    assert_eq!((tally.written, tally.lost), (601 * events.len() as u64, 0));
}

/// Otherwise what a batch brings back could go with what was old.
#[tokio::test]
async fn what_is_old_is_forgotten_between_batches() {
    let Some((_, prefix)) = crate::postgres::open().await else { return };
    let options: PgConnectOptions = shared(Kind::Postgres).unwrap().parse().unwrap();
    let pool = PgPoolOptions::new().connect_with(options.options([("lock_timeout", "50ms")])).await.unwrap();
    let (history, _writer) = PostgresStore::new(pool.clone()).with_table_prefix(&prefix).unwrap().history();
    let mut batch = pool.begin().await.unwrap();
    let lock = format!("LOCK TABLE {prefix}history_writers IN EXCLUSIVE MODE");
    sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *batch).await.unwrap();
    assert!(history.prune_before(Timestamp::MAX).await.is_err(), "while a batch is written");
    batch.rollback().await.unwrap();
    assert_eq!(history.prune_before(Timestamp::MAX).await.unwrap(), 0);
}

/// Between a pool and a server; once it is told to, it keeps the answer to a `COMMIT` for itself.
#[derive(Clone, Default)]
struct Robber {
    armed: Arc<AtomicBool>,
    struck: Arc<AtomicBool>,
}

impl Robber {
    async fn stand_before(&self, host: String, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (own, robber) = (listener.local_addr().unwrap().port(), self.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::spawn(robber.clone().pass_on(client, server));
            }
        });
        own
    }

    async fn pass_on(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut asked, mut answered) = ([0; 16_384], [0; 16_384]);
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let Ok(length @ 1..) = read else { return };
                    if server.write_all(&asked[..length]).await.is_err() { return };
                    let commits = asked[..length].windows(6).any(|word| word == b"COMMIT");
                    if commits && self.armed.swap(false, Ordering::SeqCst) {
                        // It is committed once there is an answer, which nobody gets.
                        assert!(server.read(&mut answered).await.unwrap() > 0);
                        self.struck.store(true, Ordering::SeqCst);
                        return;
                    }
                }
                read = server.read(&mut answered) => {
                    let Ok(length @ 1..) = read else { return };
                    if client.write_all(&answered[..length]).await.is_err() { return };
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_made_twice() {
    let Some((_, prefix)) = crate::postgres::open().await else { return };
    let robber = Robber::default();
    let options: PgConnectOptions = shared(Kind::Postgres).unwrap().parse().unwrap();
    let port = robber.stand_before(options.get_host().to_owned(), options.get_port()).await;
    let pool = PgPoolOptions::new().connect_with(options.host("127.0.0.1").port(port)).await.unwrap();
    let store = PostgresStore::new(pool).with_table_prefix(&prefix).unwrap();
    let process = Process::start(remembering(store.history_builder()));
    let stage = Stage::new();
    let token = stage.token("alice", Scope::ReadOnly).await;
    stage.read(&token, "export/1").await;
    let events = stage.events();
    process.record(&events).await;
    robber.armed.store(true, Ordering::SeqCst);
    process.record(&events).await;
    assert!(robber.struck.load(Ordering::SeqCst), "it was tried twice");
    let other = Database::Postgres(prefix).process().await;
    assert_eq!(other.len().await, 2 * events.len());
    assert_eq!(other.seen(&token.id()).await.unwrap().applications[0].allowed, 2);
    assert_eq!(process.history.tally().unwrap().written, 2 * events.len() as u64);
}
