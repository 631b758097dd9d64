//! Several sinks as one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;

use super::{AuditError, AuditEvent, AuditSink, AuditTally, Flush, Outcome, catch, guarded};

/// Gives each event to several sinks, in order.
///
/// All of them get it, also after one has failed or panicked; the first error is the answer. It can fail where one of them can.
///
/// # Example
/// ```
/// use tower_token_auth::{AuditHistory, AuditSink, FanOut, TracingSink};
///
/// let sink = FanOut::default().and(AuditHistory::new()).and(TracingSink::new());
/// assert!(!sink.can_fail());
/// ```
#[derive(Clone, Default)]
pub struct FanOut {
    sinks: Vec<Arc<dyn AuditSink>>,
    /// Decisions that sinks without a tally did not take.
    lost: Arc<AtomicU64>,
}

impl FanOut {
    /// All of these sinks.
    pub fn new(sinks: impl IntoIterator<Item = Arc<dyn AuditSink>>) -> Self {
        Self { sinks: sinks.into_iter().collect(), lost: Arc::default() }
    }
}

impl FanOut {
    fn record_in(&self, sink: &dyn AuditSink, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let recorded = catch(|| if sink.wants(event.outcome()) { sink.record(event) } else { Ok(()) });
        if recorded.is_err() && guarded(|| sink.tally().is_none()) == Some(true) {
            self.lost.fetch_add(event.decisions(), Ordering::Relaxed);
        }
        recorded
    }

    /// Also this sink, after the others.
    #[must_use]
    pub fn and(mut self, sink: impl AuditSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }
}

impl AuditSink for FanOut {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.sinks.iter().map(|sink| self.record_in(sink, event)).fold(Ok(()), Result::and)
    }

    fn wants(&self, outcome: Outcome) -> bool {
        self.sinks.iter().any(|sink| sink.wants(outcome))
    }

    fn can_fail(&self) -> bool {
        self.sinks.iter().any(|sink| sink.can_fail())
    }

    /// The sum over those that keep one, and what the others did not take: an event that goes to two queues counts twice,
    /// and so does one that a queue has written and a sink beside it has lost. `None` where nobody keeps a tally.
    fn tally(&self) -> Option<AuditTally> {
        let kept = self.sinks.iter().filter_map(|sink| sink.tally()).reduce(AuditTally::plus)?;
        Some(AuditTally { lost: kept.lost + self.lost.load(Ordering::Relaxed), ..kept })
    }

    fn flush(&self) -> Flush {
        let flushes = join_all(self.sinks.iter().map(|sink| sink.flush()));
        Box::pin(async move { drop(flushes.await) })
    }
}

impl fmt::Debug for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FanOut({} sinks)", self.sinks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::SampledSink;
    use crate::audit::fixtures::allowed;
    use crate::test_util::RecordingSink;

    #[test]
    fn what_a_sink_without_a_tally_does_not_take_is_lost_whoever_else_has_it() {
        let (kept, bare) = (RecordingSink::new(), RecordingSink::new());
        let counting = Arc::new(SampledSink::new(kept.clone()));
        let both = FanOut::new([Arc::new(bare.clone()) as Arc<dyn AuditSink>, counting]);
        let account = |sink: &FanOut| sink.tally().map(|tally| (tally.written, tally.lost));
        both.record(&allowed(1)).unwrap();
        assert_eq!(account(&both), Some((1, 0)));
        for break_it in [RecordingSink::fail_all, RecordingSink::panic_all] {
            break_it(&bare, true);
            assert!(both.clone().record(&allowed(1)).is_err());
            break_it(&bare, false);
        }
        assert_eq!((kept.events().len(), account(&both)), (3, Some((3, 2))));
        kept.fail_all(true);
        assert!(both.record(&allowed(1)).is_err());
        assert_eq!(account(&both), Some((3, 3)), "one that keeps a tally has counted it itself");
        assert_eq!(account(&FanOut::new([Arc::new(bare) as Arc<dyn AuditSink>])), None);
    }
}
