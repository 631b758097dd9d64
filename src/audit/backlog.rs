//! A bounded queue that a future empties, a batch at a time.
//!
//! As a [`QueuedSink`](super::QueuedSink) it keeps proved events and noise apart and accounts for every decision. What was
//! taken keeps its places until it is written, so that a database that is away for long costs no more memory.

use std::fmt::Display;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select;
use futures_util::task::AtomicWaker;

use super::intake::{Intake, Wake};
use super::outage::Outage;
use super::places::{Event, Taken, Turn};
use super::{AuditError, AuditEvent, AuditTally, Flush};
use crate::clock::{Clock, Monotonic};

/// So many events are written at once: more do not make it faster.
pub(crate) const BATCH: usize = 500;
/// How long others are waited for, where fewer wait.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// For so long noise has its allowance.
const MINUTE: Duration = Duration::from_secs(60);

/// What those who record and the one who writes share.
pub(crate) struct Backlog {
    intake: Intake,
    clock: Arc<dyn Clock>,
    writer: AtomicWaker,
    started: AtomicBool,
    outage: Outage,
}

/// What is written together, or not at all.
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    /// How many losses one of them reports.
    reported: u64,
}

/// The one who writes. Dropped, it loses what is left, and nothing more is taken in.
pub(crate) struct Writer {
    backlog: Arc<Backlog>,
    /// How many events of noise are taken a minute.
    noise: usize,
    allowance: Allowance,
    /// How many decisions were taken, and are not yet written.
    in_hand: u64,
}

/// What may be written of a minute still. Noise takes nothing from alarms.
struct Allowance {
    noise: usize,
    alarms: usize,
    since: Monotonic,
}

impl Allowance {
    const fn new(a_minute: usize, since: Monotonic) -> Self {
        Self { noise: a_minute, alarms: a_minute, since }
    }

    /// Whether an event may be written by itself; noise has been asked for before it was taken.
    fn grant(&mut self, event: &AuditEvent<'_>) -> bool {
        let is_report = event.action().is_report();
        if is_report && event.claimed_id().is_some() {
            let granted = self.alarms > 0;
            self.alarms = self.alarms.saturating_sub(1);
            return granted;
        }
        // Summed up alarms are noise, too.
        let share = usize::from(event.is_anonymous() || is_report && event.token_id().is_none());
        self.noise = self.noise.saturating_sub(share);
        true
    }
}

impl Backlog {
    pub(crate) fn new(clock: Arc<dyn Clock>, proved: usize, noise: usize) -> Self {
        let (intake, writer) = (Intake::new(proved, noise), AtomicWaker::new());
        Self { intake, clock, writer, started: AtomicBool::new(false), outage: Outage::default() }
    }

    pub(crate) fn take_in(&self, event: AuditEvent<'static>) -> Result<(), AuditError> {
        let (taken, asleep) = self.intake.take_in(event);
        if asleep {
            self.writer.wake();
        }
        taken.map_err(|error| if self.is_unattended() { unattended() } else { error })
    }

    /// Nobody has begun to write, and nobody has given it up.
    fn is_unattended(&self) -> bool {
        !self.started.load(Ordering::Relaxed) && !self.intake.lock().is_closed()
    }

    pub(crate) fn tally(&self) -> AuditTally {
        self.intake.tally()
    }

    /// Resolves when what waits now is written, or lost. It is written at once.
    pub(crate) fn flush(&self) -> Flush {
        let flush = self.intake.flush();
        self.writer.wake();
        flush
    }

    /// Lets the writer end when there is nothing left. Nothing more is taken in.
    pub(crate) fn close(&self) {
        self.intake.lock().close();
        self.writer.wake();
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The writer has something to do, or is to end.
    fn poll_anything(&self, context: &Context<'_>) -> Poll<()> {
        self.writer.register(context.waker());
        let mut state = self.intake.lock();
        if state.is_closed() || !state.places.is_empty() {
            state.awake();
            return Poll::Ready(());
        }
        state.sleep_until(Wake::Anything);
        Poll::Pending
    }

    /// The writer need not wait for more.
    fn poll_urgent(&self, context: &Context<'_>) -> Poll<()> {
        self.writer.register(context.waker());
        let mut state = self.intake.lock();
        if state.is_hurried() || state.places.proved() >= BATCH {
            state.awake();
            return Poll::Ready(());
        }
        state.sleep_until(Wake::Proved(BATCH));
        Poll::Pending
    }
}

fn unattended() -> AuditError {
    AuditError::new("the audit queue is full: nobody has spawned its writer")
}

impl Writer {
    /// There is to be one for a backlog.
    pub(crate) fn new(backlog: Arc<Backlog>, noise: usize) -> Self {
        let since = backlog.clock.monotonic();
        Self { backlog, noise, allowance: Allowance::new(noise, since), in_hand: 0 }
    }

    /// Waits for a batch; `None` once there is none and the backlog is closed.
    ///
    /// # Cancellation
    /// Dropped, it has taken nothing.
    pub(crate) async fn batch(&mut self) -> Option<Batch> {
        self.backlog.started.store(true, Ordering::Relaxed);
        loop {
            let backlog = &*self.backlog;
            poll_fn(|context| backlog.poll_anything(context)).await;
            select(poll_fn(|context| backlog.poll_urgent(context)), backlog.clock.sleep(PAUSE)).await;
            let batch = self.take();
            if !batch.events.is_empty() {
                return Some(batch);
            }
            let state = self.backlog.intake.lock();
            if state.is_closed() && state.places.is_empty() {
                return None;
            }
        }
    }

    fn take(&mut self) -> Batch {
        let now = self.backlog.clock.monotonic();
        if now.since(self.allowance.since) >= MINUTE {
            self.allowance = Allowance::new(self.noise, now);
        }
        let mut events = self.take_events();
        self.in_hand = events.iter().map(|event| event.decisions()).sum();
        let report = self.backlog.intake.accounts.report(|| self.backlog.clock.wall());
        let reported = report.as_ref().map_or(0, AuditEvent::count);
        events.extend(report.map(Box::new));
        Batch { events, reported }
    }

    /// In the order in which they came.
    fn take_events(&mut self) -> Vec<Event> {
        let (mut taken, mut beyond) = (Vec::new(), Vec::new());
        let mut state = self.backlog.intake.lock();
        // A flush also takes noise beyond its allowance: bounded by the places there are, and no request can cause one.
        let all = state.is_hurried();
        while taken.len() < BATCH {
            let noise = all || self.allowance.noise > 0;
            let next = if noise { state.places.take() } else { state.places.take_no_noise() };
            let Some(Taken { ticket, turn, .. }) = next else { break };
            if let Turn::Write(event) = turn {
                match self.allowance.grant(&event) {
                    false if !all => beyond.push(event),
                    _ => taken.push((ticket, event)),
                }
            }
        }
        // Not sooner, or each would be a summary.
        beyond.iter().for_each(|alarm| state.places.sum_up_taken(alarm));
        drop(state);
        taken.sort_unstable_by_key(|(ticket, _)| *ticket);
        taken.into_iter().map(|(_, event)| event).collect()
    }

    pub(crate) fn written(&mut self, batch: Batch) {
        let accounts = &self.backlog.intake.accounts;
        accounts.reported(batch.reported);
        accounts.written(&batch.events);
        // Noise is taken in whatever happens: that it was written says nothing of an outage.
        batch.events.iter().filter(|event| !event.is_anonymous()).for_each(|_| self.backlog.outage.succeeded());
        self.in_hand = 0;
        self.backlog.intake.settle(|_| {});
    }

    /// An event of the batch in hand is never written.
    pub(crate) fn rejected(&mut self, event: &AuditEvent<'_>, error: &dyn Display) {
        self.in_hand = self.in_hand.saturating_sub(event.decisions());
        self.backlog.intake.accounts.lose(event.decisions());
        let (action, outcome) = (event.action().as_str(), event.outcome().as_str());
        tracing::error!(cause = error.to_string(), action, outcome, "an audit event cannot be written: it is lost");
    }

    /// The batch in hand could not be written, and will be tried again.
    pub(crate) fn failed(&self, error: &dyn Display) {
        if let Some(failures) = self.backlog.outage.failed() {
            let queued = self.backlog.tally().queued;
            tracing::error!(cause = error.to_string(), failures, queued, "audit events could not be written yet");
        }
    }

    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut lost = std::mem::take(&mut self.in_hand);
        self.backlog.intake.settle(|state| {
            state.close();
            while let Some(taken) = state.places.take() {
                if let Turn::Write(event) = taken.turn {
                    lost += event.decisions();
                }
            }
        });
        if lost > 0 {
            self.backlog.intake.accounts.lose(lost);
            tracing::error!(lost, "audit events were not written: their writer was stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::audit::event::{Repeated, Subject};
    use crate::audit::fixtures::{allowed, anonymous, claimed};
    use crate::audit::{Action, Outcome};
    use crate::clock::Timestamp;
    use crate::decision::Reason;
    use crate::test_util::ManualClock;

    struct Desk {
        clock: ManualClock,
        backlog: Arc<Backlog>,
        writer: Writer,
        noise: u64,
    }

    impl Desk {
        fn new(proved: usize, noise: usize, a_minute: usize) -> Self {
            let clock = ManualClock::default();
            let backlog = Arc::new(Backlog::new(Arc::new(clock.clone()), proved, noise));
            let writer = Writer::new(Arc::clone(&backlog), a_minute);
            Self { clock, backlog, writer, noise: 0 }
        }

        /// The batch that is there after a pause, if any; it counts as written.
        fn write(&mut self) -> Option<Vec<Event>> {
            let mut batch = Box::pin(self.writer.batch());
            let mut ready = (&mut batch).now_or_never();
            if ready.is_none() {
                self.clock.advance(PAUSE);
                ready = (&mut batch).now_or_never();
            }
            drop(batch);
            let batch = ready.flatten()?;
            let events = batch.events.clone();
            self.writer.written(batch);
            self.noise += events.iter().filter(|event| event.is_anonymous()).count() as u64;
            Some(events)
        }

        /// Written, coalesced, lost, queued.
        fn accounts(&self) -> [u64; 4] {
            let tally = self.backlog.tally();
            [tally.written, tally.coalesced, tally.lost, tally.queued]
        }
    }

    #[test]
    fn a_batch_waits_for_others_unless_it_is_full_or_somebody_waits_for_it() {
        let mut desk = Desk::new(2_000, 0, 1);
        assert!(desk.writer.batch().now_or_never().is_none(), "there is none");
        (0..BATCH - 1).for_each(|_| desk.backlog.take_in(allowed(1)).unwrap());
        assert!(desk.writer.batch().now_or_never().is_none());
        desk.backlog.take_in(allowed(1)).unwrap();
        let full = desk.writer.batch().now_or_never().flatten().unwrap();
        assert_eq!(full.events.len(), BATCH);
        desk.writer.written(full);
        desk.backlog.take_in(allowed(1)).unwrap();
        let mut flush = desk.backlog.flush();
        let batch = desk.writer.batch().now_or_never().flatten().unwrap();
        assert!((&mut flush).now_or_never().is_none(), "it is taken, and not written");
        desk.writer.written(batch);
        assert!(flush.now_or_never().is_some());
        desk.backlog.take_in(allowed(1)).unwrap();
        assert_eq!(desk.write().unwrap().len(), 1, "after a pause");
    }

    #[test]
    fn what_is_in_hand_keeps_its_places() {
        let mut desk = Desk::new(3, 0, 1);
        (0..3).for_each(|_| desk.backlog.take_in(allowed(1)).unwrap());
        let _flush = desk.backlog.flush();
        let batch = desk.writer.batch().now_or_never().flatten().unwrap();
        assert!(desk.backlog.take_in(allowed(1)).is_err());
        desk.writer.written(batch);
        assert!(desk.backlog.take_in(allowed(1)).is_ok());
        assert_eq!(desk.accounts(), [3, 0, 1, 1]);
    }

    #[test]
    fn a_flood_of_noise_is_a_hundred_rows_a_minute_and_a_few_summaries() {
        let mut desk = Desk::new(1_000, 100, 100);
        for _ in 0..600 {
            (0..1_000).for_each(|_| desk.backlog.take_in(anonymous()).unwrap());
            desk.backlog.take_in(allowed(1)).unwrap();
            let events = desk.write().unwrap();
            assert!(events.iter().any(|event| event.outcome() == Outcome::Allowed), "noise displaces nothing");
        }
        assert!((900..=1_100).contains(&desk.noise), "{} in ten minutes", desk.noise);
        desk.backlog.close();
        while desk.write().is_some() {}
        let [written, coalesced, lost, queued] = desk.accounts();
        assert_eq!((written + coalesced, lost, queued), (600 * 1_001, 0, 0));
    }

    fn alarm(number: u64) -> Event {
        let (of, at) =
            (Repeated { count: 50, first_at: Timestamp::from_unix_seconds(1) }, Timestamp::from_unix_seconds(2));
        let subject = Subject::Claimed(claimed(Reason::Mismatch, number).claimed_id().unwrap());
        Box::new(AuditEvent::of_several(Action::ReportThreshold, Outcome::Refused, subject, at, of))
    }

    #[test]
    fn a_flood_of_alarms_of_claimed_tokens_has_an_allowance_that_noise_does_not_use_up() {
        let mut desk = Desk::new(1_000, 100, 100);
        let (mut named, mut summaries, mut told) = (0, 0, 0);
        for round in 0..600 {
            (0..50).for_each(|_| desk.backlog.take_in(anonymous()).unwrap());
            (0..20).for_each(|number| desk.backlog.take_in(*alarm(round * 20 + number)).unwrap());
            for event in desk.write().unwrap_or_default().iter().filter(|event| event.action().is_report()) {
                told += event.count();
                *(if event.claimed_id().is_some() { &mut named } else { &mut summaries }) += 1;
            }
        }
        assert!((1_000..=1_100).contains(&named), "{named} in ten minutes");
        assert!(summaries <= 1_000, "{summaries}");
        desk.backlog.close();
        while let Some(left) = desk.write() {
            told += left.iter().filter(|event| event.action().is_report()).map(|event| event.count()).sum::<u64>();
        }
        assert_eq!(told, 600 * 20 * 50, "all are told of");
        assert_eq!(desk.accounts()[2..], [0, 0]);
    }

    #[test]
    fn alarms_that_are_summed_up_give_their_places_up() {
        let mut desk = Desk::new(10, 0, 1);
        for _ in 0..5 {
            (0..10).for_each(|number| desk.backlog.take_in(*alarm(number)).unwrap());
            desk.write();
        }
        (0..9).for_each(|_| desk.backlog.take_in(allowed(1)).unwrap());
        assert_eq!(desk.accounts()[2], 0);
    }

    #[test]
    fn a_loss_is_reported_with_the_next_batch_and_again_until_that_is_written() {
        let mut desk = Desk::new(2, 0, 1);
        (0..2).for_each(|_| desk.backlog.take_in(allowed(1)).unwrap());
        (0..5).for_each(|_| drop(desk.backlog.take_in(allowed(1)).unwrap_err()));
        let events = desk.write().unwrap();
        let report = events.last().unwrap();
        assert_eq!((report.action(), report.count(), events.len()), (Action::ReportLoss, 5, 3));
        desk.backlog.take_in(allowed(1)).unwrap();
        assert_eq!(desk.write().unwrap().len(), 1, "it was told");
        assert_eq!(desk.accounts(), [3, 0, 5, 0]);
    }

    #[test]
    fn a_writer_that_is_dropped_loses_what_is_left_and_that_is_counted() {
        let mut desk = Desk::new(1_000, 1, 1);
        (0..600).for_each(|_| desk.backlog.take_in(allowed(1)).unwrap());
        (0..3).for_each(|_| desk.backlog.take_in(anonymous()).unwrap());
        let flush = desk.backlog.flush();
        let batch = desk.writer.batch().now_or_never().flatten().unwrap();
        drop((batch, desk.writer));
        assert!(flush.now_or_never().is_some(), "nobody waits for ever");
        assert!(desk.backlog.take_in(allowed(1)).is_err());
        assert_eq!(desk.backlog.tally().lost, 604);
        assert_eq!(desk.backlog.tally().queued, 0);
    }

    #[test]
    fn it_ends_when_it_is_closed_and_what_was_left_is_written() {
        let mut desk = Desk::new(10, 10, 1);
        (0..3).for_each(|_| desk.backlog.take_in(allowed(1)).unwrap());
        (0..3).for_each(|_| desk.backlog.take_in(anonymous()).unwrap());
        desk.backlog.close();
        assert!(desk.backlog.take_in(allowed(1)).is_err());
        assert_eq!(desk.write().unwrap().len(), 6 + 1, "with the report of what came too late");
        assert!(desk.writer.batch().now_or_never().unwrap().is_none());
    }
}
