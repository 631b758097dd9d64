//! The future that writes.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};

use super::archive::Archive;
use super::statements::{BatchKey, CHUNK, Forget};
use crate::audit::{AuditEvent, Writer};
use crate::clock::{Clock, Timestamp};
use crate::decision::StoreError;
use crate::id::TokenId;
use crate::store::sql::error::is_of_data;
use crate::text::Causes;

type Event = Box<AuditEvent<'static>>;

/// How long a database may take for a batch. What comes of it later is known by its key.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait after the first failure; twice as long after each other one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(30);
/// How often to forget.
const HOUR: Duration = Duration::from_secs(3600);
/// How long the last batch of a writer is known: longer than any is tried.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Writes what a [`SqlHistory`](crate::SqlHistory) takes in: spawn it. It ends when the last handle is gone, or
/// [closed](crate::SqlHistory::close), and what is left is written.
///
/// # Cancellation
/// Dropped before, it loses what is left, which is counted, and nothing more is taken in. A batch under way is written
/// whole or not at all, and counted as lost either way.
#[must_use = "nothing is written unless it is spawned"]
pub struct HistoryWriter(BoxFuture<'static, ()>);

/// For how long what is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) noise: Option<Duration>,
    pub(super) requests: Option<Duration>,
    pub(super) acts: Option<Duration>,
}

impl HistoryWriter {
    pub(super) fn new(archive: Arc<dyn Archive>, writer: Writer, keep: Keep) -> Self {
        let clock = Arc::clone(writer.backlog().clock());
        Self(Box::pin(async move {
            let forgetting = pin!(forget(&*archive, &*clock, keep));
            let writing = pin!(write(&*archive, &*clock, writer));
            select(writing, forgetting).await;
        }))
    }
}

impl Future for HistoryWriter {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for HistoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryWriter").finish_non_exhaustive()
    }
}

async fn write(archive: &dyn Archive, clock: &dyn Clock, mut writer: Writer) {
    let mut scribe = Scribe { archive, clock, id: None, number: 0 };
    while let Some(mut batch) = writer.batch().await {
        // Halved until what is never to be written is found: it keeps none waiting that come after it.
        let mut parts = vec![std::mem::take(&mut batch.events)];
        while let Some(mut part) = parts.pop() {
            match scribe.write(&writer, &part).await {
                Ok(()) => batch.events.append(&mut part),
                Err(error) if part.len() < 2 => part.iter().for_each(|event| writer.rejected(event, &Causes(&error))),
                Err(_) => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
            }
        }
        writer.written(batch);
    }
}

/// Writes down, and knows which batch is whose.
struct Scribe<'a> {
    archive: &'a dyn Archive,
    clock: &'a dyn Clock,
    id: Option<TokenId>,
    number: u64,
}

impl Scribe<'_> {
    /// As often as it takes. A key stays with what is written: a commit whose answer was lost is not made twice.
    ///
    /// # Errors
    /// What the database objects to in the events themselves; it has written none of them.
    async fn write(&mut self, writer: &Writer, events: &[Event]) -> Result<(), StoreError> {
        self.number += 1;
        let mut wait = FIRST_WAIT;
        while let Err(error) = self.append(events).await {
            if is_of_data(&error) {
                return Err(error);
            }
            writer.failed(&Causes(&error));
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
        Ok(())
    }

    async fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let writer = match self.id {
            Some(known) => known,
            None => *self.id.insert(TokenId::generate().map_err(StoreError::new)?),
        };
        let key = BatchKey { writer, number: self.number, at: self.clock.wall() };
        match select(self.archive.append(key, events), self.clock.sleep(PATIENCE)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(StoreError::late(PATIENCE)),
        }
    }
}

/// A life of forgetting.
async fn forget(archive: &dyn Archive, clock: &dyn Clock, keep: Keep) {
    loop {
        if let Err(error) = forget_once(archive, clock.wall(), keep).await {
            tracing::warn!(cause = %Causes(&error), "old audit events were not forgotten");
        }
        clock.sleep(HOUR).await;
    }
}

async fn forget_once(archive: &dyn Archive, now: Timestamp, keep: Keep) -> Result<(), StoreError> {
    for (what, keep) in [(Forget::Noise, keep.noise), (Forget::Requests, keep.requests), (Forget::Acts, keep.acts)] {
        if let Some(time) = keep {
            forget_all(archive, what, now - time).await?;
        }
    }
    if let Some(time) = keep.requests {
        forget_applications(archive, now - time).await?;
    }
    let writers = archive.statements().forget(Forget::Writers, now - MONTH);
    archive.change(writers).await.map(drop)
}

/// All events of before that time, and the applications of tokens that were not proved since.
pub(super) async fn forget_before(archive: &dyn Archive, time: Timestamp) -> Result<u64, StoreError> {
    let requests = forget_all(archive, Forget::Requests, time).await?;
    let acts = forget_all(archive, Forget::Acts, time).await?;
    forget_applications(archive, time).await?;
    Ok(requests + acts)
}

/// A token goes after its applications, unless it has come back meanwhile.
async fn forget_applications(archive: &dyn Archive, time: Timestamp) -> Result<(), StoreError> {
    loop {
        let gone = archive.change(archive.statements().forget(Forget::Applications, time)).await?;
        archive.change(archive.statements().forget(Forget::Tokens, time)).await?;
        if gone == 0 {
            return Ok(());
        }
    }
}

async fn forget_all(archive: &dyn Archive, what: Forget, time: Timestamp) -> Result<u64, StoreError> {
    let mut forgotten = 0;
    loop {
        let gone = archive.change(archive.statements().forget(what, time)).await?;
        forgotten += gone;
        if gone < CHUNK {
            return Ok(forgotten);
        }
    }
}
