//! What stands between the requests and the thread that writes.

use std::sync::{Arc, Condvar, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::AuditBatch;
use super::intake::{Intake, State, Wake};
use super::outage::Outage;
use super::places::Event;
use super::{AuditError, AuditEvent, AuditSink, AuditTally, Flush, catch, guarded};
use crate::clock::Clock;

/// For so long the thread rests when it has written what there was. Whoever records meanwhile does not wake it, which
/// costs a system call and the processor of the request: under load it wakes some two hundred times a second, and not for
/// each event. Not by the clock that is configured: one that stands still must not keep events back.
const NAP: Duration = Duration::from_millis(5);

/// What the handles and the thread share.
pub(super) struct Queue {
    inner: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    intake: Intake,
    wake: Condvar,
    nap: Duration,
    outage: Outage,
}

impl Queue {
    pub(super) fn new(inner: Arc<dyn AuditSink>, clock: Arc<dyn Clock>, proved: usize, noise: usize) -> Self {
        let (intake, wake) = (Intake::new(proved, noise), Condvar::new());
        Self { inner, clock, intake, wake, nap: NAP, outage: Outage::default() }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn inner(&self) -> &dyn AuditSink {
        &*self.inner
    }

    /// Lets the thread end when there is nothing left.
    pub(super) fn close(&self) {
        self.intake.lock().close();
        self.wake.notify_all();
    }

    pub(super) fn take_in(&self, event: AuditEvent<'static>) -> Result<(), AuditError> {
        let (taken, wakes) = self.intake.take_in(event);
        if wakes {
            self.wake.notify_one();
        }
        taken
    }

    pub(super) fn tally(&self) -> AuditTally {
        let tally = self.intake.tally();
        // What the sink within took and only counted was not written.
        let sampled = self.inner.tally().map_or(0, |inner| inner.sampled).min(tally.written);
        AuditTally { written: tally.written - sampled, sampled, ..tally }
    }

    /// Waits for the thread, which is not to rest meanwhile, and then for the sink within.
    pub(super) fn flush(&self) -> Flush {
        let (written, inner) = (self.intake.flush(), Arc::clone(&self.inner));
        self.wake.notify_one();
        Box::pin(async move {
            written.await;
            inner.flush().await;
        })
    }

    /// The thread's life. No panic of what others have made ends it: neither the sink's, nor the clock's, nor that of who
    /// is woken.
    pub(super) fn work(&self) {
        let mut events = Vec::new();
        while self.next(&mut events) {
            self.work_off(&mut events);
            events.clear();
        }
    }

    /// Waits for something to do; `false` once there is nothing and no handle is left. A nap first: where one event came,
    /// others follow. An idle queue sleeps until it is woken.
    fn next(&self, events: &mut Vec<Event>) -> bool {
        let mut state = self.intake.lock();
        let mut wakes = [Wake::Crowd, Wake::Anything].into_iter();
        loop {
            if state.places.take_several(events) {
                return true;
            }
            if state.is_closed() {
                return false;
            }
            state = self.sleep(state, wakes.next().unwrap_or(Wake::Anything));
        }
    }

    fn sleep<'s>(&self, mut state: MutexGuard<'s, State>, until: Wake) -> MutexGuard<'s, State> {
        state.sleep_until(until);
        let mut state = match until {
            Wake::Crowd => self.wake.wait_timeout(state, self.nap).unwrap_or_else(PoisonError::into_inner).0,
            _ => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.awake();
        state
    }

    /// Gives the sink within what was taken, and goes on after each event that is lost: what is known then about the
    /// sink is known at once to whoever records.
    fn work_off(&self, events: &mut Vec<Event>) {
        let (wrote, mut left) = (!events.is_empty(), &**events);
        loop {
            let (written, failure) = self.write(left);
            let (some, rest) = (!written.is_empty(), left.get(written.len() + 1..).unwrap_or_default());
            // What was written before a failure says nothing of the sink as it is after it.
            let clean = failure.is_none();
            let works = guarded(|| self.account_for(failure)).unwrap_or(false) || (clean && some);
            if rest.is_empty() {
                return self.intake.settle(|state| {
                    state.learn(wrote, works);
                    state.hand_back(events);
                });
            }
            self.intake.lock().learn(wrote, works);
            left = rest;
        }
    }

    /// Writes events up to the first that is lost; gives those before it, and why it is.
    fn write<'e>(&self, events: &'e [Event]) -> (&'e [Event], Option<AuditError>) {
        let mut batch = AuditBatch::new(events);
        let recorded = if events.is_empty() { Ok(()) } else { catch(|| self.inner.record_batch(&mut batch)) };
        let left = if recorded.is_ok() { 0 } else { batch.left().len() };
        let (written, left) = events.split_at(events.len() - left);
        self.intake.accounts.written(written);
        written.iter().filter(|event| !event.is_anonymous()).for_each(|_| self.outage.succeeded());
        self.intake.accounts.lose(left.first().map_or(0, |lost| lost.decisions()));
        (written, recorded.err())
    }

    /// Tells of what was lost; `false` where the sink within does not take the report.
    fn account_for(&self, failure: Option<AuditError>) -> bool {
        if let Some(error) = failure {
            self.log(&error);
        }
        self.report_loss()
    }

    fn log(&self, error: &AuditError) {
        if let Some(failures) = self.outage.failed() {
            let lost = self.intake.tally().lost;
            tracing::error!(cause = error.cause(), failures, lost, "audit events were not written");
        }
    }

    /// Tells the sink within what is missing; `false` where it does not take that. It is told the next time.
    fn report_loss(&self) -> bool {
        let Some(report) = self.intake.accounts.report(|| self.clock.wall()) else { return true };
        let recorded = catch(|| self.inner.record(&report)).is_ok();
        if recorded {
            self.intake.accounts.reported(report.count());
        }
        recorded
    }
}

#[cfg(test)]
mod tests;
