//! The audit history in a database, for all processes and for as long as it is wanted.
//!
//! As [`AuditHistory`](crate::AuditHistory) it tells what happened with a token, what of an owner's was refused and which
//! programs connect; and it does so after a restart, and of what other processes have seen. No request waits for the
//! database: what is recorded is taken into a bounded queue, and a future that the application spawns writes it in batches.
//!
//! # What it guarantees
//! * A batch (up to 500 events) is one transaction, with what it adds to the counters of applications: it is written whole
//!   or not at all. A batch that fails is tried again, with pauses of 100 ms to 30 s, until it is written. Where the
//!   database objects to an event itself, it is halved until that one is found, which is lost and counted.
//! * Nothing is written twice, as long as the database keeps what it has acknowledged: each batch has a key, by which one is
//!   known whose answer was lost.
//! * *Proved* events and noise have places of their own in the queue, as in a [`QueuedSink`](crate::QueuedSink). Written,
//!   coalesced, lost and queued add up to the decisions told.
//! * Counters are merged with those of other processes, never set. A token has at most
//!   [`MAX_AGENTS`](crate::TokenApplications::MAX_AGENTS) applications that are told apart, the same ones for all processes,
//!   and one for all others: processes take turns to write.
//! * What a request merely claims adds no token. It is counted for a token that was proved before, or in the same batch.
//! * History moves no change feed.
//! * A listing goes on where it stopped, in any process, without repetitions and without gaps among the events that were there
//!   when it began. Events stand in the order of their time; one that comes late, from a process that could not write for
//!   a while, takes its place among the others.

mod archive;
mod event;
mod seen;
mod statements;
#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;
mod words;
mod writer;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(super) use archive::{Answer, Archive, Transaction, append, archive};
pub(super) use event::{Stored, stored};
pub(super) use seen::{Place, SeenRow, place, seen_row};
pub(super) use statements::{BatchKey, HistoryStatements};
pub use writer::HistoryWriter;
use writer::Keep;

use crate::audit::{
    ApplicationFilter, ApplicationPage, AuditError, AuditEvent, AuditSink, AuditTally, Backlog, Flush, HistoryCursor,
    HistoryError, HistoryFilter, HistoryPage, TokenApplications, Unflushed, Writer, flush_within,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{BuildError, at_least_one};
use crate::decision::StoreError;
use crate::id::TokenId;
use crate::text::Causes;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Remembers what happened and which applications were seen, in the database of a store, for all processes. A clone is
/// another handle.
///
/// From `SqliteStore::history` or `PostgresStore::history`, which also give the [`HistoryWriter`]: it is to be spawned. No
/// request waits for the database: what is recorded is taken into a bounded queue, and the writer writes it in batches.
///
/// It can be required to record ([`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse)). What it then answers for is a
/// place in the queue: an event that waits when the process is killed is lost.
///
/// # Example
#[cfg_attr(feature = "sqlite", doc = "```")]
#[cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
/// use std::time::Duration;
/// use tower_token_auth::{Actor, HistoryFilter, IssuePolicy, NewToken, Scope, SqliteStore, TokenAuthLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("tta-doc-history-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("tokens.db");
/// // path: "/var/lib/app/tokens.db"
/// let store = SqliteStore::open(path).await?;
/// let (history, writer) = store.history();
/// tokio::spawn(writer);
/// let auth = TokenAuthLayer::builder(store.clone()).audit(history.clone()).build()?;
/// let desk = auth.issuer(store, IssuePolicy::default());
///
/// let export = NewToken::new("alice", "nightly export", Scope::ReadOnly);
/// let id = desk.issue(&Actor::system("bootstrap"), export).await?.summary().id;
///
/// // Waits for what was recorded, which would be written within a second or so anyway.
/// history.shutdown(Duration::from_secs(5)).await?;
/// let page = history.events(&HistoryFilter::all().token(id), None).await?;
/// assert_eq!(page.events[0].actor().map(ToString::to_string).as_deref(), Some("system:bootstrap"));
/// assert!(history.applications_of(&id).await?.is_none(), "it was not used yet");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
///
/// # What grows, and by how much
/// | what | who causes it | bound |
/// |---|---|---|
/// | noise: nobody is proved | everybody | 100 events a minute and process one by one; what is beyond waits in the queue, and beyond that is summed up, exactly. Forgotten after 7 days: under a flood that never ends some 1,000,000 rows a process, of some 250 bytes |
/// | requests of proved tokens | holders of tokens | one a decision, forgotten after 90 days; a [`SampledSink`](crate::SampledSink) before it takes fewer |
/// | reports of sinks | whoever guesses at tokens, or overloads the queue | of a token that is only claimed ([`ThresholdSink`](crate::ThresholdSink)) 100 a minute and process, what is beyond summed up as noise; of one that is proved one a window; of losses one a batch. Forgotten after 90 days |
/// | acts at the desk | people at the desk, also those who are refused | one an act, forgotten after two years |
/// | applications | holders of tokens | 17 rows a token, forgotten with the token that was not proved for 90 days |
///
/// Proved events of all owners wait in the same places. Who holds a token and is refused, or admitted, faster than the
/// database writes fills them, and then events of others are lost too: counted, but without a name, and with
/// [`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse) the requests of others are refused. What helps is a rate limit
/// in front of the gate, more [capacity](SqlHistoryBuilder::capacity), and for what is allowed (not for refusals, which it
/// passes on) a [`SampledSink`](crate::SampledSink).
///
/// # When things fail
/// | what | what happens |
/// |---|---|
/// | the database is away, full, or refuses | the batch is tried again, after 100 ms to 30 s, and what follows waits; an error is logged at the first failure and at each doubling |
/// | the database objects to an event itself: it breaks a constraint, or cannot be stored | its batch is halved until it is found; that one is counted as lost, and the cause logged |
/// | an answer is lost | the batch is tried again, and known by its key: nothing is written or counted twice, as long as the database keeps what it has acknowledged |
/// | the queue is full | proved events are lost, counted, and told as an event ([`Action::ReportLoss`](crate::Action::ReportLoss)) with the next batch; [`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse) refuses the request. Noise is summed up, and never in their places |
/// | the writer was not spawned | the same, and the cause says so; where it was dropped, nothing is taken in any more |
/// | the process is killed | what waits is gone, some second's worth where the database keeps up. [`shutdown`](Self::shutdown) waits for it, and so does [`AuthHandle::shutdown`](crate::AuthHandle::shutdown) |
/// | a row cannot be read: a later release wrote it in words that this one does not know | it is left out and counted ([`HistoryPage::unreadable`](crate::HistoryPage::unreadable)), and the listing goes on |
///
/// # Cost
/// For a request an owned copy of the event and a short lock. For the database one transaction a second while fewer than
/// 500 proved events wait, of 17 statements for 500 events and up to four times as many where each is of another token;
/// processes take turns. A filter by token, owner, time, reason, outcome or action is answered from an index (`Allowed` and
/// `Authenticate`, which nearly all events are, go through the events in the order of their time); several together go
/// through what one of them finds.
///
/// # Security
/// It tells who does what, when and from where: show it to those who may know that, and to an owner only what is the
/// owner's. The attributes of tokens are not kept. Whoever may write to the tables may change what is told.
#[derive(Clone)]
pub struct SqlHistory {
    archive: Arc<dyn Archive>,
    backlog: Arc<Backlog>,
    _open: Arc<Open>,
}

/// Configures a [`SqlHistory`].
#[must_use = "a builder does nothing until it is built"]
pub struct SqlHistoryBuilder {
    archive: Arc<dyn Archive>,
    capacity: usize,
    noise: Option<usize>,
    noise_per_minute: usize,
    keep: Keep,
    clock: Arc<dyn Clock>,
}

impl SqlHistory {
    /// A page of events, the newest first. A cursor is good in every process that uses the database.
    ///
    /// # Errors
    /// [`HistoryError::Cursor`] when the cursor is none of a database's history, [`HistoryError::Store`] when the database
    /// does not answer.
    ///
    /// # Cancellation
    /// Dropped, it changes nothing.
    pub async fn events(
        &self,
        filter: &HistoryFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<HistoryPage, HistoryError> {
        let statement = self.archive.statements().list(filter, cursor)?;
        let mut rows = self.archive.events(statement).await?;
        let more = rows.len() > filter.page_size.max(1);
        rows.truncate(filter.page_size.max(1));
        let next = rows.last().filter(|_| more).map(|last| statements::cursor(last.at, last.seq));
        let (mut events, mut unreadable) = (Vec::new(), 0);
        for row in rows {
            match row.event {
                Ok(event) => events.push(event),
                Err(error) => {
                    unreadable += 1;
                    tracing::warn!(cause = %Causes(&error), "an audit event cannot be read");
                }
            }
        }
        Ok(HistoryPage::new(events, next).with_unreadable(unreadable))
    }

    /// The applications that used a token, whichever process they used; `None` where it was not proved, or not lately.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer, or holds what cannot be read.
    ///
    /// # Cancellation
    /// Dropped, it changes nothing.
    pub async fn applications_of(&self, token: &TokenId) -> Result<Option<TokenApplications>, StoreError> {
        let rows = self.archive.seen(self.archive.statements().seen_of(token)).await?;
        Ok(seen::grouped(rows).pop())
    }

    /// A page of tokens with the applications that used them, in the order of the tokens' ids.
    ///
    /// # Errors
    /// [`HistoryError::Cursor`] when the cursor is none of this listing's, [`HistoryError::Store`] when the database does
    /// not answer, or holds what cannot be read.
    ///
    /// # Cancellation
    /// Dropped, it changes nothing.
    pub async fn applications(
        &self,
        filter: &ApplicationFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<ApplicationPage, HistoryError> {
        let statement = self.archive.statements().seen(filter, cursor)?;
        let mut tokens = seen::grouped(self.archive.seen(statement).await?);
        let more = tokens.len() > filter.page_size.max(1);
        tokens.truncate(filter.page_size.max(1));
        let next = tokens.last().filter(|_| more).map(|last| HistoryCursor::new(last.token.as_str()));
        Ok(ApplicationPage::new(tokens, next))
    }

    /// Forgets all events of before that time, and the applications of tokens that were not proved since; answers how many
    /// events that were. The writer does so every hour, with what is older than
    /// [it is to be kept](SqlHistoryBuilder::keep_requests).
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    ///
    /// # Cancellation
    /// It goes on in chunks of 5,000: dropped, it has forgotten a part.
    ///
    /// # Security
    /// It leaves no event of its own: let only those do it who may, and keep a record of it.
    pub async fn prune_before(&self, time: Timestamp) -> Result<u64, StoreError> {
        writer::forget_before(&*self.archive, time).await
    }

    /// Takes nothing more in: the writer writes what waits, and ends.
    pub fn close(&self) {
        self.backlog.close();
    }

    /// Flushes, and ends nothing: waits until what was recorded before is written, at most for `deadline`. What is recorded
    /// afterwards is taken all the same; [`close`](Self::close) ends that.
    ///
    /// # Errors
    /// [`Unflushed`] with the number of decisions that wait when the deadline has passed.
    ///
    /// # Cancellation
    /// Dropped, it changes nothing.
    pub fn shutdown(&self, deadline: Duration) -> impl Future<Output = Result<(), Unflushed>> + Send + use<> {
        let (flush, backlog) = (self.backlog.flush(), Arc::clone(&self.backlog));
        async move { flush_within(flush, &**backlog.clock(), deadline, || backlog.tally().queued).await }
    }
}

impl SqlHistoryBuilder {
    pub(super) fn new(archive: Arc<dyn Archive>) -> Self {
        Self {
            archive,
            capacity: 10_000,
            noise: None,
            noise_per_minute: 100,
            keep: Keep { noise: Some(7 * DAY), requests: Some(90 * DAY), acts: Some(730 * DAY) },
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How many events may wait, at least 2. Default 10,000, some 5 MiB.
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// How many of these places noise may take, less than the capacity. Default: a tenth. With zero all of it is
    /// summed up.
    pub fn noise(self, noise: usize) -> Self {
        Self { noise: Some(noise), ..self }
    }

    /// How many events of noise are written a minute, and how many reports of tokens that were only claimed, at least 1;
    /// more where somebody waits for a flush. Default 100 of each.
    pub fn noise_per_minute(self, events: usize) -> Self {
        Self { noise_per_minute: events, ..self }
    }

    /// For how long noise is kept: requests without a token, and also wrong secrets and revoked or expired tokens, for these
    /// prove nothing. Put a [`ThresholdSink`](crate::ThresholdSink) before, or keep it longer, where those must be traced. It
    /// counts if it is shorter than for other requests; `None` for as long as those. Default 7 days.
    pub fn keep_noise(self, time: Option<Duration>) -> Self {
        Self { keep: Keep { noise: time, ..self.keep }, ..self }
    }

    /// For how long requests and reports of sinks are kept, and applications after their token was proved last; `None` for ever. Default 90
    /// days.
    pub fn keep_requests(self, time: Option<Duration>) -> Self {
        Self { keep: Keep { requests: time, ..self.keep }, ..self }
    }

    /// For how long acts at the desk are kept; `None` for ever. Default two years.
    pub fn keep_acts(self, time: Option<Duration>) -> Self {
        Self { keep: Keep { acts: time, ..self.keep }, ..self }
    }

    /// The clock of pauses and deadlines, and of what is old. Default: the machine's.
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The history, and what is to be spawned.
    ///
    /// # Errors
    /// [`BuildError`] when the capacity is too small or leaves no place for proved events, and when no noise is written.
    pub fn build(self) -> Result<(SqlHistory, HistoryWriter), BuildError> {
        if self.capacity < 2 || self.noise_places() >= self.capacity {
            return Err(BuildError::AuditQueue);
        }
        at_least_one("SqlHistoryBuilder::noise_per_minute", self.noise_per_minute)?;
        Ok(self.build_unchecked())
    }

    fn noise_places(&self) -> usize {
        self.noise.unwrap_or(self.capacity / 10)
    }

    pub(super) fn build_unchecked(self) -> (SqlHistory, HistoryWriter) {
        let noise = self.noise_places();
        let Self { archive, capacity, noise_per_minute, keep, clock, .. } = self;
        let backlog = Arc::new(Backlog::new(clock, capacity - noise, noise));
        let writer = Writer::new(Arc::clone(&backlog), noise_per_minute);
        let writer = HistoryWriter::new(Arc::clone(&archive), writer, keep);
        (SqlHistory { archive, _open: Arc::new(Open(Arc::clone(&backlog))), backlog }, writer)
    }
}

impl AuditSink for SqlHistory {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.backlog.take_in(event.clone().into_owned())
    }

    fn tally(&self) -> Option<AuditTally> {
        Some(self.backlog.tally())
    }

    fn flush(&self) -> Flush {
        self.backlog.flush()
    }
}

impl fmt::Debug for SqlHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlHistory").field("tally", &self.backlog.tally()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SqlHistoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlHistoryBuilder").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Lets the writer end when the last handle goes.
struct Open(Arc<Backlog>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}
