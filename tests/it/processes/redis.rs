//! Processes that share a Redis server.

use std::collections::HashMap;
use std::time::Duration;

use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tower_token_auth::test_util::mint;
use tower_token_auth::{RedisFeed, RedisStore, Scope, TokenId};

use super::{Database, OWNER, PATIENCE, crash, cut, find, lag, outage, replica};
use crate::servers::{Kind, Server, shared, unique};

/// Keys of a test's own.
struct Redis {
    url: String,
    prefix: String,
}

impl Redis {
    fn at(url: String) -> Self {
        Self { url, prefix: unique("p") }
    }

    /// On the server of this process, beside other tests.
    fn shared() -> Option<Self> {
        shared(Kind::Redis).map(Self::at)
    }

    /// The client of its feeds, and of nobody else: a user that is called as the keys are.
    fn feeds(&self) -> Client {
        let url = self.url.replacen("redis://", &format!("redis://{}:{}@", self.prefix, self.prefix), 1);
        Client::open(url).unwrap()
    }

    async fn run(&self, command: &str) {
        let mut connection = Client::open(&*self.url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let words: Vec<_> = command.split(' ').collect();
        redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut connection).await.unwrap();
    }
}

/// A connection that waits long for a server that is busy, and not long before it tries again to reach one that is away.
async fn connect(url: &str) -> ConnectionManager {
    let limits = ConnectionManagerConfig::new().set_max_delay(Duration::from_millis(100));
    let limits = limits.set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    Client::open(url).unwrap().get_connection_manager_with_config(limits).await.unwrap()
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    RedisStore::new(connect(url).await).with_key_prefix(&format!("{prefix}:")).unwrap()
}

impl Database for Redis {
    type Store = RedisStore;
    type Feed = RedisFeed;

    async fn open(&self) -> RedisStore {
        self.run(&format!("ACL SETUSER {} on nopass ~* &* +@all", self.prefix)).await;
        open(&self.url, &self.prefix).await
    }

    fn feed(&self, store: &RedisStore) -> RedisFeed {
        store.feed(self.feeds())
    }

    async fn cut_feeds(&self) {
        self.run(&format!("CLIENT KILL USER {}", self.prefix)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_on_one_is_refused_on_all() {
    let Some(database) = Redis::shared() else { return };
    lag::revoked_on_one_is_refused_on_all("Redis", &database).await;
}

#[tokio::test]
async fn without_a_feed_the_bound_is_the_ttl() {
    let Some(database) = Redis::shared() else { return };
    cut::without_a_feed_the_bound_is_the_ttl(&database).await;
}

#[tokio::test]
async fn everything_is_distrusted_at_the_reconnect() {
    let Some(database) = Redis::shared() else { return };
    cut::everything_is_distrusted_at_the_reconnect(&database).await;
}

#[tokio::test]
async fn a_replica_that_lags_revives_nothing() {
    let Some(database) = Redis::shared() else { return };
    replica::a_replica_that_lags_revives_nothing(&database).await;
}

/// Does nothing unless it is started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(place) = crash::place() else { return };
    let (url, prefix) = place.split_once(' ').unwrap();
    crash::issue_and_revoke(open(url, prefix).await).await;
}

#[tokio::test]
async fn what_a_killed_process_acknowledged_is_there() {
    let Some(database) = Redis::shared() else { return };
    let place = format!("{} {}", database.url, database.prefix);
    crash::what_a_killed_process_acknowledged_is_there(&database, "redis", &place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_is_503_and_no_storm_of_hashes() {
    let Some(server) = Server::start(Kind::Redis) else { return };
    let database = Redis::at(server.url());
    outage::a_crash_of_the_server_is_503_and_no_storm_of_hashes(server, &database).await;
}

#[tokio::test]
async fn a_look_up_beside_the_bare_driver() {
    // Of its own: a million tokens are a gigabyte.
    let Some(server) = Server::start(Kind::Redis) else { return };
    let Redis { url, prefix } = Redis::at(server.url());
    let (store, connection) = (open(&url, &prefix).await, connect(&url).await);
    let first = mint(&store, OWNER, Scope::ReadOnly).await.unwrap();
    let (token, barred) = (format!("{prefix}:token:"), format!("{prefix}:barred"));
    let copies = "for i = ARGV[2], ARGV[3] do redis.call('COPY', KEYS[1], ARGV[1] .. string.format('%016d', i)) end";
    for some in (1..=find::size().0).step_by(1_000) {
        let script = redis::Script::new(copies);
        let mut copy = script.key(format!("{token}{}", first.id()));
        copy.arg(&token).arg(some).arg(some + 999).invoke_async::<()>(&mut connection.clone()).await.unwrap();
    }
    let by_hand = async |id: TokenId| {
        let mut both = redis::pipe();
        both.hgetall(format!("{token}{id}")).sismember(&barred, OWNER);
        let (fields, barred): (HashMap<String, String>, bool) = both.query_async(&mut connection.clone()).await?;
        Ok::<_, redis::RedisError>(!fields.is_empty() && !barred)
    };
    find::beside_the_bare_driver("Redis", &store, by_hand).await;
}
