//! One server of the cluster: a gate before one route, and a desk, over a store that others share.
//!
//! Clients come over HTTP. The experiment itself speaks on the standard input, a command a line, and is answered with a
//! line of JSON each; the server ends when that input does.

use std::io::{Write, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::{StreamExt, stream};
use redis::aio::ConnectionManagerConfig;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tower_token_auth::{
    Actor, AnyStore, Argon2Cost, Argon2Hasher, AuthHandle, CacheConfig, ChangeFeed, FeedState, IssuePolicy, NewToken,
    PostgresStore, RedisStore, Scope, TokenAuthLayer, TokenIssuer,
};

/// How the example calls itself for a server, with a URL, and whether it is told.
pub(crate) const SUBCOMMAND: &str = "be-a-server";
pub(crate) const BY_THE_FEED: &str = "by-the-feed";
pub(crate) const BY_NOBODY: &str = "by-nobody";

/// How long a record is believed: short, so that the experiment is.
pub(crate) const TTL: Duration = Duration::from_secs(2);
/// For how long a look-up tries to connect while the database is away.
const CONNECTING: Duration = Duration::from_secs(1);

pub(crate) fn run(url: &str, is_told: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (server, address) = runtime.block_on(Server::start(url, is_told));
    answer(&json!(address.to_string()));
    for command in stdin().lines().map_while(Result::ok) {
        answer(&runtime.block_on(server.obey(&command)));
    }
    // Writes when tokens were last used; where the database is gone, nothing is lost but that.
    let _ = runtime.block_on(server.handle.shutdown(Duration::from_secs(1)));
    ExitCode::SUCCESS
}

fn answer(answer: &Value) {
    println!("{answer}");
    stdout().flush().unwrap();
}

struct Server {
    desk: TokenIssuer,
    handle: AuthHandle,
}

impl Server {
    async fn start(url: &str, is_told: bool) -> (Self, SocketAddr) {
        let (store, follow) = connect(url).await;
        // Cheap: of interest is how often it runs.
        let hasher = Argon2Hasher::new().with_cost(Argon2Cost::new(1_024, 1, 1)).unwrap();
        let builder = TokenAuthLayer::builder(store.clone()).hasher(hasher).cache(CacheConfig::default().ttl(TTL));
        let auth = builder.flush_last_used(Duration::from_secs(1)).build().unwrap();
        let handle = auth.handle();
        tokio::spawn(auth.background());
        if is_told {
            follow(&handle);
        }
        let desk = auth.issuer(store, IssuePolicy::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let app = Router::new().route("/", get(|| async { "well" })).route_layer(auth);
        tokio::spawn(async move { axum::serve(listener, app).await });
        (Self { desk, handle }, address)
    }

    async fn obey(&self, command: &str) -> Value {
        match command.split_once(' ') {
            Some(("issue", count)) => self.issue(count.parse().unwrap()).await,
            Some(("revoke", id)) => {
                let revoked = self.desk.revoke(&Actor::system("cluster"), &id.parse().unwrap()).await;
                json!(revoked.map(drop).map_err(|error| error.to_string()))
            }
            _ => self.stats(),
        }
    }

    async fn issue(&self, count: usize) -> Value {
        let issue = |number| async move {
            let token = NewToken::new("alice", format!("token {number}"), Scope::ReadOnly);
            let issued = self.desk.issue(&Actor::system("cluster"), token).await.unwrap();
            issued.plaintext().expose().to_owned()
        };
        json!(stream::iter(0..count).map(issue).buffered(16).collect::<Vec<_>>().await)
    }

    fn stats(&self) -> Value {
        let stats = self.handle.stats();
        let hashes = stats.hashes.proved + stats.hashes.refuted + stats.hashes.failed;
        json!({ "hashes": hashes, "connected": stats.feed == FeedState::Connected })
    }
}

/// Has a gate follow a feed.
type Follow = Box<dyn FnOnce(&AuthHandle) + Send>;

fn follow(feed: impl ChangeFeed) -> Follow {
    Box::new(|handle| drop(tokio::spawn(handle.follow(feed))))
}

async fn connect(url: &str) -> (AnyStore, Follow) {
    if url.starts_with("redis:") {
        let client = redis::Client::open(url).unwrap();
        let patience = ConnectionManagerConfig::new().set_max_delay(CONNECTING);
        let store = RedisStore::new(client.get_connection_manager_with_config(patience).await.unwrap());
        store.check().await.unwrap();
        let feed = store.feed(client);
        return (AnyStore::new(store), follow(feed));
    }
    let options = PgPoolOptions::new().max_connections(5).acquire_timeout(CONNECTING).test_before_acquire(false);
    let store = PostgresStore::new(options.connect(url).await.unwrap());
    // All servers at once, of which one makes the tables.
    store.migrate().await.unwrap();
    let feed = store.feed();
    (AnyStore::new(store), follow(feed))
}
