//! Processes that share a PostgreSQL server.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tower_token_auth::{PostgresFeed, PostgresStore};

use super::{Database, PATIENCE, crash, cut, lag, outage, replica};
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
