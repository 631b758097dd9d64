//! Changes in a PostgreSQL database.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};

use crate::clock::{Clock, SystemClock};
use crate::decision::StoreError;
use crate::id::TokenId;
use crate::store::sql::error::failed;
use crate::store::sql::notice;
use crate::store::{ChangeFeed, Notice};

/// Tells of the changes that any process makes in a PostgreSQL database, as soon as they are committed. From
/// [`PostgresStore::feed`](super::PostgresStore::feed).
///
/// Needs a direct connection to the primary: a standby refuses to listen, and a pooler in transaction mode gives a
/// session to others between two statements. Where the store's pool goes through such a pooler, say
/// [`connect_with`](Self::connect_with).
///
/// # How it works
/// 1. Triggers notify `<schema>.<prefix>changes` in the transaction of the change.
/// 2. The feed listens on a connection of its own, beside the pool's. When that is lost, the feed fails and the gate
///    that follows it distrusts everything: notifications of before the next connection are gone.
/// 3. When nothing was heard for [10 s](Self::heartbeat), it notifies itself, and fails unless it hears that within 5 s.
///    So a connection that is dead without a word is noticed, and a pooler between once it gives the session away.
///
/// # Security
/// Whoever may connect to the database may notify, and so make gates look up what they know already; nothing else.
pub struct PostgresFeed {
    options: PgConnectOptions,
    channel: String,
    quiet: Duration,
    patience: Duration,
    clock: Arc<dyn Clock>,
    ears: Option<Ears>,
}

/// A connection that listens.
struct Ears {
    listener: PgListener,
    /// The channel on which this connection, and no other, hears itself.
    own: String,
    untold: VecDeque<Notice>,
}

impl PostgresFeed {
    pub(super) fn new(options: &PgConnectOptions, channel: String) -> Self {
        Self {
            options: options.clone(),
            channel,
            quiet: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            clock: Arc::new(SystemClock::new()),
            ears: None,
        }
    }

    /// Sets how to connect, where that is not as the store's pool does.
    #[must_use]
    pub fn connect_with(self, options: PgConnectOptions) -> Self {
        Self { options, ..self }
    }

    /// Sets after how long a silence it listens to itself, and how long it waits for that, and for a connection.
    #[must_use]
    pub fn heartbeat(self, quiet: Duration, patience: Duration) -> Self {
        Self { quiet, patience, ..self }
    }

    /// Sets the clock whose timers it waits with.
    #[must_use]
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The answer, or an error when it takes too long.
    async fn patiently<T>(&self, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        match select(pin!(answer), self.clock.sleep(self.patience)).await {
            Either::Left((answer, _)) => answer.map_err(failed),
            Either::Right(_) => Err(StoreError::new("the database does not answer the change feed")),
        }
    }

    async fn listen(&self) -> Result<Ears, StoreError> {
        let own = format!("tta_own_{}", TokenId::generate().map_err(StoreError::new)?);
        // Not one of the application's pool: a listener that is given up while the other side is silent takes its
        // connection with it for as long as the system keeps the socket.
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = pool.connect_lazy_with(self.options.clone());
        let connecting = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // A loss is to be told at once, not once there is a new connection.
            listener.eager_reconnect(false);
            listener.listen_all([&*self.channel, &*own]).await?;
            Ok(listener)
        };
        let listener = self.patiently(connecting).await?;
        Ok(Ears { listener, own, untold: VecDeque::new() })
    }

    /// Waits for a change, or until it has listened to itself.
    async fn attend(&self, ears: &mut Ears) -> Result<(), StoreError> {
        let heard = {
            let next = pin!(ears.listener.try_recv());
            match select(next, self.clock.sleep(self.quiet)).await {
                Either::Left((heard, _)) => Some(heard),
                Either::Right(_) => None,
            }
        };
        match heard {
            Some(heard) => ears.take(heard).map_err(failed).map(drop),
            None => self.patiently(ears.hear_itself()).await,
        }
    }
}

impl Ears {
    /// Keeps what was heard, and answers whether it was itself.
    fn take(&mut self, heard: Result<Option<PgNotification>, sqlx::Error>) -> Result<bool, sqlx::Error> {
        let Some(notification) = heard? else {
            return Err(sqlx::Error::Protocol("the connection of the change feed was lost".into()));
        };
        let itself = notification.channel() == self.own;
        if !itself {
            self.untold.push_back(notice::parse(notification.payload()));
        }
        Ok(itself)
    }

    async fn hear_itself(&mut self) -> Result<(), sqlx::Error> {
        let notify = AssertSqlSafe(format!("NOTIFY \"{}\"", self.own));
        sqlx::raw_sql(notify).execute(&mut self.listener).await?;
        loop {
            let heard = self.listener.try_recv().await;
            if self.take(heard)? {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for PostgresFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.ears.is_some();
        f.debug_struct("PostgresFeed").field("channel", &self.channel).field("connected", &connected).finish()
    }
}

impl ChangeFeed for PostgresFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.ears = None;
        let mut ears = self.listen().await?;
        self.patiently(ears.hear_itself()).await?;
        self.ears = Some(ears);
        Ok(())
    }

    async fn next(&mut self) -> Result<Notice, StoreError> {
        // Taken out, so that a feed that has failed, or whose future was dropped, is not used on by mistake.
        let mut ears = self.ears.take().ok_or_else(|| StoreError::new("the feed is not connected"))?;
        loop {
            if let Some(notice) = ears.untold.pop_front() {
                self.ears = Some(ears);
                return Ok(notice);
            }
            self.attend(&mut ears).await?;
        }
    }
}
