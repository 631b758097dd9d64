//! Events that are recorded together.

use super::AuditEvent;
use super::places::Event;

/// Events to be recorded in their order, and how many of them have been: what [`AuditSink::record_batch`] is given.
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
    pub fn left(&self) -> impl ExactSizeIterator<Item = &'b AuditEvent<'static>> + use<'b> {
        self.left.iter().map(|event| &**event)
    }

    /// The next so many events have been recorded: they will not be given to the sink again.
    pub fn recorded(&mut self, events: usize) {
        self.left = self.left.get(events..).unwrap_or_default();
    }
}
