//! Changes in an SQLite database.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, SqlitePool};

use crate::clock::{Clock, SystemClock};
use crate::decision::StoreError;
use crate::store::sql::error::failed;
use crate::store::sql::names::Names;
use crate::store::sql::notice;
use crate::store::{ChangeFeed, Notice};

/// Tells of the changes that any process makes in an SQLite database, some 50 ms after they are made. From
/// [`SqliteStore::feed`](super::SqliteStore::feed).
///
/// # How it works
/// 1. Triggers write every change into the table `tta_changes`, in its own transaction, and keep the last 10,000.
/// 2. Every [50 ms](Self::poll_every) the feed asks, on a connection of its own, for `PRAGMA data_version`, which moves
///    when any other connection has written: no file is read until then.
/// 3. When it has moved, the feed reads the changes after the last it knows. Where some are missing, it fails, and the
///    gate that follows it distrusts everything.
///
/// What touches tokens without changing them moves the version but is no change.
pub struct SqliteFeed {
    options: Arc<SqliteConnectOptions>,
    newest: Arc<str>,
    since: Arc<str>,
    interval: Duration,
    clock: Arc<dyn Clock>,
    watch: Option<Watch>,
}

struct Watch {
    connection: SqliteConnection,
    /// What `data_version` was before `seq` was read.
    version: i64,
    seq: i64,
    untold: VecDeque<Notice>,
}

impl SqliteFeed {
    pub(super) fn new(pool: &SqlitePool, names: &Names) -> Self {
        Self {
            options: pool.connect_options(),
            newest: names.rename("SELECT coalesce(max(seq), 0) FROM tta_changes").into(),
            since: names.rename("SELECT seq, notice FROM tta_changes WHERE seq >= $1 ORDER BY seq").into(),
            interval: Duration::from_millis(50),
            clock: Arc::new(SystemClock::new()),
            watch: None,
        }
    }

    /// Sets how often to look.
    ///
    /// # Cost
    /// Some microseconds each time, without a system call to the disk.
    #[must_use]
    pub fn poll_every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Sets the clock whose timers it waits with.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }
}

impl fmt::Debug for SqliteFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.watch.is_some();
        f.debug_struct("SqliteFeed").field("interval", &self.interval).field("connected", &connected).finish()
    }
}

impl ChangeFeed for SqliteFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.watch = None;
        let mut connection = self.options.connect().await.map_err(failed)?;
        let version = data_version(&mut connection).await?;
        let newest = sqlx::query_scalar(AssertSqlSafe(self.newest.clone()));
        let seq = newest.fetch_one(&mut connection).await.map_err(failed)?;
        self.watch = Some(Watch { connection, version, seq, untold: VecDeque::new() });
        Ok(())
    }

    async fn next(&mut self) -> Result<Notice, StoreError> {
        let watch = self.watch.as_mut().ok_or_else(|| StoreError::new("the feed is not connected"))?;
        loop {
            if let Some(notice) = watch.untold.pop_front() {
                return Ok(notice);
            }
            if !watch.look(&self.since).await? {
                self.clock.sleep(self.interval).await;
            }
        }
    }
}

impl Watch {
    /// Reads what is new, and answers whether anything was.
    async fn look(&mut self, since: &Arc<str>) -> Result<bool, StoreError> {
        // The version first: what is written between the two reads is found by both, or by the next look.
        let version = data_version(&mut self.connection).await?;
        if version == self.version {
            return Ok(false);
        }
        let query = sqlx::query_as(AssertSqlSafe(since.clone())).bind(self.seq);
        let changes: Vec<(i64, String)> = query.fetch_all(&mut self.connection).await.map_err(failed)?;
        self.version = version;
        // The last known one is read again: where it is gone, others may be.
        let mut next = self.seq.max(1);
        for (seq, text) in &changes {
            if *seq != next {
                return Err(gap());
            }
            if *seq > self.seq {
                self.untold.push_back(notice::parse(text));
            }
            next = seq.saturating_add(1);
        }
        if next <= self.seq {
            return Err(gap());
        }
        self.seq = next - 1;
        Ok(!self.untold.is_empty())
    }
}

fn gap() -> StoreError {
    StoreError::new("changes are missing from the table of changes")
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await.map_err(failed)
}
