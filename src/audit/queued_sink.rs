//! A queue before a sink, so that no request waits for one that does I/O.
//!
//! One thread takes the events in turn and gives them to the sink within. What it has no time for is bounded, and
//! every decision is accounted for.
//!
//! # What it guarantees
//! * [`record`](AuditSink::record) waits for nothing but a short lock, however slow the sink within is.
//! * *Proved* events (about a token whose secret was checked, an act at the desk, a report of another sink) have places of
//!   their own. Events about anybody else are *noise*: they have a tenth of the places, and what finds none there is
//!   counted by action, outcome and reason, exactly, and written as one summary for each.
//! * Noise gets every eighth turn while proved events wait, and none while they take half of their places or more: it
//!   takes neither their places nor the time to empty them. Under such a load it waits, counted, for the load's end.
//!   Turns are taken some dozens at a time (at most 64, and a sixteenth of the places), with one in eight for noise.
//! * The first event after a lull is written at once; what follows, within 5 ms of the time at which the sink within
//!   has written what came before: the thread rests as long, unless a quarter of the places of either kind is taken,
//!   a report of a loss is asked for, somebody waits for a flush, or the last handle goes. An idle queue sleeps.
//! * A proved event that finds no place is lost, and [`record`](AuditSink::record) says so:
//!   [`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse) then refuses the request.
//! * So is, while the sink within fails, every event of something about to happen. What was taken in before that was
//!   known is lost all the same: taken in is not yet written.
//! * Losses are counted, and reported to the sink within as an event of their own
//!   ([`Action::ReportLoss`](crate::Action::ReportLoss)) once it writes again.
//! * Events of one kind are written in their order.
//!
//! # When things fail
//! | the sink within | what happens |
//! |---|---|
//! | is slow | the queue fills; then proved events are lost and noise is summed up |
//! | answers an error, or panics | the event is lost (of several at once the first that it has not [recorded](crate::AuditBatch)), and the sink is told of the loss at once. If it does not take that either, it *fails*: what is about to happen (allowed, passed, would be forbidden) is not taken in, and each such event has the thread try that report again; other events are tried as ever. The first thing that the sink takes ends this, so one request may still be refused after it is well |
//! | hangs | as slow; its thread can not be ended, only left |
//!
//! # Cost
//! An owned copy of the event (3 to 5 small allocations) and a mutex: some 350 ns on the thread that records. Under load
//! the thread of the queue is woken some two hundred times a second, and not for each event; with a `JsonLinesSink` within
//! an event takes it some 600 ns, with the write. A full queue of the default size holds some 5 MiB; up to 512 events that
//! are written already wait to be dropped by those who record.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::queue::Queue;
use super::tally::{AuditTally, Flush, Unflushed, flush_within};
use super::{AuditError, AuditEvent, AuditSink, Outcome};
use crate::clock::{Clock, SystemClock};
use crate::config::BuildError;

/// A bounded queue before a sink, with a thread of its own. A clone is another handle to the same queue.
///
/// When the last handle is gone, the thread writes what is left and ends. A process that ends earlier loses it: call
/// [`shutdown`](Self::shutdown), or [`AuthHandle::shutdown`](crate::AuthHandle::shutdown), first.
///
/// It can be required to record ([`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse)) where the sink within can
/// fail, such as `JsonLinesSink`. Before a [`TracingSink`](crate::TracingSink) it can not: nobody would know what was
/// dropped behind it.
///
/// # Example
/// ```
/// use tower_token_auth::{MemoryStore, QueuedSink, TokenAuthLayer, TracingSink};
///
/// let queue = QueuedSink::builder(TracingSink::new()).capacity(50_000).build()?;
/// let auth = TokenAuthLayer::builder(MemoryStore::new()).audit(queue.clone()).build()?;
/// # Ok::<(), tower_token_auth::BuildError>(())
/// ```
#[derive(Clone)]
pub struct QueuedSink {
    queue: Arc<Queue>,
    _open: Arc<Open>,
}

/// Configures a [`QueuedSink`].
#[must_use = "a builder does nothing until it is built"]
pub struct QueuedSinkBuilder {
    inner: Arc<dyn AuditSink>,
    capacity: usize,
    noise: Option<usize>,
    clock: Arc<dyn Clock>,
}

impl QueuedSink {
    /// A queue of 10,000 events before `inner`.
    ///
    /// # Errors
    /// [`BuildError::Thread`] when the system has no thread to give.
    pub fn new(inner: impl AuditSink) -> Result<Self, BuildError> {
        Self::builder(inner).build()
    }

    /// A queue before `inner`, to be configured.
    pub fn builder(inner: impl AuditSink) -> QueuedSinkBuilder {
        QueuedSinkBuilder { inner: Arc::new(inner), capacity: 10_000, noise: None, clock: Arc::new(SystemClock::new()) }
    }

    /// Waits until what was recorded before is written, at most for `deadline`. What is recorded afterwards is taken
    /// all the same, and goes first where it is proved: noise is waited for until they leave it a turn.
    ///
    /// # Errors
    /// [`Unflushed`] with the number of decisions that wait when the deadline has passed.
    ///
    /// # Cancellation
    /// Dropped, it changes nothing.
    pub fn shutdown(&self, deadline: Duration) -> impl Future<Output = Result<(), Unflushed>> + Send + use<> {
        let (flush, queue) = (self.flush(), Arc::clone(&self.queue));
        async move { flush_within(flush, queue.clock(), deadline, || queue.tally().queued).await }
    }
}

impl QueuedSinkBuilder {
    /// How many events may wait, at least 2. Default 10,000.
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// How many of these places noise may take, less than the capacity. Default: a tenth. With zero all of it is
    /// summed up.
    pub fn noise(self, noise: usize) -> Self {
        Self { noise: Some(noise), ..self }
    }

    /// The clock of deadlines. Default: the machine's.
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The queue, with its thread.
    ///
    /// # Errors
    /// [`BuildError`] when the capacity is too small or leaves no place for proved events, and when the system has no
    /// thread to give.
    pub fn build(self) -> Result<QueuedSink, BuildError> {
        let Self { inner, capacity, noise, clock } = self;
        let noise = noise.unwrap_or(capacity / 10);
        if capacity < 2 || noise >= capacity {
            return Err(BuildError::AuditQueue);
        }
        let queue = Arc::new(Queue::new(inner, clock, capacity - noise, noise));
        let worker = Arc::clone(&queue);
        let thread = thread::Builder::new().name("token-auth-audit".to_owned());
        thread.spawn(move || worker.work()).map_err(BuildError::Thread)?;
        Ok(QueuedSink { _open: Arc::new(Open(Arc::clone(&queue))), queue })
    }
}

impl AuditSink for QueuedSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.queue.take_in(event.clone().into_owned())
    }

    fn wants(&self, outcome: Outcome) -> bool {
        self.queue.inner().wants(outcome)
    }

    /// As the sink within. That the queue itself can be full is not enough to require anything of it: what the sink
    /// within drops in silence would count as recorded.
    fn can_fail(&self) -> bool {
        self.queue.inner().can_fail()
    }

    /// What a [`SampledSink`](crate::SampledSink) within has only counted is not counted as written. Behind a second
    /// queue, what that one has taken in is.
    fn tally(&self) -> Option<AuditTally> {
        Some(self.queue.tally())
    }

    fn flush(&self) -> Flush {
        self.queue.flush()
    }
}

impl fmt::Debug for QueuedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedSink").field("tally", &self.queue.tally()).finish_non_exhaustive()
    }
}

impl fmt::Debug for QueuedSinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedSinkBuilder").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Lets the thread end when the last handle goes.
struct Open(Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}
