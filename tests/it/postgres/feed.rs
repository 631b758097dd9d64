//! What other processes are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tower_token_auth::test_util::mint;
use tower_token_auth::{Change, ChangeFeed, Notice, PostgresFeed, PostgresStore, Revision, Scope, TokenRegistry};

use super::{by_hand, open, pool, with_prefix};
use crate::servers::{Kind, shared, unique};
use crate::sql::{Told, another_gate_refuses_what_was_revoked_here};

async fn told() -> Option<(String, Told<PostgresStore, PostgresFeed>)> {
    let (store, prefix) = open().await?;
    let feed = with_prefix(&prefix).await?.feed();
    Some((prefix, Told::new(store, feed).await))
}

#[tokio::test]
async fn every_change_is_told_once_and_nothing_else() {
    let Some((_, mut told)) = told().await else { return };
    told.every_change_is_told_once_and_nothing_else().await;
}

#[tokio::test]
async fn pruning_what_was_revoked_is_not_told() {
    let Some((_, mut told)) = told().await else { return };
    told.pruning_what_was_revoked_is_not_told().await;
}

#[tokio::test]
async fn a_gate_of_another_process_refuses_what_was_revoked_here() {
    let Some((here, prefix)) = open().await else { return };
    let there = with_prefix(&prefix).await.unwrap();
    let feed = there.feed();
    another_gate_refuses_what_was_revoked_here(here, there, feed).await;
}

#[tokio::test]
async fn changes_by_hand_are_told_without_a_revision_unless_it_is_raised() {
    let Some((prefix, mut told)) = told().await else { return };
    let pool = pool().await.unwrap();
    let id = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap().id();
    told.next().await;
    by_hand(&pool, &format!("UPDATE {prefix}tokens SET state = 'paused'")).await;
    assert_eq!(told.next().await, Notice::Token { id, revision: None });
    by_hand(&pool, &format!("UPDATE {prefix}tokens SET state = 'active', revision = revision + 1")).await;
    assert_eq!(told.next().await, Notice::Token { id, revision: Some(Revision::new(2)) });
    by_hand(&pool, &format!("BEGIN; UPDATE {prefix}tokens SET state = 'revoked'; ROLLBACK")).await;
    told.assert_silent().await;
    by_hand(&pool, &format!("DELETE FROM {prefix}tokens")).await;
    assert_eq!(told.next().await, Notice::Token { id, revision: None });
    for table in ["tokens", "barred_owners"] {
        by_hand(&pool, &format!("TRUNCATE {prefix}{table}")).await;
        assert_eq!(told.next().await, Notice::All, "{table}");
    }
}

#[tokio::test]
async fn what_anybody_notifies_can_only_distrust() {
    let Some((prefix, mut told)) = told().await else { return };
    let pool = pool().await.unwrap();
    for payload in ["", "all", "what?", "token short 1", "token 0123456789abcdef 99999999999999999999"] {
        by_hand(&pool, &format!("NOTIFY \"public.{prefix}changes\", '{payload}'")).await;
        assert_eq!(told.next().await, Notice::All, "{payload:?}");
    }
    by_hand(&pool, &format!("NOTIFY \"public.{prefix}\", 'all'")).await;
    told.assert_silent().await;
}

#[tokio::test]
async fn a_lost_connection_is_an_error_and_a_new_one_goes_on() {
    let Some((store, prefix)) = open().await else { return };
    let pool = pool().await.unwrap();
    let name = unique("feed");
    let options = shared(Kind::Postgres).unwrap().parse::<PgConnectOptions>().unwrap().application_name(&name);
    let feed = with_prefix(&prefix).await.unwrap().feed().connect_with(options);
    let mut told = Told::new(store, feed).await;
    told.assert_silent().await;
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
    by_hand(&pool, &kill).await;
    assert!(told.feed.next().await.is_err());
    assert!(told.feed.next().await.is_err(), "it does not go on by itself");
    told.feed.connect().await.unwrap();
    told.assert_silent().await;
}

#[tokio::test]
async fn a_feed_that_is_not_connected_is_an_error() {
    let Some((store, _)) = open().await else { return };
    let mut feed = store.feed();
    assert!(feed.next().await.is_err());
    feed.connect().await.unwrap();
    assert!(feed.next().now_or_never().is_none());
}

/// A wire to the server that can go dead without a word.
#[derive(Clone, Default)]
struct Wire {
    dead: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Wire {
    /// Answers with the port at its near end.
    async fn lay(&self, far: u16) -> u16 {
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = near.local_addr().unwrap().port();
        let wire = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = near.accept().await {
                let (server_reads, server_writes) = TcpStream::connect(("127.0.0.1", far)).await.unwrap().into_split();
                let (client_reads, client_writes) = client.into_split();
                tokio::spawn(wire.clone().carry(client_reads, server_writes, Arc::clone(&wire.requests)));
                tokio::spawn(wire.clone().carry(server_reads, client_writes, Arc::default()));
            }
        });
        port
    }

    async fn carry(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, carried: Arc<AtomicUsize>) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if !self.dead.load(Ordering::SeqCst) {
                to.write_all(&buffer[..length]).await.unwrap();
                carried.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

#[tokio::test]
async fn a_wire_that_is_dead_without_a_word_is_noticed_and_a_quiet_one_is_not_taken_for_it() {
    let Some((store, prefix)) = open().await else { return };
    let options: PgConnectOptions = shared(Kind::Postgres).unwrap().parse().unwrap();
    let wire = Wire::default();
    let port = wire.lay(options.get_port()).await;
    let feed = with_prefix(&prefix).await.unwrap().feed().connect_with(options.port(port));
    let mut told = Told::new(store, feed.heartbeat(Duration::from_millis(5), Duration::from_secs(2))).await;
    let id = {
        let mut next = Box::pin(told.feed.next());
        let beats = wire.requests.load(Ordering::SeqCst) + 5;
        while wire.requests.load(Ordering::SeqCst) < beats {
            assert!((&mut next).now_or_never().is_none(), "nothing has changed");
            tokio::task::yield_now().await;
        }
        let id = mint(&told.store, "alice", Scope::ReadOnly).await.unwrap().id();
        assert!(matches!(next.await.unwrap(), Notice::Token { id: changed, .. } if changed == id));
        id
    };
    wire.dead.store(true, Ordering::SeqCst);
    told.store.update(&id, Revision::FIRST, Change::Pause).await.unwrap();
    assert!(told.feed.next().await.is_err());
    assert!(told.feed.connect().await.is_err(), "still dead");
    wire.dead.store(false, Ordering::SeqCst);
    told.feed.connect().await.unwrap();
    told.assert_silent().await;
}
