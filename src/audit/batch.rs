//! Events that are recorded together.

use super::AuditEvent;
use super::places::Event;

/// Events to be recorded in their order, and how many of them have been: what [`AuditSink::record_batch`] is given.
///
/// # Example
/// A sink whose service takes many events in one call, all of them or none. An error loses one event, so such a sink is
/// called once more for those that are left:
/// ```
/// use tower_token_auth::{AuditBatch, AuditError, AuditEvent, AuditSink};
///
/// struct Collector;
///
/// impl Collector {
///     fn send(&self, lines: Vec<String>) -> Result<(), std::io::Error> {
///         // …
/// #       drop(lines);
///         Ok(())
///     }
/// }
///
/// impl AuditSink for Collector {
///     fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
///         self.send(vec![event.outcome().to_string()]).map_err(AuditError::new)
///     }
///
///     fn record_batch(&self, batch: &mut AuditBatch<'_>) -> Result<(), AuditError> {
///         let lines = batch.left().map(|event| event.outcome().to_string()).collect();
///         self.send(lines).map_err(AuditError::new)
///     }
/// }
/// ```
///
/// [`AuditSink::record_batch`]: crate::AuditSink::record_batch
#[derive(Debug)]
pub struct AuditBatch<'b> {
    left: &'b [Event],
}

impl<'b> AuditBatch<'b> {
    pub(super) const fn new(events: &'b [Event]) -> Self {
        Self { left: events }
    }

    /// The events that are still to be recorded, in their order.
    #[must_use]
    pub fn left(&self) -> impl ExactSizeIterator<Item = &'b AuditEvent<'static>> + use<'b> {
        self.left.iter().map(|event| &**event)
    }

    /// The next so many events have been recorded: they will not be given to the sink again. More than are left count as
    /// all.
    pub fn recorded(&mut self, events: usize) {
        self.left = self.left.get(events..).unwrap_or_default();
    }
}
