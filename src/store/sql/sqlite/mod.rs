//! Tokens in SQLite.

mod feed;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_lock::{Mutex, MutexGuard};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

pub use feed::SqliteFeed;

use super::error::failed;
use super::history::{HistoryStatements, archive};
use super::names::{Names, SqlNameError};
use super::registry::{self, Database, Uses, registry};
use super::statement::{Statement, Statements, Value};
use super::{bound, row};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{Change, Cursor, Durability, InsertError, TokenFilter, TokenPage, UpdateError};
use crate::token::{LastUsed, Revision, TokenRecord};

/// The migrations, of which the first makes version 1.
const MIGRATIONS: [&str; 2] = [include_str!("1.sql"), include_str!("2.sql")];

/// How long to wait for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Tokens in an SQLite database, which several processes of one machine may share. A clone is another handle to it.
///
/// [`open`](Self::open) a file, or bring the pool of a database that holds more than tokens and call
/// [`migrate`](Self::migrate). Where more than one process opens it, give [`feed`](Self::feed) to
/// [`AuthHandle::follow`](crate::AuthHandle::follow). Behind the feature `sqlite`, which needs Rust 1.94 and a tokio
/// runtime, and brings its own SQLite (`libsqlite3-sys`, of which Cargo allows one version in a program).
///
/// # Example
/// ```
/// use tower_token_auth::{IssuePolicy, SqliteStore, TokenAuthLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("tta-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("tokens.db");
/// // path: "/var/lib/app/tokens.db"
/// let store = SqliteStore::open(path).await?;
///
/// let auth = TokenAuthLayer::new(store.clone());
/// tokio::spawn(auth.handle().follow(store.feed()));
/// let desk = auth.issuer(store, IssuePolicy::default());
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
///
/// # What is durable
/// A change that was answered is on the disk: it survives `kill -9` and a loss of power, as far as the disk tells the
/// truth. In a pool whose `synchronous` is less than `FULL` it survives the first only, and in memory nothing. Not to be
/// put on a network file system.
///
/// # Cancellation
/// Every method is atomic. Dropped, it has changed everything or nothing, and it may still go on to change everything.
///
/// # When things fail
/// Errors are opaque and carry the database's code and message; no path, no row, no hash. A row that cannot be read (an
/// unknown scope or state, a broken hash) is an error that names token and column. A lock that others hold for longer
/// than the pool's busy timeout is one too.
///
/// # Cost
/// A look-up is one read by the primary key. Writers queue, in this process in order of arrival and without a connection
/// of the pool each; with a write-ahead log readers never wait for them. [`prune`](crate::TokenRegistry::prune) is one
/// statement, and others write when it is done.
///
/// # Tables
/// The prefix of their names, `tta_`, can be [changed](Self::with_table_prefix). Times are milliseconds since 1970. Who
/// changes a token by hand raises its revision; triggers tell the gates.
///
/// ```sql
#[doc = include_str!("1.sql")]
/// ```
/// The second migration makes the tables of the [history](crate::SqlHistory):
/// ```sql
#[doc = include_str!("2.sql")]
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    names: Names,
    statements: Arc<Statements>,
    history: Arc<HistoryStatements>,
    durability: Arc<OnceLock<Durability>>,
    /// Whose turn it is to write. SQLite lets one write at a time, and makes the others sleep and try again, each on a
    /// connection that look-ups would need.
    turn: Arc<Mutex<()>>,
}

impl SqliteStore {
    /// Opens a file as this store wants it, makes it where it is missing, and [migrates](Self::migrate) it: with a
    /// write-ahead log, so that readers and a writer do not wait for each other, synced at every commit, and waiting up
    /// to 5 s for another process that writes.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened or made, and as [`migrate`](Self::migrate).
    ///
    /// # Cancellation
    /// As [`migrate`](Self::migrate); the file may be left empty.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().connect_lazy_with(options);
        write_ahead(&pool).await.map_err(failed)?;
        let store = Self::new(pool);
        store.migrate().await?;
        Ok(store)
    }

    /// The tokens in a database that the application has opened, best as [`open`](Self::open) does: `journal_mode = WAL`,
    /// `synchronous = FULL` and a busy timeout. [`migrate`](Self::migrate) makes the tables.
    ///
    /// A database in memory (`:memory:`) is another one for each connection of the pool: allow one, and use no feed.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self::named(pool, Names::flat())
    }

    /// Sets what the names of the tables begin with, instead of `tta_`.
    ///
    /// # Errors
    /// [`SqlNameError`] unless it is a word of `a`–`z`, `0`–`9` and `_`, of at most 24 bytes.
    pub fn with_table_prefix(self, prefix: &str) -> Result<Self, SqlNameError> {
        Ok(Self::named(self.pool, self.names.with_prefix(prefix)?))
    }

    fn named(pool: SqlitePool, names: Names) -> Self {
        let (statements, turn) = (Arc::new(Statements::new(&names, TOUCH)), Arc::default());
        let history = Arc::new(HistoryStatements::new(names.clone()));
        Self { pool, names, statements, history, durability: Arc::default(), turn }
    }

    /// Makes the tables, or brings those of an earlier release up to date. Does nothing where nothing is to be done,
    /// and may be called by several processes at once.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or does not permit it, or when a later release has changed the
    /// tables.
    ///
    /// # Cancellation
    /// Dropped, the tables are as they were before or as they shall be.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.make_tables().await?;
        let durability = self.look_at_settings().await.map_err(failed)?;
        if durability < Durability::Durable {
            tracing::warn!(%durability, "the settings of the database let it forget changes that it has acknowledged");
        }
        self.durability.get_or_init(|| durability);
        Ok(())
    }

    async fn make_tables(&self) -> Result<(), StoreError> {
        let mut reader = self.pool.acquire().await.map_err(failed)?;
        let version = self.version(&mut reader).await.map_err(failed)?;
        drop(reader);
        if super::pending(&MIGRATIONS, version)?.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        // Another process may have been faster.
        let version = self.version(&mut transaction).await.map_err(failed)?;
        for migration in super::pending(&MIGRATIONS, version)? {
            let sql = AssertSqlSafe(self.names.rename(migration));
            sqlx::raw_sql(sql).execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The version of the tables, 0 where there are none.
    async fn version(&self, connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        let exists = self.names.rename("SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'tta_migrations'");
        if !sqlx::query_scalar(AssertSqlSafe(exists)).fetch_one(&mut *connection).await? {
            return Ok(0);
        }
        let version = self.names.rename("SELECT coalesce(max(version), 0) FROM tta_migrations");
        sqlx::query_scalar(AssertSqlSafe(version)).fetch_one(connection).await
    }

    /// <https://sqlite.org/pragma.html#pragma_synchronous>
    async fn look_at_settings(&self) -> Result<Durability, sqlx::Error> {
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&self.pool).await?;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&self.pool).await?;
        Ok(match (&*journal, synchronous) {
            ("memory" | "off", _) => Durability::Volatile,
            (_, 2..) => Durability::Durable,
            _ => Durability::CrashSafe,
        })
    }

    /// Tells of the changes that any process makes in this database.
    #[must_use]
    pub fn feed(&self) -> SqliteFeed {
        SqliteFeed::new(&self.pool, &self.names)
    }

    async fn begin_history(&self) -> Result<InTurn<'_>, sqlx::Error> {
        let turn = self.turn.lock().await;
        Ok(InTurn { transaction: self.pool.begin_with("BEGIN IMMEDIATE").await?, _turn: turn })
    }

    /// The pool, such as to close it.
    #[must_use]
    pub const fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// The statement of a look-up, with the id for `$1`: for `EXPLAIN QUERY PLAN`.
    #[must_use]
    pub fn find_sql(&self) -> &str {
        &self.statements.find
    }
}

/// Turns the write-ahead log on, which the file remembers. While another process does the same, SQLite answers at once
/// that it is busy, whatever the timeout.
async fn write_ahead(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    let (clock, mut waited) = (SystemClock::new(), Duration::ZERO);
    loop {
        match sqlx::query("PRAGMA journal_mode = WAL").execute(pool).await {
            Err(error) if is_busy(&error) && waited < BUSY_TIMEOUT => clock.sleep(BUSY_PAUSE).await,
            done => return done.map(drop),
        }
        waited = waited.saturating_add(BUSY_PAUSE);
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY, and its kinds in the higher bytes.
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("names", &self.names).finish_non_exhaustive()
    }
}

/// For one token. On the right of `=` stands what was there before.
const TOUCH: &str = "\
    UPDATE tta_tokens SET
        used_at = max($2, coalesce(used_at, $2)),
        used_from = CASE WHEN $2 >= coalesce(used_at, $2) THEN $3 ELSE used_from END,
        used_agent = CASE WHEN $2 >= coalesce(used_at, $2) THEN $4 ELSE used_agent END,
        wrote_at = CASE WHEN $5 < wrote_at THEN wrote_at ELSE coalesce($5, wrote_at) END
    WHERE id = $1";

impl Database for SqliteStore {
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
        let _turn = self.turn.lock().await;
        let done = bound!(statement).execute(&self.pool).await.map_err(failed)?;
        Ok(done.rows_affected())
    }

    async fn write_uses(&self, uses: Uses) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        for (id, used) in &uses {
            let key = [Value::text(id.as_str())];
            let values = key.into_iter().chain(row::use_values(Some(used))).collect();
            let touch = Statement { sql: Arc::clone(&self.statements.touch), values };
            bound!(touch).execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }
}

registry!(SqliteStore);

/// A transaction, and the turn for it, which is given up afterwards.
struct InTurn<'a> {
    transaction: sqlx::Transaction<'static, sqlx::Sqlite>,
    _turn: MutexGuard<'a, ()>,
}

archive!(SqliteStore, InTurn<'_>);
