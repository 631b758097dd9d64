//! Tokens in Redis: the suite, what is stored, outages, and changes that reach other processes.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{Client, RedisResult};
use tower_token_auth::test_util::{CheapHasher, ManualClock, conformance, draft, draft_with, mint};
use tower_token_auth::{
    AuthHandle, Change, ChangeFeed, Durability, FeedState, LastUsed, NoAudit, Notice, OwnerId, PlaintextToken, Prefix,
    RedisFeed, RedisStore, Revision, Scope, Timestamp, TokenAuthLayer, TokenFilter, TokenId, TokenRegistry, TokenState,
    TokenStore, UpdateError,
};

use crate::cache_rules::bench::status;
use crate::servers::{Kind, Server, shared, unique};

const TTL: Duration = Duration::from_secs(30);
/// Far more than anything here takes: ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// One application's part of a server.
#[derive(Clone)]
struct Redis {
    client: Client,
    prefix: String,
    store: RedisStore,
    connection: ConnectionManager,
}

impl Redis {
    async fn at(url: &str) -> Self {
        let client = Client::open(url).unwrap();
        let (connection, prefix) = (client.get_connection_manager().await.unwrap(), unique("test"));
        let store = RedisStore::new(connection.clone()).with_key_prefix(&format!("{prefix}:")).unwrap();
        Self { client, prefix, store, connection }
    }

    /// On the server of this process, beside other tests.
    async fn shared() -> Option<Self> {
        Some(Self::at(&shared(Kind::Redis)?).await)
    }

    /// What another process has.
    async fn other_process(&self) -> RedisStore {
        let connection = self.client.get_connection_manager().await.unwrap();
        RedisStore::new(connection).with_key_prefix(&format!("{}:", self.prefix)).unwrap()
    }

    /// Runs a command as an administrator would.
    async fn run<T: redis::FromRedisValue>(&self, command: impl AsRef<str>) -> RedisResult<T> {
        let words: Vec<_> = command.as_ref().split(' ').collect();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.connection.clone()).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// A feed that is connected.
    async fn feed(&self) -> RedisFeed {
        let mut feed = self.store.feed(self.client.clone());
        feed.connect().await.unwrap();
        feed
    }
}

/// Asks until it is so: for what other tasks and processes do in their own time.
async fn eventually<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it never came to be so");
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not end")
}

async fn revoke(store: &RedisStore, id: &TokenId) {
    let revision = store.find(id).await.unwrap().unwrap().revision();
    store.update(id, revision, Change::Revoke { at: ManualClock::START }).await.unwrap();
}

// ---- the store

#[tokio::test]
async fn the_redis_store_conforms() {
    let Some(redis) = Redis::shared().await else { return };
    let store = || async { redis.store.clone().with_key_prefix(&format!("{}:", unique("test"))).unwrap() };
    conformance::check(store).await.unwrap();
    assert_eq!(store().await.prune(Timestamp::MAX).await.unwrap(), 0, "it can prune");
}

#[tokio::test]
async fn what_redis_acknowledged_survives_its_crash() {
    let Some(mut server) = Server::start(Kind::Redis) else { return };
    let redis = Redis::at(&server.url()).await;
    assert_eq!(redis.store.durability(), Durability::Volatile, "nobody has looked yet");
    assert_eq!(redis.store.check().await.unwrap(), Durability::Durable);
    assert_eq!(redis.store.clone().durability(), Durability::Durable);
    let crash = |store: RedisStore| {
        server.crash();
        server.start_again();
        async {
            eventually(|| async { store.list(&TokenFilter::all(), None).await.is_ok() }).await;
            store
        }
    };
    conformance::check_survival(redis.store.clone(), crash).await.unwrap();
}

/// Makes tokens, and revokes every second one, until the server is gone: what it was told, a token and whether it is
/// revoked; and what it does not know.
async fn work_until_it_crashes(store: RedisStore, acknowledged: Arc<AtomicUsize>) -> (Vec<(TokenId, bool)>, TokenId) {
    let mut told = Vec::new();
    for number in 0.. {
        let (token, record) = draft("alice", Scope::ReadOnly).unwrap();
        if store.insert(record).await.is_err() {
            return (told, token.id());
        }
        told.push((token.id(), false));
        acknowledged.fetch_add(1, Ordering::SeqCst);
        if number % 2 == 0 {
            let change = Change::Revoke { at: ManualClock::START };
            if store.update(&token.id(), Revision::FIRST, change).await.is_err() {
                told.pop();
                return (told, token.id());
            }
            *told.last_mut().unwrap() = (token.id(), true);
        }
    }
    unreachable!("the server crashes")
}

#[tokio::test]
async fn in_a_crash_under_load_nothing_acknowledged_is_lost_and_nothing_half_done() {
    let Some(mut server) = Server::start(Kind::Redis) else { return };
    let redis = Redis::at(&server.url()).await;
    let acknowledged = Arc::<AtomicUsize>::default();
    let work = |_| tokio::spawn(work_until_it_crashes(redis.store.clone(), Arc::clone(&acknowledged)));
    let workers: Vec<_> = (0..8).map(work).collect();
    eventually(|| async { acknowledged.load(Ordering::SeqCst) > 1_000 }).await;
    server.crash();
    let outcomes = soon(futures_util::future::try_join_all(workers)).await.unwrap();
    server.start_again();
    eventually(|| async { redis.store.list(&TokenFilter::all(), None).await.is_ok() }).await;
    let told: Vec<_> = outcomes.iter().flat_map(|(told, _)| told).collect();
    for (id, revoked) in &told {
        let found = redis.store.find(id).await.unwrap().expect("it was acknowledged");
        assert_eq!(found.state() == TokenState::Revoked, *revoked);
    }
    let mut there: HashSet<_> = told.iter().map(|(id, _)| *id).collect();
    for (_, unknown) in &outcomes {
        there.extend(redis.store.find(unknown).await.unwrap().map(|record| record.id()));
    }
    for filter in [TokenFilter::all(), TokenFilter::all().owner(OwnerId::new("alice").unwrap())] {
        let listed = redis.store.list(&filter.page_size(usize::MAX), None).await.unwrap();
        assert_eq!(listed.records.iter().map(|record| record.id()).collect::<HashSet<_>>(), there);
    }
}

#[tokio::test]
async fn a_redis_that_forgets_or_evicts_promises_nothing() {
    let Some(server) = Server::start(Kind::Redis) else { return };
    let redis = Redis::at(&server.url()).await;
    for (setting, careless, careful) in [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ] {
        let set = |value: &str| redis.run::<()>(format!("CONFIG SET {setting} {value}"));
        redis.run::<()>("CONFIG SET maxmemory 100mb").await.unwrap();
        set(careless).await.unwrap();
        assert_eq!(redis.store.check().await.unwrap(), Durability::Volatile, "{setting} {careless}");
        set(careful).await.unwrap();
        assert_eq!(redis.store.check().await.unwrap(), Durability::Durable, "{setting} {careful}");
    }
    redis.run::<()>("ACL SETUSER default -config").await.unwrap();
    assert_eq!(redis.store.check().await.unwrap(), Durability::Volatile, "it will not tell");
    drop(server);
    assert!(redis.store.check().await.is_err(), "it is not there");
}

#[tokio::test]
async fn applications_with_different_prefixes_are_strangers() {
    let Some(redis) = Redis::shared().await else { return };
    let stranger = redis.store.clone().with_key_prefix(&format!("{}:", unique("test"))).unwrap();
    let token = mint(&redis.store, "alice", Scope::ReadOnly).await.unwrap();
    stranger.bar_owner(&OwnerId::new("alice").unwrap()).await.unwrap();
    assert!(stranger.find(&token.id()).await.unwrap().is_none());
    assert!(stranger.list(&TokenFilter::all(), None).await.unwrap().records.is_empty());
    let found = redis.other_process().await.find(&token.id()).await.unwrap().unwrap();
    assert!(!found.owner_barred());
}

#[tokio::test]
async fn an_unknown_stored_value_refuses_the_record() {
    let Some(redis) = Redis::shared().await else { return };
    let token = mint(&redis.store, "alice", Scope::ReadOnly).await.unwrap();
    let key = redis.key(&format!("token:{}", token.id()));
    for (field, wrong, right) in [("scope", "admin", "read-only"), ("state", "asleep", "active")] {
        redis.run::<()>(format!("HSET {key} {field} {wrong}")).await.unwrap();
        assert!(redis.store.find(&token.id()).await.is_err(), "{field}");
        assert!(redis.store.list(&TokenFilter::all(), None).await.is_err(), "{field}");
        let changed = redis.store.update(&token.id(), Revision::FIRST, Change::Pause).await;
        assert!(matches!(changed, Err(UpdateError::Store(_))), "{field}: {changed:?}");
        redis.run::<()>(format!("HSET {key} {field} {right}")).await.unwrap();
        assert!(redis.store.find(&token.id()).await.unwrap().is_some(), "{field}");
    }
    redis.run::<()>(format!("HDEL {key} owner")).await.unwrap();
    assert!(redis.store.find(&token.id()).await.is_err(), "half a record is not none");
    redis.run::<()>(format!("SET {key} text")).await.unwrap();
    assert!(redis.store.find(&token.id()).await.is_err());
}

#[tokio::test]
async fn a_look_up_is_one_command_and_nothing_is_searched_for() {
    let Some(server) = Server::start(Kind::Redis) else { return };
    let redis = Redis::at(&server.url()).await;
    let store = &redis.store;
    let token = mint(store, "alice", Scope::ReadOnly).await.unwrap();
    assert!(store.find(&token.id()).await.unwrap().is_some());
    assert!(store.find(&PlaintextToken::generate(&Prefix::default()).unwrap().id()).await.unwrap().is_none());
    redis.run::<()>("CONFIG RESETSTAT").await.unwrap();
    for _ in 0..10 {
        assert!(store.find(&token.id()).await.unwrap().is_some());
    }
    assert_eq!(calls(&redis, "evalsha").await, 10);
    let from_clients = ["eval", "get", "hget", "script", "exec", "smembers"].map(|name| calls(&redis, name));
    assert_eq!(futures_util::future::join_all(from_clients).await, [0, 0, 10, 0, 0, 0], "the script reads the owner");
    store.touch(&[(token.id(), LastUsed::new(ManualClock::START))]).await.unwrap();
    store.bar_owner(&OwnerId::new("alice").unwrap()).await.unwrap();
    store.lift_owner(&OwnerId::new("alice").unwrap()).await.unwrap();
    store.list(&TokenFilter::all(), None).await.unwrap();
    revoke(store, &token.id()).await;
    assert_eq!(store.prune(Timestamp::MAX).await.unwrap(), 1);
    for search in ["keys", "scan", "sscan", "hscan", "zscan", "smembers"] {
        assert_eq!(calls(&redis, search).await, 0, "{search}");
    }
    assert_eq!(redis.run::<Vec<String>>(format!("KEYS {}", redis.key("token:*"))).await.unwrap(), Vec::<String>::new());
    assert_eq!(redis.run::<Vec<String>>(format!("KEYS {}", redis.key("owner:*"))).await.unwrap(), Vec::<String>::new());
}

/// How often a command ran since the statistics were reset.
async fn calls(redis: &Redis, command: &str) -> u64 {
    let statistics: String = redis.run("INFO commandstats").await.unwrap();
    let line = format!("cmdstat_{command}:calls=");
    let count = statistics.lines().find_map(|found| found.strip_prefix(&line));
    count.map_or(0, |count| count.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_listing_of_few_among_many_goes_on_where_it_stopped() {
    let Some(redis) = Redis::shared().await else { return };
    let mut expected = HashSet::new();
    for number in 0..1_000 {
        let (_, record) = draft("alice", Scope::ReadOnly).unwrap();
        let state = if number % 333 == 0 { TokenState::Paused } else { TokenState::Active };
        expected.extend((state == TokenState::Paused).then_some(record.id()));
        redis.store.insert(record.with_state(state)).await.unwrap();
    }
    let (filter, mut cursor, mut found) = (TokenFilter::all().state(TokenState::Paused).page_size(1), None, Vec::new());
    loop {
        let page = redis.store.list(&filter, cursor.as_ref()).await.unwrap();
        found.extend(page.records.iter().map(|record| record.id()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 4);
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), expected);
}

#[tokio::test]
async fn a_token_that_redis_has_dropped_does_not_end_a_listing() {
    let Some(redis) = Redis::shared().await else { return };
    let (dropped, kept) = (
        mint(&redis.store, "a", Scope::ReadOnly).await.unwrap(),
        mint(&redis.store, "a", Scope::ReadOnly).await.unwrap(),
    );
    redis.run::<()>(format!("DEL {}", redis.key(&format!("token:{}", dropped.id())))).await.unwrap();
    let page = redis.store.list(&TokenFilter::all(), None).await.unwrap();
    assert_eq!(page.records.iter().map(|record| record.id()).collect::<Vec<_>>(), [kept.id()]);
}

// ---- the feed

#[tokio::test]
async fn the_feed_tells_of_every_change_of_any_process() {
    let Some(redis) = Redis::shared().await else { return };
    let earlier = mint(&redis.store, "alice", Scope::ReadOnly).await.unwrap();
    let mut feed = redis.feed().await;
    let other = redis.other_process().await;
    let alice = OwnerId::new("alice").unwrap();
    let made = mint(&other, "alice", Scope::ReadOnly).await.unwrap();
    revoke(&other, &earlier.id()).await;
    other.touch(&[(made.id(), LastUsed::new(ManualClock::START))]).await.unwrap();
    other.bar_owner(&alice).await.unwrap();
    other.lift_owner(&alice).await.unwrap();
    let told = |id, revision| Notice::Token { id, revision: Some(Revision::new(revision)) };
    let expected =
        [told(made.id(), 1), told(earlier.id(), 2), Notice::Owner(alice.clone()), Notice::Owner(alice.clone())];
    for notice in expected {
        assert_eq!(soon(feed.next()).await.unwrap(), notice);
    }
    redis.store.bar_owner(&alice).await.unwrap();
    assert_eq!(soon(feed.next()).await.unwrap(), Notice::Owner(alice), "the use was not told of");
}

#[tokio::test]
async fn the_feed_waits_through_quiet_and_tells_what_comes_then() {
    let Some(redis) = Redis::shared().await else { return };
    let (mut feed, alice) = (redis.feed().await, OwnerId::new("alice").unwrap());
    // Two heartbeats: of a stream that is not there yet, and of one that is.
    for _ in 0..2 {
        assert!(tokio::time::timeout(Duration::from_millis(1_500), feed.next()).await.is_err());
        redis.store.bar_owner(&alice).await.unwrap();
        assert_eq!(soon(feed.next()).await.unwrap(), Notice::Owner(alice.clone()));
    }
}

#[tokio::test]
async fn a_forged_or_malformed_entry_can_only_distrust() {
    let Some(redis) = Redis::shared().await else { return };
    let (mut feed, alice) = (redis.feed().await, OwnerId::new("alice").unwrap());
    let stream = redis.key("changes");
    for (entry, notice) in
        [("id nonsense", Notice::All), ("trust everybody", Notice::All), ("owner alice", Notice::Owner(alice.clone()))]
    {
        redis.run::<()>(format!("XADD {stream} * {entry}")).await.unwrap();
        assert_eq!(soon(feed.next()).await.unwrap(), notice);
    }
    redis.store.bar_owner(&alice).await.unwrap();
    assert_eq!(soon(feed.next()).await.unwrap(), Notice::Owner(alice), "and the feed goes on");
}

#[tokio::test]
async fn a_gap_in_the_stream_is_an_error_until_it_is_connected_anew() {
    let Some(redis) = Redis::shared().await else { return };
    let (stream, alice) = (redis.key("changes"), OwnerId::new("alice").unwrap());
    let count = redis.key("changes:count");
    let gaps = [
        format!("XTRIM {stream} MAXLEN 1"),
        // Trimmed, and nothing newer.
        format!("XTRIM {stream} MAXLEN 0"),
        // Lost, as by a failover.
        format!("DEL {stream}"),
        format!("DEL {stream} {count}"),
    ];
    for gap in gaps {
        redis.store.bar_owner(&alice).await.unwrap();
        let mut feed = redis.feed().await;
        redis.store.bar_owner(&alice).await.unwrap();
        redis.store.lift_owner(&alice).await.unwrap();
        redis.run::<()>(&gap).await.unwrap();
        assert!(soon(feed.next()).await.is_err(), "{gap}");
        feed.connect().await.unwrap();
        redis.store.bar_owner(&alice).await.unwrap();
        assert_eq!(soon(feed.next()).await.unwrap(), Notice::Owner(alice.clone()), "after {gap}");
    }
}

#[tokio::test]
async fn a_feed_notices_that_the_server_is_silently_gone() {
    let Some(server) = Server::start(Kind::Redis) else { return };
    let redis = Redis::at(&server.url()).await;
    let mut feed = redis.feed().await;
    server.freeze();
    assert!(soon(feed.next()).await.is_err());
    assert!(soon(feed.connect()).await.is_err());
    server.thaw();
    feed.connect().await.unwrap();
    let alice = OwnerId::new("alice").unwrap();
    eventually(|| async { redis.store.bar_owner(&alice).await.is_ok() }).await;
    assert_eq!(soon(feed.next()).await.unwrap(), Notice::Owner(alice));
}

#[tokio::test]
async fn a_feed_that_is_not_connected_is_an_error() {
    let Some(redis) = Redis::shared().await else { return };
    assert!(redis.store.feed(redis.client.clone()).next().await.is_err());
    assert!(redis.store.feed(Client::open("redis://127.0.0.1:1").unwrap()).connect().await.is_err());
}

// ---- behind a gate

/// A process with a gate, whose clock stands still: only the feed can make it ask again.
struct Process {
    auth: TokenAuthLayer,
    clock: ManualClock,
    hasher: CheapHasher,
    store: RedisStore,
}

impl Process {
    fn with(store: RedisStore) -> Self {
        let (clock, hasher) = (ManualClock::default(), CheapHasher::new());
        let builder = TokenAuthLayer::builder(store.clone()).clock(clock.clone()).hasher(hasher.clone());
        Self { auth: builder.audit(NoAudit::new()).build().unwrap(), clock, hasher, store }
    }

    /// A token that this process has proved.
    async fn hot(&self) -> PlaintextToken {
        let (token, record) = draft_with(&self.hasher, &Prefix::default(), "alice", Scope::ReadOnly).unwrap();
        self.store.insert(record).await.unwrap();
        assert_eq!(self.status(&token).await, 200);
        token
    }

    async fn status(&self, token: &PlaintextToken) -> u16 {
        status(&self.auth, token.expose()).await
    }

    fn handle(&self) -> AuthHandle {
        self.auth.handle()
    }

    async fn follow(&self, redis: &Redis) -> tokio::task::JoinHandle<()> {
        let following = tokio::spawn(self.handle().follow(redis.store.feed(redis.client.clone())));
        eventually(|| async { self.handle().stats().feed == FeedState::Connected }).await;
        following
    }
}

#[tokio::test]
async fn what_another_process_revokes_or_bars_is_refused_here() {
    let Some(redis) = Redis::shared().await else { return };
    let (process, other) = (Process::with(redis.store.clone()), redis.other_process().await);
    process.follow(&redis).await;
    let (revoked, barred) = (process.hot().await, process.hot().await);
    // The notices of their making are behind us when one of another owner is.
    revoke(&other, &revoked.id()).await;
    eventually(|| async { process.status(&revoked).await == 401 }).await;
    assert_eq!(process.status(&barred).await, 200);
    let alice = OwnerId::new("alice").unwrap();
    other.bar_owner(&alice).await.unwrap();
    eventually(|| async { process.status(&barred).await == 401 }).await;
    other.lift_owner(&alice).await.unwrap();
    eventually(|| async { process.status(&barred).await == 200 }).await;
    assert_eq!(process.hasher.verifications(), 2, "proved once each");
}

#[tokio::test]
async fn without_its_feed_a_gate_believes_until_the_ttl() {
    let Some(redis) = Redis::shared().await else { return };
    let (process, other) = (Process::with(redis.store.clone()), redis.other_process().await);
    let following = process.follow(&redis).await;
    let token = process.hot().await;
    following.abort();
    assert!(following.await.is_err());
    assert_eq!(process.status(&token).await, 200);
    let finds = process.handle().stats().lookups.calls;
    revoke(&other, &token.id()).await;
    process.clock.advance(TTL - Duration::from_millis(1));
    assert_eq!(process.status(&token).await, 200, "nobody has told");
    assert_eq!(process.handle().stats().lookups.calls, finds);
    process.clock.advance(Duration::from_millis(1));
    assert_eq!(process.status(&token).await, 401);
}

#[tokio::test]
async fn a_restart_of_redis_is_an_outage_and_no_more() {
    let Some(mut server) = Server::start(Kind::Redis) else { return };
    let redis = Redis::at(&server.url()).await;
    let process = Process::with(redis.store.clone());
    let following = process.follow(&redis).await;
    let (token, revoked) = (process.hot().await, process.hot().await);
    revoke(&redis.store, &revoked.id()).await;
    eventually(|| async { process.status(&revoked).await == 401 }).await;
    server.crash();
    eventually(|| async { process.handle().stats().feed == FeedState::Interrupted }).await;
    assert_eq!(process.status(&token).await, 200, "what is fresh needs no store");
    process.clock.advance(TTL);
    assert_eq!(process.status(&token).await, 503);
    assert_eq!(process.status(&revoked).await, 503);
    server.start_again();
    eventually(|| async { process.status(&token).await == 200 }).await;
    assert_eq!(process.status(&revoked).await, 401);
    assert_eq!(process.hasher.verifications(), 2, "what was proved is not proved again");
    eventually(|| async {
        process.clock.advance(Duration::from_millis(100));
        process.handle().stats().feed == FeedState::Connected
    })
    .await;
    revoke(&redis.store, &token.id()).await;
    eventually(|| async { process.status(&token).await == 401 }).await;
    assert!(!following.is_finished());
}
