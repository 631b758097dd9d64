//! Processes that share a PostgreSQL server.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tower_token_auth::test_util::mint;
use tower_token_auth::{PostgresFeed, PostgresStore, Scope, TokenId};

use super::{Database, OWNER, PATIENCE, crash, cut, find, lag, outage, replica};
use crate::servers::{Kind, Server, shared, unique};

/// Tables of a test's own.
struct Postgres {
    url: String,
    prefix: String,
    /// How long the store tries to connect while the server is away.
    patience: Duration,
}

impl Postgres {
    fn at(url: String) -> Self {
        Self { url, prefix: unique("p"), patience: PATIENCE }
    }

    /// On the server of this process, beside other tests.
    fn shared() -> Option<Self> {
        shared(Kind::Postgres).map(Self::at)
    }

    /// What the connections of its feeds, and no others, are called.
    fn feeds(&self) -> String {
        format!("{}_feed", self.prefix)
    }
}

async fn open(url: &str, prefix: &str, patience: Duration) -> PostgresStore {
    let pool = PgPoolOptions::new().acquire_timeout(patience).connect(url).await.unwrap();
    let store = PostgresStore::new(pool).with_table_prefix(prefix).unwrap();
    store.migrate().await.unwrap();
    store
}

impl Database for Postgres {
    type Store = PostgresStore;
    type Feed = PostgresFeed;

    async fn open(&self) -> PostgresStore {
        open(&self.url, &self.prefix, self.patience).await
    }

    fn feed(&self, store: &PostgresStore) -> PostgresFeed {
        let options = self.url.parse::<PgConnectOptions>().unwrap().application_name(&self.feeds());
        store.feed().connect_with(options)
    }

    async fn cut_feeds(&self) {
        let pool = PgPoolOptions::new().connect(&self.url).await.unwrap();
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name";
        let kill = AssertSqlSafe(format!("{kill} = '{}'", self.feeds()));
        sqlx::raw_sql(kill).execute(&pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_on_one_is_refused_on_all() {
    let Some(database) = Postgres::shared() else { return };
    lag::revoked_on_one_is_refused_on_all("PostgreSQL", &database).await;
}

#[tokio::test]
async fn without_a_feed_the_bound_is_the_ttl() {
    let Some(database) = Postgres::shared() else { return };
    cut::without_a_feed_the_bound_is_the_ttl(&database).await;
}

#[tokio::test]
async fn everything_is_distrusted_at_the_reconnect() {
    let Some(database) = Postgres::shared() else { return };
    cut::everything_is_distrusted_at_the_reconnect(&database).await;
}

#[tokio::test]
async fn a_replica_that_lags_revives_nothing() {
    let Some(database) = Postgres::shared() else { return };
    replica::a_replica_that_lags_revives_nothing(&database).await;
}

/// Does nothing unless it is started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(place) = crash::place() else { return };
    let (url, prefix) = place.split_once(' ').unwrap();
    crash::issue_and_revoke(open(url, prefix, PATIENCE).await).await;
}

#[tokio::test]
async fn what_a_killed_process_acknowledged_is_there() {
    let Some(database) = Postgres::shared() else { return };
    let place = format!("{} {}", database.url, database.prefix);
    crash::what_a_killed_process_acknowledged_is_there(&database, "postgres", &place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_is_503_and_no_storm_of_hashes() {
    let Some(server) = Server::start(Kind::Postgres) else { return };
    let database = Postgres { patience: Duration::from_secs(2), ..Postgres::at(server.url()) };
    outage::a_crash_of_the_server_is_503_and_no_storm_of_hashes(server, &database).await;
}

#[tokio::test]
async fn a_look_up_beside_the_bare_driver() {
    let Some(Postgres { url, prefix, .. }) = Postgres::shared() else { return };
    // As the store's documentation says: a look-up is one round trip.
    let pool = PgPoolOptions::new().test_before_acquire(false).connect(&url).await.unwrap();
    let store = PostgresStore::new(pool.clone()).with_table_prefix(&prefix).unwrap();
    store.migrate().await.unwrap();
    mint(&store, OWNER, Scope::ReadOnly).await.unwrap();
    // Without the notices, of which a transaction keeps those it has not sent yet.
    let copies = format!(
        "ALTER TABLE {prefix}tokens DISABLE TRIGGER USER; INSERT INTO {prefix}tokens (id, owner, created_by, created_at, \
         on_behalf_right, label, scope, state, revision, secret, successor_used, attributes) SELECT lpad(n::text, 16, '0'), \
         owner, created_by, created_at, on_behalf_right, label, scope, state, revision, secret, successor_used, \
         attributes FROM {prefix}tokens, generate_series(1, {}) n; ALTER TABLE {prefix}tokens ENABLE TRIGGER USER; \
         ANALYZE {prefix}tokens",
        find::size().0
    );
    sqlx::raw_sql(AssertSqlSafe(copies)).execute(&pool).await.unwrap();
    let by_hand = async |id: TokenId| {
        let query = sqlx::query(AssertSqlSafe(store.find_sql())).bind(id.to_string());
        query.fetch_optional(&pool).await.map(|row| row.is_some())
    };
    find::beside_the_bare_driver("PostgreSQL", &store, by_hand).await;
    let drop = format!("DROP TABLE {prefix}tokens");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.unwrap();
}
