//! The front of a queue: what waits, who waits for it, and what became of everything.

use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::event::{Repeated, Subject};
use super::places::{Event, Places};
use super::{Action, AuditError, AuditEvent, AuditTally, Flush, Outcome, guarded};
use crate::clock::Timestamp;
use crate::decision::{Reason, UnavailableCause};

/// So many events at most wait for whoever drops them, some 250 KiB: more do not come while the thread that writes rests.
const SPENT: usize = 512;

/// What those who record and the one who writes share.
pub(super) struct Intake {
    state: Mutex<State>,
    pub(super) accounts: Accounts,
}

/// In decisions, not in events.
#[derive(Default)]
pub(super) struct Accounts {
    told: AtomicU64,
    written: AtomicU64,
    coalesced: AtomicU64,
    lost: AtomicU64,
    /// Lost since that was last reported. Only who writes takes from it.
    unreported: AtomicU64,
}

pub(super) struct State {
    pub(super) places: Places,
    /// What is behind the queue has lost something, and did not take the report of it either.
    failing: bool,
    closed: bool,
    /// What wakes who writes, where that is asleep.
    asleep_until: Option<Wake>,
    /// Events that are done with: see [`State::hand_back`].
    spent: Vec<Event>,
    /// Who waits until no ticket up to theirs is left.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
}

/// What wakes who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Whatever comes.
    Anything,
    /// So many that their places may run out, or a report that is asked for.
    Crowd,
    /// So many proved events.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    Proved(usize),
}

/// Why an event was not taken in, and the event: it is dropped out of the lock.
pub(super) struct Refused(&'static str, #[expect(dead_code, reason = "held only to be dropped")] Event);

impl Intake {
    pub(super) fn new(proved: usize, noise: usize) -> Self {
        let places = Places::new(proved, noise);
        let state =
            State { places, failing: false, closed: false, asleep_until: None, spent: Vec::new(), flushes: Vec::new() };
        Self { state: Mutex::new(state), accounts: Accounts::default() }
    }

    /// No code of others runs under the lock, so a poisoned one guards nothing half-done.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Also tells whether who writes is to be woken.
    pub(super) fn take_in(&self, event: AuditEvent<'static>) -> (Result<(), AuditError>, bool) {
        let decisions = event.decisions();
        self.accounts.told.fetch_add(decisions, Ordering::Relaxed);
        let event = Box::new(event);
        let (taken, wake, _spent) = {
            let mut state = self.lock();
            let taken = state.take_in(event);
            if taken.is_err() {
                // Before who writes can look for what there is to report.
                self.accounts.lose(decisions);
            }
            (taken, state.wakes(), state.spent.pop())
        };
        (taken.map_err(|Refused(why, _)| AuditError::new(why)), wake)
    }

    pub(super) fn tally(&self) -> AuditTally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Accounts { written, coalesced, lost, told, .. } = &self.accounts;
        // Settled ones first: a decision is told before it is settled, so the difference never falls below zero.
        let (written, coalesced, lost) = (read(written), read(coalesced), read(lost));
        let queued = read(told).saturating_sub(written + coalesced + lost);
        AuditTally { written, coalesced, sampled: 0, lost, queued }
    }

    /// Resolves when who writes has done with what is waiting now.
    pub(super) fn flush(&self) -> Flush {
        let mut state = self.lock();
        let Some(last) = state.places.last().filter(|last| !state.places.is_settled(*last)) else {
            return Box::pin(ready(()));
        };
        let (sender, receiver) = oneshot::channel();
        state.flushes.retain(|(_, flush)| !flush.is_canceled());
        state.flushes.push((last, sender));
        Box::pin(receiver.map(drop))
    }

    /// What was in hand is done with; wakes those whose flushes are complete.
    pub(super) fn settle(&self, change: impl FnOnce(&mut State)) {
        let flushed = {
            let mut state = self.lock();
            change(&mut state);
            state.settle()
        };
        // Out of the lock: this wakes those who wait. Whoever waited may be gone.
        for flush in flushed {
            guarded(|| flush.send(()).ok());
        }
    }
}

impl Accounts {
    pub(super) fn lose(&self, decisions: u64) {
        self.lost.fetch_add(decisions, Ordering::Relaxed);
        self.unreported.fetch_add(decisions, Ordering::Relaxed);
    }

    pub(super) fn written(&self, events: &[Event]) {
        let (mut written, mut coalesced) = (0, 0);
        for event in events {
            *(if event.repeated.is_some() { &mut coalesced } else { &mut written }) += event.decisions();
        }
        self.written.fetch_add(written, Ordering::Relaxed);
        self.coalesced.fetch_add(coalesced, Ordering::Relaxed);
    }

    /// The report of what is missing, where anything is.
    pub(super) fn report(&self, now: impl FnOnce() -> Timestamp) -> Option<AuditEvent<'static>> {
        let lost = self.unreported.load(Ordering::Relaxed);
        if lost == 0 {
            return None;
        }
        let at = now();
        let (outcome, of) = (Outcome::Unavailable, Repeated { count: lost, first_at: at });
        let report = AuditEvent::of_several(Action::ReportLoss, outcome, Subject::Nobody, at, of);
        Some(report.because(Some(Reason::Unavailable(UnavailableCause::AuditFailed))))
    }

    /// A report of so many has been taken.
    pub(super) fn reported(&self, lost: u64) {
        self.unreported.fetch_sub(lost, Ordering::Relaxed);
    }
}

/// Whether an event of this outcome is of something that is about to happen.
const fn lets_through(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Allowed | Outcome::Passed | Outcome::WouldForbid => true,
        Outcome::Refused | Outcome::Unavailable | Outcome::Abandoned => false,
    }
}

impl State {
    pub(super) const fn close(&mut self) {
        self.closed = true;
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether somebody waits for what is there.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn is_hurried(&self) -> bool {
        self.closed || !self.flushes.is_empty()
    }

    /// Who writes goes to sleep.
    pub(super) const fn sleep_until(&mut self, wake: Wake) {
        self.asleep_until = Some(wake);
    }

    pub(super) const fn awake(&mut self) {
        self.asleep_until = None;
    }

    /// Whether who writes is to be woken now; it is told once.
    fn wakes(&mut self) -> bool {
        let places = &self.places;
        let is_time = |wake: &mut Wake| match wake {
            Wake::Anything => true,
            Wake::Crowd => places.is_crowded() || places.has_report(),
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            Wake::Proved(enough) => places.proved() >= *enough,
        };
        self.asleep_until.take_if(is_time).is_some()
    }

    /// While the sink within fails, nothing is taken in that lets anybody do something. Who writes then tries a report of
    /// the loss: no request is risked to find out whether the sink is well again.
    fn take_in(&mut self, event: Event) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused("the audit queue is closed", event));
        }
        if self.failing && lets_through(event.outcome()) {
            self.places.ask_for_report();
            return Err(Refused("the sink behind the audit queue fails", event));
        }
        self.places.put(event).map_err(|event| Refused("the audit queue is full", event))
    }

    /// Gives written events to those who record: who records one drops another. Memory that one thread takes and another
    /// gives back costs both of them the allocator's lock; this way it goes from hand to hand within one.
    pub(super) fn hand_back(&mut self, events: &mut Vec<Event>) {
        let room = SPENT.saturating_sub(self.spent.len()).min(events.len());
        self.spent.extend(events.drain(..room));
    }

    /// How a turn went: whether something was to be written, and not only reported, and whether the sink works.
    pub(super) const fn learn(&mut self, wrote: bool, works: bool) {
        // A report by itself can end a failure and begins none: what was written before it was taken.
        self.failing = !works && (self.failing || wrote);
    }

    /// What was in hand is done with; gives the flushes that are complete.
    fn settle(&mut self) -> Vec<oneshot::Sender<()>> {
        self.places.done();
        let flushes = std::mem::take(&mut self.flushes);
        let (done, left): (Vec<_>, _) = flushes.into_iter().partition(|(last, _)| self.places.is_settled(*last));
        self.flushes = left;
        done.into_iter().map(|(_, flush)| flush).collect()
    }
}

#[cfg(test)]
impl State {
    /// What wakes who writes, where that is asleep.
    pub(super) const fn rests_until(&self) -> Option<Wake> {
        self.asleep_until
    }

    /// How many events wait for whoever drops them.
    pub(super) fn spent(&self) -> usize {
        self.spent.len()
    }
}
