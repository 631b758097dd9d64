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
/// costs a system call and the processor of the request: under load it wakes some hundred times a second, and not for
/// each event.
const NAP: Duration = Duration::from_millis(2);

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
            let works = guarded(|| self.account_for(failure)).unwrap_or(false) || some;
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
mod tests {
    use std::panic::resume_unwind;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::audit::fixtures::{allowed, anonymous, desk, forbidden, would_forbid};
    use crate::audit::{Action, Outcome, SampledSink};
    use crate::clock::{Monotonic, Sleep, SystemClock, Timestamp};
    use crate::decision::Reason;
    use crate::test_util::{RecordedEvent, RecordingSink};

    fn queue(inner: impl AuditSink, proved: usize, noise: usize) -> Queue {
        Queue::new(Arc::new(inner), Arc::new(SystemClock::new()), proved, noise)
    }

    impl Queue {
        /// What the thread does in one turn; `false` where there is nothing to do.
        fn step(&self) -> bool {
            let mut events = Vec::new();
            let found = self.intake.lock().places.take_several(&mut events);
            if found {
                self.work_off(&mut events);
            }
            found
        }

        fn drain(&self) {
            while self.step() {}
        }

        /// Written, coalesced, sampled, lost, queued.
        fn accounts(&self) -> [u64; 5] {
            let tally = self.tally();
            [tally.written, tally.coalesced, tally.sampled, tally.lost, tally.queued]
        }
    }

    fn is_noise(event: &&RecordedEvent) -> bool {
        event.reason == Some(Reason::Missing)
    }

    /// The sink has time for so many events while one proved event and a flood of noise arrive; answers how many decisions
    /// were lost, and how many of noise were written meanwhile.
    fn under_a_flood(events_per_round: usize, proved: usize, noise: usize) -> (u64, u64) {
        const ROUNDS: u64 = 2_000;
        let sink = RecordingSink::new();
        let queue = queue(sink.clone(), proved, noise);
        for _ in 0..ROUNDS {
            // One that is refused is counted as lost.
            drop(queue.take_in(allowed(1)));
            (0..10).for_each(|_| queue.take_in(anonymous()).unwrap());
            (0..events_per_round).filter(|_| queue.step()).for_each(drop);
        }
        let meanwhile = sink.events().iter().filter(is_noise).map(|event| event.count).sum();
        queue.drain();
        let [written, coalesced, _, lost, queued] = queue.accounts();
        assert_eq!((written + coalesced + lost, queued), (11 * ROUNDS, 0));
        let decisions = |event: &RecordedEvent| if event.action.is_report() { 0 } else { event.count };
        assert_eq!(sink.events().iter().map(decisions).sum::<u64>(), written + coalesced, "in the end all is told");
        (lost, meanwhile)
    }

    #[test]
    fn noise_takes_no_time_from_a_sink_that_has_just_enough_for_proved_events() {
        for (proved, noise) in [(1, 0), (1, 1), (2, 1), (9, 1), (16, 16), (100, 10)] {
            assert_eq!(under_a_flood(1, proved, noise).0, 0, "{proved} places, {noise} for noise");
        }
    }

    #[test]
    fn noise_has_the_time_that_proved_events_leave() {
        for (proved, noise) in [(1, 0), (1, 1), (2, 1), (9, 1), (16, 16), (100, 10)] {
            let (lost, meanwhile) = under_a_flood(2, proved, noise);
            assert!(lost == 0 && meanwhile > 10_000, "{proved} places, {noise} for noise: {meanwhile}");
        }
    }

    #[test]
    fn noise_gets_every_eighth_turn_while_less_than_half_of_the_places_are_taken() {
        let sink = RecordingSink::new();
        let queue = queue(sink.clone(), 100, 10);
        (0..100).for_each(|_| queue.take_in(allowed(1)).unwrap());
        (0..40).for_each(|_| queue.take_in(anonymous()).unwrap());
        assert!(queue.take_in(allowed(1)).is_err() && queue.take_in(desk(1)).is_err(), "all places are taken");
        queue.drain();
        let events = sink.events();
        let noise: Vec<_> = events
            .iter()
            .filter(|event| !event.action.is_report())
            .enumerate()
            .filter(|(_, it)| is_noise(it))
            .collect();
        let turns: Vec<_> = noise.iter().map(|(at, event)| (*at, event.count)).collect();
        assert_eq!(turns[..4], [(55, 1), (63, 1), (71, 1), (79, 1)], "49 wait after 51 turns");
        assert_eq!((turns.len(), turns[10]), (11, (110, 30)), "what found no place comes last, summed up");
    }

    #[test]
    fn what_is_about_to_happen_is_not_taken_in_while_the_sink_within_fails() {
        let passed = || AuditEvent { outcome: Outcome::Passed, ..anonymous() };
        for break_it in [RecordingSink::fail_all, RecordingSink::panic_all] {
            let sink = RecordingSink::new();
            let queue = queue(sink.clone(), 10, 10);
            break_it(&sink, true);
            assert!(queue.take_in(allowed(1)).is_ok(), "nobody knows it yet");
            queue.drain();
            for event in [allowed(1), desk(1), would_forbid(1), passed()] {
                assert!(queue.take_in(event).is_err());
                queue.drain();
            }
            assert!(queue.take_in(forbidden(1)).is_ok() && queue.take_in(anonymous()).is_ok());
            queue.drain();
            assert_eq!(queue.accounts(), [0, 0, 0, 7, 0]);
            break_it(&sink, false);
            assert!(queue.take_in(allowed(1)).is_err(), "no request is risked to find out");
            queue.drain();
            assert_eq!(sink.take().first().map(|event| (event.action, event.count)), Some((Action::ReportLoss, 8)));
            for event in [allowed(1), desk(1), would_forbid(1), passed()] {
                assert!(queue.take_in(event).is_ok(), "it recovered by itself");
            }
            queue.drain();
            assert_eq!(queue.accounts(), [4, 0, 0, 8, 0]);
        }
    }

    #[test]
    fn a_sink_that_lost_one_event_and_takes_the_report_is_not_failing() {
        let sink = Fussy(|event| event.secret_slot().is_none());
        let queue = queue(sink, 10, 10);
        for lost in 1..5 {
            assert!(queue.take_in(allowed(1)).is_ok());
            queue.drain();
            assert_eq!(queue.accounts()[3], lost);
        }
    }

    #[test]
    fn any_event_that_is_taken_shows_that_the_sink_is_well() {
        let queue = queue(Fussy(|event| event.outcome() == Outcome::Refused), 10, 10);
        assert!(queue.take_in(allowed(1)).is_ok());
        queue.drain();
        assert!(queue.take_in(allowed(1)).is_err());
        for event in [forbidden(1), anonymous()] {
            assert!(queue.take_in(event).is_ok());
            queue.drain();
            assert!(queue.take_in(allowed(1)).is_ok());
            queue.drain();
        }
    }

    /// Takes some events and fails for the others.
    struct Fussy(fn(&AuditEvent<'_>) -> bool);

    impl AuditSink for Fussy {
        fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
            (self.0)(event).then_some(()).ok_or_else(|| AuditError::new("not this one"))
        }
    }

    #[test]
    fn a_flush_waits_for_the_report_that_was_asked_for() {
        let sink = RecordingSink::new();
        let queue = queue(sink.clone(), 10, 10);
        sink.fail_all(true);
        queue.take_in(allowed(1)).unwrap();
        queue.drain();
        assert!(queue.flush().now_or_never().is_some(), "nothing waits");
        sink.fail_all(false);
        queue.take_in(allowed(1)).unwrap_err();
        let mut flush = queue.flush();
        assert!((&mut flush).now_or_never().is_none());
        queue.drain();
        assert!(flush.now_or_never().is_some());
    }

    /// A clock that panics when it is told to.
    #[derive(Debug)]
    struct Moody(SystemClock, AtomicBool);

    impl Clock for Moody {
        fn wall(&self) -> Timestamp {
            if self.1.load(Ordering::SeqCst) {
                resume_unwind(Box::new("the clock was told to panic"));
            }
            self.0.wall()
        }

        fn monotonic(&self) -> Monotonic {
            self.0.monotonic()
        }

        fn sleep(&self, duration: Duration) -> Sleep {
            self.0.sleep(duration)
        }
    }

    /// Panics when it is woken.
    struct Grumpy;

    impl Wake for Grumpy {
        fn wake(self: Arc<Self>) {
            resume_unwind(Box::new("not before ten"));
        }
    }

    #[test]
    fn no_panic_ends_the_thread_or_leaves_a_flush_waiting() {
        let (sink, clock) = (RecordingSink::new(), Arc::new(Moody(SystemClock::new(), AtomicBool::new(true))));
        let queue = Queue::new(Arc::new(sink.clone()), Arc::clone(&clock) as Arc<dyn Clock>, 3, 1);
        let lost = (0..5).filter(|_| queue.take_in(allowed(1)).is_err()).count();
        let (mut rude, polite) = (queue.flush(), queue.flush());
        let waker = Waker::from(Arc::new(Grumpy));
        assert!(rude.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // The loss cannot be reported, because a report has a date.
        queue.drain();
        assert!(polite.now_or_never().is_some());
        assert_eq!((lost, queue.accounts()), (2, [3, 0, 0, 2, 0]));
        clock.1.store(false, Ordering::SeqCst);
        queue.take_in(anonymous()).unwrap();
        queue.drain();
        let report = sink.take().last().map(|event| (event.action, event.count));
        assert_eq!(report, Some((Action::ReportLoss, 2)), "none was forgotten");
    }

    #[test]
    fn what_a_sink_within_has_only_counted_is_not_written() {
        let sampled = SampledSink::builder(RecordingSink::new()).passed_on(2).build().unwrap();
        let queue = queue(sampled, 100, 10);
        (0..7).for_each(|_| queue.take_in(allowed(1)).unwrap());
        assert_eq!(queue.accounts(), [0, 0, 0, 0, 7]);
        (0..3).for_each(|_| queue.take_in(anonymous()).unwrap());
        queue.drain();
        assert_eq!(queue.accounts(), [5, 0, 5, 0, 0]);
    }
}
