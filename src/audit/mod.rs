//! What happened, told once: events and the sinks that take them.
//!
//! Every decision of a gate and every act at the desk is one [`AuditEvent`], given to one [`AuditSink`] on the thread
//! that decided, before the inner service runs. Text that a caller chose (path, user agent, request id) is capped and
//! cleaned when the event is made: a sink can print it as it is.
//!
//! A request whose client leaves before the decision has had none; its event says so ([`Outcome::Abandoned`]).
//!
//! An event is *recorded* when its sink has answered `Ok`. What that is worth depends on the sink: one that writes at
//! once has written it, a [`QueuedSink`] has taken it in and will write it, [`TracingSink`] has passed it to subscribers
//! that may drop it.
//!
//! # Which sinks
//! | sink | for |
//! |---|---|
//! | [`TracingSink`] | the application's own log; the default |
//! | `JsonLinesSink` | a file that other programs ship and archive |
//! | [`AuditHistory`] | people who ask what happened lately |
//! | `SqlHistory` | people who ask what happened, in any process and before the last restart |
//! | [`QueuedSink`] | before a sink that does I/O |
//! | [`SampledSink`] | before a queue, where busy tokens would fill it |
//! | [`ThresholdSink`] | before all others, to be told of guessing |
//! | [`FanOut`], [`NoAudit`] | several, none |
//!
//! # When things fail
//! | the sink | the request |
//! |---|---|
//! | records | goes on as decided |
//! | answers an error, or panics | goes on as decided under [`OnAuditFailure::Continue`]; under [`OnAuditFailure::Refuse`] an admitted request becomes a 503 before the inner service runs |
//! | is slow | is as slow: a sink that does I/O belongs behind a [`QueuedSink`] |
//!
//! A loss is counted ([`AuditStats`]) and logged: the first one, and then at each doubling, until 1,000 events about
//! proved tokens and acts at the desk have been recorded in a row.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod backlog;
mod batch;
mod event;
mod fan_out;
#[cfg(test)]
pub(crate) mod fixtures;
mod history;
mod intake;
#[cfg(feature = "json")]
mod json_lines_sink;
mod outage;
mod places;
mod queue;
mod queued_sink;
mod recent;
mod recorder;
mod sampled_sink;
mod tally;
mod threshold_sink;
mod tracing_sink;

use std::error::Error as StdError;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use backlog::{Backlog, Writer};
pub use batch::AuditBatch;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use event::Repeated;
pub use event::{Action, AuditEvent, Outcome};
pub(crate) use event::{Edit, RequestFacts, Subject};
pub use fan_out::FanOut;
pub use history::{
    ApplicationFilter, ApplicationPage, ApplicationSeen, AuditHistory, AuditHistoryBuilder, HistoryCursor,
    HistoryError, HistoryFilter, HistoryPage, TokenApplications, UserAgent,
};
#[cfg(feature = "json")]
pub use json_lines_sink::JsonLinesSink;
pub use queued_sink::{QueuedSink, QueuedSinkBuilder};
pub(crate) use recorder::Recorder;
pub use sampled_sink::{SampledSink, SampledSinkBuilder};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use tally::flush_within;
pub use tally::{AuditStats, AuditTally, Flush, Unflushed};
pub use threshold_sink::{ThresholdSink, ThresholdSinkBuilder};
pub use tracing_sink::TracingSink;

/// Takes audit events.
///
/// An implementor *must* return quickly (it runs on the request's thread), *must* answer an error rather than drop an
/// event in silence, *must* take a [report](Action::is_report) as it takes any event (a [`QueuedSink`] finds out with
/// one whether a sink that failed is well again), and *may* panic: that counts as an error.
pub trait AuditSink: Send + Sync + 'static {
    /// Records one event.
    ///
    /// # Errors
    /// [`AuditError`] when the event is not recorded.
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError>;

    /// Records several events in their order, up to the first that is not recorded. A [`QueuedSink`] gives a sink what
    /// waits, some dozens of events at a time.
    ///
    /// For a sink that is better off with several at once, such as one that writes to a file. The others need not care:
    /// without a method of their own each event goes to [`record`](Self::record).
    ///
    /// An implementor *must* tell the batch what [has been recorded](AuditBatch::recorded) as soon as that is certain,
    /// and before it answers an error: then those are on record, the next one is lost, and those after it are given to
    /// the sink again. The same goes for a panic. `Ok` says that all are recorded.
    ///
    /// # Errors
    /// [`AuditError`] when the first of those that are left is not recorded.
    fn record_batch(&self, batch: &mut AuditBatch<'_>) -> Result<(), AuditError> {
        for event in batch.left() {
            self.record(event)?;
            batch.recorded(1);
        }
        Ok(())
    }

    /// Whether anybody listens for events of this outcome. `false` spares the gate from making the event; it counts
    /// as recorded.
    fn wants(&self, outcome: Outcome) -> bool {
        let _ = outcome;
        true
    }

    /// Whether this sink tells what it has not recorded, by an error. One that does not cannot be required to record:
    /// `build()` refuses it together with [`OnAuditFailure::Refuse`].
    fn can_fail(&self) -> bool {
        true
    }

    /// What became of the events this sink was given, where it does not settle them before
    /// [`record`](Self::record) returns.
    fn tally(&self) -> Option<AuditTally> {
        None
    }

    /// Resolves when every event that was recorded before this call is written, or counted as lost. At once, for a sink
    /// that keeps none back.
    fn flush(&self) -> Flush {
        Box::pin(ready(()))
    }
}

impl<T: AuditSink + ?Sized> AuditSink for Arc<T> {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        T::record(self, event)
    }

    fn record_batch(&self, batch: &mut AuditBatch<'_>) -> Result<(), AuditError> {
        T::record_batch(self, batch)
    }

    fn wants(&self, outcome: Outcome) -> bool {
        T::wants(self, outcome)
    }

    fn can_fail(&self) -> bool {
        T::can_fail(self)
    }

    fn tally(&self) -> Option<AuditTally> {
        T::tally(self)
    }

    fn flush(&self) -> Flush {
        T::flush(self)
    }
}

/// What becomes of an admitted request whose event cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnAuditFailure {
    /// It goes on; the loss is logged.
    #[default]
    Continue,
    /// It is answered 503 before the inner service runs: nothing happens that the sink has not answered for. Behind a
    /// [`QueuedSink`] that is a place in the queue, and no sign that the sink within fails.
    Refuse,
}

/// A sink that records nothing and costs nothing.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoAudit;

impl NoAudit {
    /// The sink; it has no options.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl AuditSink for NoAudit {
    fn record(&self, _: &AuditEvent<'_>) -> Result<(), AuditError> {
        Ok(())
    }

    fn wants(&self, _: Outcome) -> bool {
        false
    }

    fn can_fail(&self) -> bool {
        false
    }
}

/// An event was not recorded. Opaque: the cause is its [`source`](StdError::source).
#[derive(Debug)]
pub struct AuditError(Box<dyn StdError + Send + Sync>);

impl AuditError {
    /// An error with its cause.
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(cause.into())
    }

    /// The cause in words, for a log.
    fn cause(&self) -> String {
        guarded(|| self.0.to_string()).unwrap_or_else(|| "a cause that panics when it is shown".to_owned())
    }
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the audit event was not recorded")
    }
}

impl StdError for AuditError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

/// A sink's panic becomes an error: it must not take the request down, nor other sinks' events with it.
fn catch(record: impl FnOnce() -> Result<(), AuditError>) -> Result<(), AuditError> {
    guarded(record).unwrap_or_else(|| Err(AuditError::new("the audit sink panicked")))
}

/// Runs what others have made; `None` where it panics.
fn guarded<T>(theirs: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(theirs)).ok()
}
