//! Tokens in PostgreSQL.

mod feed;

use std::fmt;
use std::sync::{Arc, OnceLock};

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

pub use feed::PostgresFeed;

use super::error::failed;
use super::history::{HistoryStatements, archive};
use super::names::{Names, SqlNameError};
use super::registry::{self, Database, Uses, registry};
use super::statement::{Statement, Statements};
use super::{bound, row};
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{Change, Cursor, Durability, InsertError, TokenFilter, TokenPage, UpdateError};
use crate::token::{LastUsed, Revision, TokenRecord};

/// The migrations, of which the first makes version 1.
const MIGRATIONS: [&str; 2] = [include_str!("1.sql"), include_str!("2.sql")];

/// Held by whoever migrates, until its transaction ends; a number that nothing else is likely to lock.
const MIGRATION_LOCK: i64 = 0x7474_615f_6d69_6772;

/// Tokens in a PostgreSQL database that any number of servers share. A clone is another handle to it.
///
/// The application brings the pool, and with it the choice of TLS; call [`migrate`](Self::migrate) before the first
/// use, and give [`feed`](Self::feed) to [`AuthHandle::follow`](crate::AuthHandle::follow) in every process. Behind the
/// feature `postgres`, which needs Rust 1.94 and a tokio runtime. Made for PostgreSQL 13 and newer, and for databases whose
/// encoding is `UTF8`.
///
/// # Example
/// ```no_run
/// use std::time::Duration;
///
/// use sqlx::postgres::PgPoolOptions;
/// use tower_token_auth::{IssuePolicy, PostgresStore, TokenAuthLayer};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let options = PgPoolOptions::new()
///     // So long the pool tries to connect while the database is away; 30 s if not told.
///     .acquire_timeout(Duration::from_secs(2))
///     // A look-up is then one round trip, and a connection that died in the pool is one 503.
///     .test_before_acquire(false);
/// let pool = options.connect("postgres://app@db.internal/app").await?;
/// let store = PostgresStore::new(pool).with_schema("auth")?;
/// store.migrate().await?;
///
/// let auth = TokenAuthLayer::new(store.clone());
/// tokio::spawn(auth.handle().follow(store.feed()));
/// let desk = auth.issuer(store, IssuePolicy::default());
/// # Ok(())
/// # }
/// ```
///
/// # What is durable
/// A change that was answered survives a crash of the server, unless its `synchronous_commit` or `fsync` is off. What a
/// fail-over keeps is what the standby had: with asynchronous replication it may forget the last changes, and a token
/// that was just revoked lives again. Use synchronous replication where that must not be.
///
/// The pool is to reach the primary. A standby lags: a gate never lets an older revision replace a newer one it has
/// seen, but it has not seen all.
///
/// A pooler in transaction mode has to know prepared statements (PgBouncer does since 1.21, told by
/// `max_prepared_statements`), and the [feed](PostgresFeed) needs a way around it.
///
/// # Cancellation
/// Every method is atomic. Dropped, it has changed everything or nothing, and it may still go on to change everything.
///
/// # When things fail
/// Errors are opaque and carry PostgreSQL's code and message; no address, no row, no hash. A row that cannot be read (an
/// unknown scope or state, a broken hash) is an error that names token and column.
///
/// # Cost
/// A look-up is one read by the primary key, in one round trip, or two where the pool
/// pings first (`test_before_acquire`, which sqlx turns on by default); a change is two. A batch of last uses is one statement.
///
/// # Tables
/// The schema, `public`, and the prefix of the names, `tta_`, can be changed; the schema is not made. Times are
/// milliseconds since 1970. Who changes a token by hand raises its revision; triggers tell the gates.
///
/// A server's role needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on them. Processes take turns to write
/// history by a lock on the table of its writers: whoever may change that table can hold the lock, and all history waits
/// meanwhile, so give these rights to nobody else.
///
/// ```sql
#[doc = include_str!("1.sql")]
/// ```
/// The second migration makes the tables of the [history](crate::SqlHistory):
/// ```sql
#[doc = include_str!("2.sql")]
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    names: Names,
    statements: Arc<Statements>,
    history: Arc<HistoryStatements>,
    durability: Arc<OnceLock<Durability>>,
}

impl PostgresStore {
    /// The tokens in a database.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::named(pool, Names::in_public())
    }

    /// Sets the schema in which the tables stand, instead of `public`. It has to be there.
    ///
    /// # Errors
    /// [`SqlNameError`] unless it is a word of `a`–`z`, `0`–`9` and `_`, of at most 31 bytes.
    pub fn with_schema(self, schema: &str) -> Result<Self, SqlNameError> {
        Ok(Self::named(self.pool, self.names.with_schema(schema)?))
    }

    /// Sets what the names of the tables begin with, instead of `tta_`.
    ///
    /// # Errors
    /// [`SqlNameError`] unless it is a word of `a`–`z`, `0`–`9` and `_`, of at most 24 bytes.
    pub fn with_table_prefix(self, prefix: &str) -> Result<Self, SqlNameError> {
        Ok(Self::named(self.pool, self.names.with_prefix(prefix)?))
    }

    fn named(pool: PgPool, names: Names) -> Self {
        let statements = Arc::new(Statements::new(&names, TOUCH));
        let history = Arc::new(HistoryStatements::new(names.clone()));
        Self { pool, names, statements, history, durability: Arc::default() }
    }

    /// Makes the tables, or brings those of an earlier release up to date. Does nothing where nothing is to be done,
    /// for which the right to read suffices, and may be called by several processes at once.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or does not permit it, when its encoding is not `UTF8`, or when a
    /// later release has changed the tables.
    ///
    /// # Cancellation
    /// Dropped, the tables are as they were before or as they shall be.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.look_at_encoding().await?;
        self.make_tables().await?;
        let durability = self.look_at_settings().await.map_err(failed)?;
        if durability < Durability::Durable {
            tracing::warn!(%durability, "the settings of the database let it forget changes that it has acknowledged");
        }
        self.durability.get_or_init(|| durability);
        Ok(())
    }

    /// In another encoding there are names of owners, tokens and applications that cannot be stored.
    async fn look_at_encoding(&self) -> Result<(), StoreError> {
        let encoding = sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(&self.pool);
        let encoding: String = encoding.await.map_err(failed)?;
        if encoding != "UTF8" {
            return Err(StoreError::new(format!("the encoding of the database has to be UTF8, and is {encoding}")));
        }
        Ok(())
    }

    async fn make_tables(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        let version = self.version(&mut transaction).await.map_err(failed)?;
        if super::pending(&MIGRATIONS, version)?.is_empty() {
            return Ok(());
        }
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK);
        lock.execute(&mut *transaction).await.map_err(failed)?;
        // Another process may have been faster.
        let version = self.version(&mut transaction).await.map_err(failed)?;
        for migration in super::pending(&MIGRATIONS, version)? {
            let sql = AssertSqlSafe(self.names.rename(migration));
            sqlx::raw_sql(sql).execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The version of the tables, 0 where there are none.
    async fn version(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        // Not `to_regclass`, which may know from before the lock that there was no such table.
        let exists =
            "SELECT count(*) > 0 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'tta_migrations'";
        let exists = sqlx::query_scalar(AssertSqlSafe(self.names.rename(exists))).bind(self.names.schema());
        if !exists.fetch_one(&mut *connection).await? {
            return Ok(0);
        }
        let version = self.names.rename("SELECT coalesce(max(version), 0) FROM public.tta_migrations");
        sqlx::query_scalar(AssertSqlSafe(version)).fetch_one(connection).await
    }

    /// <https://www.postgresql.org/docs/current/runtime-config-wal.html>
    async fn look_at_settings(&self) -> Result<Durability, sqlx::Error> {
        let settings = "SELECT current_setting('fsync'), current_setting('synchronous_commit')";
        let (fsync, commit): (String, String) = sqlx::query_as(settings).fetch_one(&self.pool).await?;
        Ok(match (&*fsync, &*commit) {
            (_, "off") => Durability::Volatile,
            ("off", _) => Durability::CrashSafe,
            _ => Durability::Durable,
        })
    }

    /// Tells of the changes that any process makes in this database.
    #[must_use]
    pub fn feed(&self) -> PostgresFeed {
        PostgresFeed::new(&self.pool.connect_options(), self.names.channel())
    }

    async fn begin_history(&self) -> Result<InTurn, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let turn = AssertSqlSafe(self.names.rename(HISTORY_TURN));
        sqlx::raw_sql(turn).execute(&mut *transaction).await?;
        Ok(InTurn { transaction })
    }

    /// The statement of a look-up, with the id for `$1`: for `EXPLAIN`.
    #[must_use]
    pub fn find_sql(&self) -> &str {
        &self.statements.find
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("names", &self.names).finish_non_exhaustive()
    }
}

/// For a batch, a column an array. The rows are locked by id first, so that two batches at once do not wait for each
/// other in a circle.
const TOUCH: &str = "\
    WITH uses AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[])
            AS u (id, used_at, used_from, used_agent, wrote_at)
    ), locked AS (
        SELECT id FROM public.tta_tokens WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE public.tta_tokens t SET
        used_at = greatest(t.used_at, u.used_at),
        used_from = CASE WHEN u.used_at >= coalesce(t.used_at, u.used_at) THEN u.used_from ELSE t.used_from END,
        used_agent = CASE WHEN u.used_at >= coalesce(t.used_at, u.used_at) THEN u.used_agent ELSE t.used_agent END,
        wrote_at = greatest(t.wrote_at, u.wrote_at)
    FROM uses u JOIN locked ON locked.id = u.id WHERE t.id = u.id";

impl Database for PostgresStore {
    fn statements(&self) -> &Statements {
        &self.statements
    }

    fn durability(&self) -> Durability {
        self.durability.get().copied().unwrap_or(Durability::Volatile)
    }

    async fn read(&self, statement: Statement) -> Result<Vec<TokenRecord>, StoreError> {
        let rows = bound!(statement).fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter().map(row::record).collect()
    }

    async fn write(&self, statement: Statement) -> Result<u64, StoreError> {
        let done = bound!(statement).execute(&self.pool).await.map_err(failed)?;
        Ok(done.rows_affected())
    }

    async fn write_uses(&self, uses: Uses) -> Result<(), StoreError> {
        let column = |value: fn(&LastUsed) -> Option<String>| uses.values().map(value).collect::<Vec<_>>();
        let touch = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements.touch)))
            .bind(uses.keys().map(ToString::to_string).collect::<Vec<_>>())
            .bind(uses.values().map(|used| row::millis(used.at)).collect::<Vec<_>>())
            .bind(column(row::address))
            .bind(column(row::agent))
            .bind(uses.values().map(|used| used.last_write.map(row::millis)).collect::<Vec<_>>());
        touch.execute(&self.pool).await.map_err(failed).map(drop)
    }
}

registry!(PostgresStore);

/// Until the transaction ends, nobody else writes history to these tables; and it ends when its process has stopped in the
/// middle of it. Not an advisory lock, which every role of the database may hold.
const HISTORY_TURN: &str = "SET LOCAL idle_in_transaction_session_timeout = '30s';
    LOCK TABLE public.tta_history_writers IN EXCLUSIVE MODE";

struct InTurn {
    transaction: sqlx::Transaction<'static, sqlx::Postgres>,
}

archive!(PostgresStore, InTurn);
