//! The gate's and the desk's way to a sink.

use std::fmt;
use std::sync::Arc;

use super::outage::Outage;
use super::{AuditError, AuditEvent, AuditSink, AuditStats, Flush, Outcome, catch, guarded};
use crate::count::Count;

/// Catches a sink's panics, counts and logs its failures. A clone shares the counts.
#[derive(Clone)]
pub(crate) struct Recorder {
    sink: Arc<dyn AuditSink>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Each event counts once: here, or below.
    heard: Count,
    unheard: Count,
    failed: Count,
    outage: Outage,
}

impl Recorder {
    pub(crate) fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self { sink, counts: Arc::default() }
    }

    pub(crate) fn can_fail(&self) -> bool {
        self.sink.can_fail()
    }

    /// Records the event that `make` makes, where anybody listens; `false` where that failed.
    #[inline(always)]
    pub(crate) fn record<'a>(&self, outcome: Outcome, make: impl FnOnce() -> AuditEvent<'a>) -> bool {
        // A sink that cannot say whether it listens is taken at its word when it is given something.
        if !guarded(|| self.sink.wants(outcome)).unwrap_or(true) {
            self.counts.unheard.up();
            return true;
        }
        self.hand_over(make)
    }

    #[inline(never)]
    fn hand_over<'a>(&self, make: impl FnOnce() -> AuditEvent<'a>) -> bool {
        self.counts.heard.up();
        let recorded = catch(|| {
            let event = make();
            self.sink.record(&event)?;
            // A queue always has room for noise: that it was recorded says nothing of an outage.
            if !event.is_anonymous() {
                self.counts.outage.succeeded();
            }
            Ok(())
        });
        let Err(error) = recorded else { return true };
        // Its cause is somebody else's: it may panic even when it is dropped.
        guarded(move || self.counts.failed(&error));
        false
    }

    pub(crate) fn stats(&self) -> AuditStats {
        let unheard = self.counts.unheard.read();
        let events = self.counts.heard.read().wrapping_add(unheard);
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
    fn failed(&self, error: &AuditError) {
        self.failed.up();
        if let Some(failures) = self.outage.failed() {
            tracing::error!(cause = error.cause(), failures, "an audit event was not recorded");
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;
    use std::io;
    use std::panic::resume_unwind;
    use std::sync::Mutex;

    use super::*;
    use crate::audit::fixtures::{allowed, anonymous};

    /// Fails for proved events, as a full queue does, with a cause of its own.
    struct Full<E>(fn() -> E);

    impl<E: StdError + Send + Sync + 'static> AuditSink for Full<E> {
        fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
            if event.is_anonymous() { Ok(()) } else { Err(AuditError::new((self.0)())) }
        }
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written to the log meanwhile.
    fn logged(run: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn noise_that_is_recorded_ends_no_outage() {
        let recorder = Recorder::new(Arc::new(Full(|| std::fmt::Error)));
        let text = logged(|| {
            for _ in 0..100 {
                assert!(!recorder.record(Outcome::Allowed, || allowed(1)));
                assert!((0..1_000).all(|_| recorder.record(Outcome::Refused, anonymous)));
            }
        });
        assert_eq!(text.matches("an audit event was not recorded").count(), 7, "1, 2, 4, 8, 16, 32, 64");
        assert_eq!(recorder.stats().lost, 100);
    }

    /// Panics in every way it has.
    #[derive(Debug)]
    struct Vicious;

    impl fmt::Display for Vicious {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            resume_unwind(Box::new("shown"))
        }
    }

    impl Drop for Vicious {
        fn drop(&mut self) {
            resume_unwind(Box::new("dropped"))
        }
    }

    impl StdError for Vicious {}

    #[test]
    fn a_cause_that_panics_is_a_failure_like_any_other() {
        let recorder = Recorder::new(Arc::new(Full(|| Vicious)));
        let text = logged(|| {
            assert!(!recorder.record(Outcome::Allowed, || allowed(1)));
            assert!(recorder.record(Outcome::Refused, anonymous), "and the next is recorded");
        });
        assert!(text.contains("an audit event was not recorded"), "{text}");
        assert!(text.contains("a cause that panics when it is shown"), "{text}");
        assert_eq!(recorder.stats(), AuditStats::settled(2, 0, 1));
    }
}
