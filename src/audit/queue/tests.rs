use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Weak};
use std::task::{self, Context, Waker};
use std::thread::JoinHandle;

use futures_util::FutureExt;

use super::*;
use crate::audit::fixtures::{allowed, anonymous, desk, forbidden, id, would_forbid};
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

/// The sink has time for so many events while one proved event and a flood of noise arrive, and what it was given is in
/// its hand for as long; answers how many decisions were lost, and how many of noise were written meanwhile.
fn under_a_flood(events_per_round: usize, proved: usize, noise: usize) -> (u64, u64) {
    const ROUNDS: u64 = 4_000;
    let sink = RecordingSink::new();
    let queue = queue(sink.clone(), proved, noise);
    let (mut hand, mut time) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        // One that is refused is counted as lost.
        drop(queue.take_in(allowed(1)));
        (0..10).for_each(|_| queue.take_in(anonymous()).unwrap());
        time += events_per_round;
        while time > 0 && (!hand.is_empty() || queue.intake.lock().places.take_several(&mut hand)) {
            if time < hand.len() {
                break;
            }
            time -= hand.len();
            queue.work_off(&mut hand);
            hand.clear();
        }
        // Time in which there is nothing to do is gone.
        time = if hand.is_empty() { 0 } else { time };
    }
    let meanwhile = sink.events().iter().filter(is_noise).map(|event| event.count).sum();
    queue.work_off(&mut hand);
    queue.drain();
    let [written, coalesced, _, lost, queued] = queue.accounts();
    assert_eq!((written + coalesced + lost, queued), (11 * ROUNDS, 0));
    let decisions = |event: &RecordedEvent| if event.action.is_report() { 0 } else { event.count };
    assert_eq!(sink.events().iter().map(decisions).sum::<u64>(), written + coalesced, "in the end all is told");
    (lost, meanwhile)
}

#[test]
fn noise_takes_no_time_from_a_sink_that_has_just_enough_for_proved_events() {
    for (proved, noise) in [(1, 0), (1, 1), (2, 1), (9, 1), (16, 16), (100, 10), (1_600, 100)] {
        assert_eq!(under_a_flood(1, proved, noise).0, 0, "{proved} places, {noise} for noise");
    }
}

#[test]
fn noise_has_the_time_that_proved_events_leave() {
    for (proved, noise) in [(1, 0), (1, 1), (2, 1), (9, 1), (16, 16), (100, 10), (1_600, 100)] {
        let (lost, meanwhile) = under_a_flood(2, proved, noise);
        assert!(lost == 0 && meanwhile > 20_000, "{proved} places, {noise} for noise: {meanwhile}");
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
    let noise: Vec<_> =
        events.iter().filter(|event| !event.action.is_report()).enumerate().filter(|(_, it)| is_noise(it)).collect();
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

impl task::Wake for Grumpy {
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

/// Takes batches, and of events about tokens with these numbers does as it is told; keeps how many it was given at once.
#[derive(Clone, Default)]
struct Picky {
    fails: Vec<u64>,
    panics: Vec<u64>,
    within: RecordingSink,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl AuditSink for Picky {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let is = |number: &u64| event.token_id() == Some(id(*number));
        if self.panics.iter().any(is) {
            resume_unwind(Box::new("not that one"));
        }
        if self.fails.iter().any(is) {
            return Err(AuditError::new("not that one"));
        }
        self.within.record(event)
    }

    fn record_batch(&self, batch: &mut AuditBatch<'_>) -> Result<(), AuditError> {
        self.batches.lock().unwrap().push(batch.left().len());
        for event in batch.left() {
            self.record(event)?;
            batch.recorded(1);
        }
        Ok(())
    }
}

#[test]
fn a_batch_that_fails_in_the_middle_loses_that_event_and_no_other() {
    let sink = Picky { fails: vec![3, 9], panics: vec![5], ..Picky::default() };
    let queue = queue(sink.clone(), 160, 10);
    (0..10).for_each(|number| queue.take_in(allowed(number)).unwrap());
    assert!(queue.step() && !queue.step(), "one batch");
    assert_eq!(*sink.batches.lock().unwrap(), [10, 6, 4]);
    assert_eq!(queue.accounts(), [7, 0, 0, 3, 0]);
    let told: Vec<_> = sink.within.take().into_iter().map(|event| (event.token_id, event.count)).collect();
    let event = |number| (Some(id(number)), 1);
    let report = (None, 1);
    let (first, then, last) = ([0, 1, 2].map(event), [4].map(event), [6, 7, 8].map(event));
    assert_eq!(told, [&first[..], &[report], &then, &[report], &last, &[report]].concat());
}

/// Fails, and while it does looks whether that is known already.
struct Watching(Arc<Mutex<Vec<bool>>>, Mutex<Weak<Queue>>);

impl AuditSink for Watching {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        if !event.action().is_report() {
            let queue = self.1.lock().unwrap().upgrade().unwrap();
            self.0.lock().unwrap().push(queue.take_in(allowed(1)).is_ok());
        }
        Err(AuditError::new("it fails"))
    }
}

/// Takes so many events and reports, and fails for all that come after.
struct Dying(AtomicU64);

impl AuditSink for Dying {
    fn record(&self, _: &AuditEvent<'_>) -> Result<(), AuditError> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| AuditError::new("it is dead"))
    }
}

#[test]
fn a_sink_that_dies_in_a_batch_fails_whatever_it_took_before() {
    for taken in 0..4 {
        let queue = queue(Dying(AtomicU64::new(taken)), 160, 10);
        (0..4).for_each(|number| queue.take_in(allowed(number)).unwrap());
        queue.drain();
        assert_eq!(queue.accounts(), [taken, 0, 0, 4 - taken, 0]);
        assert!(queue.take_in(allowed(9)).is_err(), "it took {taken} of 4");
    }
}

#[test]
fn that_the_sink_within_fails_is_known_before_the_rest_of_a_batch_has_failed() {
    let taken = Arc::<Mutex<Vec<bool>>>::default();
    let sink = Arc::new(Watching(Arc::clone(&taken), Mutex::new(Weak::new())));
    let queue = Arc::new(queue(Arc::clone(&sink), 160, 10));
    *sink.1.lock().unwrap() = Arc::downgrade(&queue);
    (0..4).for_each(|number| queue.take_in(allowed(number)).unwrap());
    assert!(queue.step());
    assert_eq!(*taken.lock().unwrap(), [true, false, false, false]);
}

#[test]
fn a_batch_has_no_more_noise_than_its_share_and_leaves_most_places_free() {
    for (proved, most, share) in [(1, 1, 1), (31, 1, 1), (160, 10, 2), (9_000, 64, 8), (1_000_000, 64, 8)] {
        let sink = Picky::default();
        let queue = queue(sink.clone(), proved, 1_000);
        (0..100).for_each(|_| queue.take_in(anonymous()).unwrap());
        queue.step();
        (0..proved.min(100)).for_each(|_| queue.take_in(allowed(1)).unwrap());
        queue.step();
        let noise = sink.within.take().iter().skip(share).filter(is_noise).count();
        assert_eq!(*sink.batches.lock().unwrap(), [share, most], "{proved} places");
        assert!(noise <= share, "{proved} places: {noise}");
    }
}

/// The thread, which rests for so long.
fn working(inner: impl AuditSink, nap: Duration) -> (Arc<Queue>, JoinHandle<()>) {
    let queue = Arc::new(Queue { nap, ..queue(inner, 100, 10) });
    let worker = Arc::clone(&queue);
    (queue, std::thread::spawn(move || worker.work()))
}

impl Queue {
    /// Waits until the thread rests, and this wakes it.
    fn await_rest(&self, until: Wake) {
        while self.intake.lock().rests_until() != Some(until) {
            std::thread::yield_now();
        }
    }

    fn await_written(&self, events: u64) {
        while self.tally().written < events {
            std::thread::yield_now();
        }
    }
}

const FOR_EVER: Duration = Duration::from_secs(3_600);

#[test]
fn what_comes_during_a_nap_is_written_after_it_though_nobody_wakes_the_thread() {
    let (queue, thread) = working(RecordingSink::new(), Duration::from_millis(20));
    for events in 1..10 {
        queue.take_in(allowed(1)).unwrap();
        queue.await_written(events);
    }
    queue.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_nap_ends_for_a_flush_for_a_crowd_and_for_the_end_and_not_for_one_event() {
    let (queue, thread) = working(RecordingSink::new(), FOR_EVER);
    queue.await_rest(Wake::Crowd);
    queue.take_in(allowed(1)).unwrap();
    assert_eq!(queue.intake.lock().rests_until(), Some(Wake::Crowd), "one event wakes nobody");
    queue.flush().await;
    assert_eq!(queue.accounts(), [1, 0, 0, 0, 0]);

    queue.await_rest(Wake::Crowd);
    (0..24).for_each(|_| queue.take_in(allowed(1)).unwrap());
    (0..2).for_each(|_| queue.take_in(anonymous()).unwrap());
    queue.await_written(27);

    queue.await_rest(Wake::Crowd);
    queue.take_in(allowed(1)).unwrap();
    queue.close();
    thread.join().unwrap();
    assert_eq!(queue.accounts(), [28, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_nap_ends_for_a_report_that_is_asked_for() {
    let sink = RecordingSink::new();
    sink.fail_all(true);
    let (queue, thread) = working(sink.clone(), FOR_EVER);
    queue.await_rest(Wake::Crowd);
    queue.take_in(allowed(1)).unwrap();
    queue.flush().await;
    sink.fail_all(false);
    queue.await_rest(Wake::Crowd);
    assert!(queue.take_in(allowed(1)).is_err(), "no request is risked to find out");
    (0..10_000_000).take_while(|_| sink.events().is_empty()).for_each(|_| std::thread::yield_now());
    assert_eq!(sink.events().first().map(|event| event.action), Some(Action::ReportLoss));
    queue.close();
    thread.join().unwrap();
}

#[test]
fn an_idle_thread_sleeps_until_the_next_event_and_that_wakes_it() {
    let (queue, thread) = working(RecordingSink::new(), Duration::from_millis(1));
    for events in 1..4 {
        queue.await_rest(Wake::Anything);
        queue.take_in(allowed(1)).unwrap();
        queue.await_written(events);
    }
    queue.close();
    thread.join().unwrap();
}

#[test]
fn what_was_written_is_dropped_by_those_who_record_and_little_of_it_waits_for_them() {
    let queue = queue(RecordingSink::new(), 10_000, 10);
    (0..5_000).for_each(|_| queue.take_in(allowed(1)).unwrap());
    queue.drain();
    assert_eq!(queue.intake.lock().spent(), 512);
    (0..512).for_each(|_| drop(queue.take_in(allowed(1))));
    assert_eq!(queue.intake.lock().spent(), 0);
}
