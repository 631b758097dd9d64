//! The front of a queue: what waits, who waits for it, and what became of everything.

use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::event::{Repeated, Subject};
use super::places::{Event, Places, Turn};
use super::{Action, AuditError, AuditEvent, AuditTally, Flush, Outcome, guarded};
use crate::clock::Timestamp;
use crate::decision::{Reason, UnavailableCause};

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
    /// Whether who writes sleeps, and how many proved events wake it.
    sleeping_until: Option<usize>,
    /// Who waits until no ticket up to theirs is left.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
}

/// Why an event was not taken in, and the event: it is dropped out of the lock.
pub(super) struct Refused(&'static str, #[expect(dead_code, reason = "held only to be dropped")] Event);

impl Intake {
    pub(super) fn new(proved: usize, noise: usize) -> Self {
        let places = Places::new(proved, noise);
        let state = State { places, failing: false, closed: false, sleeping_until: None, flushes: Vec::new() };
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
        let (taken, wake) = {
            let mut state = self.lock();
            let taken = state.take_in(event);
            if taken.is_err() {
                // Before who writes can look for what there is to report.
                self.accounts.lose(decisions);
            }
            (taken, state.wakes())
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

    pub(super) fn written(&self, event: &AuditEvent<'_>) {
        let settled = if event.repeated.is_some() { &self.coalesced } else { &self.written };
        settled.fetch_add(event.decisions(), Ordering::Relaxed);
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

    /// Who writes is to be woken once so many proved events wait; by anything at all, for 0.
    pub(super) const fn sleep_until(&mut self, proved: usize) {
        self.sleeping_until = Some(proved);
    }

    pub(super) const fn awake(&mut self) {
        self.sleeping_until = None;
    }

    /// Whether who writes is to be woken now; it is told once.
    fn wakes(&mut self) -> bool {
        let proved = self.places.proved();
        self.sleeping_until.take_if(|enough| *enough <= proved).is_some()
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

    /// How a turn went.
    pub(super) const fn learn(&mut self, turn: &Turn, works: bool) {
        // A report by itself can end a failure and begins none: what was written before it was taken.
        self.failing = !works && (self.failing || matches!(turn, Turn::Write(_)));
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
