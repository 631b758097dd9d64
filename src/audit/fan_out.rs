//! Several sinks as one.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{AuditError, AuditEvent, AuditSink, AuditTally, Flush, Outcome};

/// Gives each event to several sinks, in order.
///
/// All of them get it, also after one has failed or panicked; the first error is the answer. It can fail where one of them can.
///
/// An event tells the decision, not the answer. Under [`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse) an allowed
/// request becomes a 503 when one sink does not take its event, and the others keep an event that says *allowed*,
/// whatever the order: what is required of one sink is proved by that one alone.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use tower_token_auth::{AuditSink, FanOut, NoAudit, TracingSink};
///
/// let sink = FanOut::new([Arc::new(TracingSink::new()) as Arc<dyn AuditSink>, Arc::new(NoAudit::new())]);
/// assert!(!sink.can_fail());
/// ```
#[derive(Clone)]
pub struct FanOut(Vec<Arc<dyn AuditSink>>);

impl FanOut {
    /// All of these sinks.
    pub fn new(sinks: impl IntoIterator<Item = Arc<dyn AuditSink>>) -> Self {
        Self(sinks.into_iter().collect())
    }
}

impl AuditSink for FanOut {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let wanting = self.0.iter().filter(|sink| sink.wants(event.outcome()));
        wanting.map(|sink| super::catch(|| sink.record(event))).fold(Ok(()), Result::and)
    }

    fn wants(&self, outcome: Outcome) -> bool {
        self.0.iter().any(|sink| sink.wants(outcome))
    }

    fn can_fail(&self) -> bool {
        self.0.iter().any(|sink| sink.can_fail())
    }

    /// The sum over those that keep one: an event that goes to two queues counts twice.
    fn tally(&self) -> Option<AuditTally> {
        self.0.iter().filter_map(|sink| sink.tally()).reduce(AuditTally::plus)
    }

    fn flush(&self) -> Flush {
        let flushes = join_all(self.0.iter().map(|sink| sink.flush()));
        Box::pin(async move { drop(flushes.await) })
    }
}

impl fmt::Debug for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FanOut({} sinks)", self.0.len())
    }
}
