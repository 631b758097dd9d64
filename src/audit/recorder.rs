//! The gate's and the desk's way to a sink.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AuditEvent, AuditSink, AuditStats, Flush, Outcome, catch};
use crate::count::Count;

/// Catches a sink's panics, counts and logs its failures. A clone shares the counts.
#[derive(Clone)]
pub(crate) struct Recorder {
    sink: Arc<dyn AuditSink>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    events: Count,
    unheard: Count,
    failed: Count,
    /// Failures since the last success.
    failing: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self { sink, counts: Arc::default() }
    }

    pub(crate) fn can_fail(&self) -> bool {
        self.sink.can_fail()
    }

    /// Records the event that `make` makes, where anybody listens; `false` where that failed.
    pub(crate) fn record<'a>(&self, outcome: Outcome, make: impl FnOnce() -> AuditEvent<'a>) -> bool {
        self.counts.events.up();
        let recorded = catch(|| {
            if self.sink.wants(outcome) {
                return self.sink.record(&make());
            }
            self.counts.unheard.up();
            Ok(())
        });
        match &recorded {
            Ok(()) => self.counts.succeeded(),
            Err(error) => self.counts.failed(error),
        }
        recorded.is_ok()
    }

    pub(crate) fn stats(&self) -> AuditStats {
        let (events, unheard) = (self.counts.events.read(), self.counts.unheard.read());
        let lost = self.counts.failed.read();
        match self.sink.tally() {
            Some(tally) => AuditStats::tallied(events, unheard, tally),
            None => AuditStats::settled(events, unheard, lost),
        }
    }

    pub(crate) fn flush(&self) -> Flush {
        self.sink.flush()
    }
}

impl Counts {
    fn succeeded(&self) {
        // Written only when it changes: all cores read it for every event.
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.failing.store(0, Ordering::Relaxed);
        }
    }

    /// An outage is told of once, and then at each doubling: a log that grows with every request would be the next one.
    fn failed(&self, error: &super::AuditError) {
        self.failed.up();
        let failing = self.failing.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failing.is_power_of_two() {
            tracing::error!(cause = error.0.to_string(), in_a_row = failing, "an audit event was not recorded");
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}
