//! What stands between the requests and the thread that writes.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::event::{Repeated, Subject};
use super::{Action, AuditError, AuditEvent, AuditSink, AuditTally, Flush, Outcome, catch};
use crate::clock::{Clock, Timestamp};
use crate::decision::{Reason, UnavailableCause};

/// How many events the thread takes at a time.
const BATCH: usize = 32;
/// Of how many turns noise gets one while proved events wait.
const NOISE_TURN: u64 = 8;
/// After how many turns summaries are written at the latest, if they never come to their own.
const SUMMARY_TURN: u64 = 1_024;

/// What the handles and the thread share.
pub(super) struct Queue {
    inner: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    proved: usize,
    noise: usize,
    state: Mutex<State>,
    wake: Condvar,
    accounts: Accounts,
}

/// In decisions, not in events.
#[derive(Default)]
struct Accounts {
    told: AtomicU64,
    written: AtomicU64,
    coalesced: AtomicU64,
    lost: AtomicU64,
    /// Lost since the sink within was last told.
    unreported: AtomicU64,
}

#[derive(Default)]
struct State {
    proved: VecDeque<Queued>,
    noise: VecDeque<Queued>,
    summaries: Vec<Summary>,
    /// How many of each kind the thread holds: they have not left the queue before they are written.
    in_hand: (usize, usize),
    /// The lowest ticket in hand.
    oldest_in_hand: Option<u64>,
    tickets: u64,
    turns: u64,
    closed: bool,
    asleep: bool,
    /// Who waits until no ticket up to theirs is left.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
}

struct Queued {
    ticket: u64,
    event: AuditEvent<'static>,
}

/// Noise that found no place.
struct Summary {
    ticket: u64,
    action: Action,
    outcome: Outcome,
    reason: Option<Reason>,
    count: u64,
    first_at: Timestamp,
    at: Timestamp,
}

impl Queue {
    pub(super) fn new(inner: Arc<dyn AuditSink>, clock: Arc<dyn Clock>, proved: usize, noise: usize) -> Self {
        let (state, wake, accounts) = (Mutex::default(), Condvar::new(), Accounts::default());
        Self { inner, clock, proved, noise, state, wake, accounts }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn wants(&self, outcome: Outcome) -> bool {
        self.inner.wants(outcome)
    }

    /// Lets the thread end when there is nothing left.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// No code of others runs under the lock, so a poisoned one guards nothing half-done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_in(&self, event: AuditEvent<'static>) -> Result<(), AuditError> {
        let decisions = event.decisions();
        self.accounts.told.fetch_add(decisions, Ordering::Relaxed);
        let (refused, asleep) = {
            let mut state = self.lock();
            let refused = state.put(event, self.proved, self.noise);
            (refused, std::mem::take(&mut state.asleep))
        };
        if asleep {
            self.wake.notify_one();
        }
        match refused {
            None => Ok(()),
            Some(_event) => {
                self.accounts.lose(decisions);
                Err(AuditError::new("the audit queue is full"))
            }
        }
    }

    pub(super) fn tally(&self) -> AuditTally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Accounts { written, coalesced, lost, told, .. } = &self.accounts;
        // Settled ones first: a decision is told before it is settled, so the difference never falls below zero.
        let (written, coalesced, lost) = (read(written), read(coalesced), read(lost));
        let queued = read(told).saturating_sub(written + coalesced + lost);
        AuditTally { written, coalesced, lost, queued, ..AuditTally::default() }
    }

    /// Waits for the thread, and then for the sink within.
    pub(super) fn flush(&self) -> Flush {
        let (written, inner) = (self.written(), Arc::clone(&self.inner));
        Box::pin(async move {
            written.await;
            inner.flush().await;
        })
    }

    /// Resolves when the thread has done with what is waiting now.
    fn written(&self) -> Flush {
        let mut state = self.lock();
        let Some(last) = state.tickets.checked_sub(1) else { return Box::pin(ready(())) };
        if state.is_settled(last) {
            return Box::pin(ready(()));
        }
        let (sender, receiver) = oneshot::channel();
        state.flushes.retain(|(_, flush)| !flush.is_canceled());
        state.flushes.push((last, sender));
        Box::pin(receiver.map(drop))
    }

    /// The thread's life.
    pub(super) fn work(&self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.next(&mut batch) {
            for event in batch.drain(..) {
                self.write(event);
            }
            self.report_loss();
            let flushed = self.lock().settle();
            // Out of the lock: this wakes those who wait.
            for flush in flushed {
                // Whoever waited may be gone.
                let _: Result<(), ()> = flush.send(());
            }
        }
    }

    /// Waits for events; `false` once there are none and no handle is left.
    fn next(&self, batch: &mut Vec<AuditEvent<'static>>) -> bool {
        let mut state = self.lock();
        loop {
            state.take(batch);
            if !batch.is_empty() {
                return true;
            }
            if state.closed {
                return false;
            }
            state.asleep = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
    }

    fn write(&self, event: AuditEvent<'static>) {
        let (count, summed_up) = (event.decisions(), event.repeated.is_some());
        match catch(|| self.inner.record(&event)) {
            Ok(()) => {
                let settled = if summed_up { &self.accounts.coalesced } else { &self.accounts.written };
                settled.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => self.accounts.fail(count, &error),
        }
    }

    /// Tells the sink within what is missing. What it does not take is told the next time.
    fn report_loss(&self) {
        let lost = self.accounts.unreported.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let at = self.clock.wall();
        let (outcome, of) = (Outcome::Unavailable, Repeated { count: lost, first_at: at });
        let report = AuditEvent::of_several(Action::ReportLoss, outcome, Subject::Nobody, at, of)
            .because(Some(Reason::Unavailable(UnavailableCause::AuditFailed)));
        if catch(|| self.inner.record(&report)).is_err() {
            self.accounts.unreported.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

impl Accounts {
    fn lose(&self, decisions: u64) -> u64 {
        self.lost.fetch_add(decisions, Ordering::Relaxed);
        self.unreported.fetch_add(decisions, Ordering::Relaxed).saturating_add(decisions)
    }

    /// The sink within has failed: told of at once, and then at each doubling.
    fn fail(&self, decisions: u64, error: &AuditError) {
        let unreported = self.lose(decisions);
        let before = unreported.saturating_sub(decisions);
        if before == 0 || before.ilog2() < unreported.ilog2() {
            tracing::error!(cause = error.0.to_string(), lost = unreported, "audit events were not written");
        }
    }
}

impl State {
    /// Gives back a proved event that finds no place.
    fn put(&mut self, event: AuditEvent<'static>, proved: usize, noise: usize) -> Option<AuditEvent<'static>> {
        let ticket = self.tickets;
        let queued = |event| Queued { ticket, event };
        if !event.is_anonymous() {
            if self.proved.len() + self.in_hand.0 >= proved {
                return Some(event);
            }
            self.proved.push_back(queued(event));
        } else if self.noise.len() + self.in_hand.1 < noise {
            self.noise.push_back(queued(event));
        } else {
            self.sum_up(&event, ticket);
        }
        self.tickets += 1;
        None
    }

    fn sum_up(&mut self, event: &AuditEvent<'static>, ticket: u64) {
        let (action, outcome, reason) = (event.action(), event.outcome(), event.reason());
        let same =
            |summary: &&mut Summary| (summary.action, summary.outcome, summary.reason) == (action, outcome, reason);
        match self.summaries.iter_mut().find(same) {
            Some(summary) => {
                summary.count += event.count();
                summary.at = summary.at.max(event.at());
            }
            // As many as there are combinations: a few dozen.
            None => {
                let (count, first_at, at) = (event.count(), event.first_at(), event.at());
                self.summaries.push(Summary { ticket, action, outcome, reason, count, first_at, at });
            }
        }
    }

    /// Takes what is next, proved events first but for noise's turn. Summaries come when nothing is left before them, and
    /// now and then where that never happens.
    fn take(&mut self, batch: &mut Vec<AuditEvent<'static>>) {
        while batch.len() < BATCH {
            let proved_next = self.turns % NOISE_TURN != NOISE_TURN - 1 || self.noise.is_empty();
            let next = if proved_next { self.proved.pop_front() } else { None };
            let is_proved = next.is_some();
            let Some(Queued { ticket, event }) = next.or_else(|| self.noise.pop_front()) else { break };
            self.turns += 1;
            if is_proved {
                self.in_hand.0 += 1
            } else {
                self.in_hand.1 += 1
            }
            self.hold(ticket);
            batch.push(event);
        }
        if batch.len() < BATCH || self.turns % SUMMARY_TURN < BATCH as u64 {
            for summary in std::mem::take(&mut self.summaries) {
                self.hold(summary.ticket);
                batch.push(summary.into_event());
            }
        }
    }

    fn hold(&mut self, ticket: u64) {
        self.oldest_in_hand = Some(self.oldest_in_hand.map_or(ticket, |oldest| oldest.min(ticket)));
    }

    /// What was in hand is done with; gives the flushes that are complete.
    fn settle(&mut self) -> Vec<oneshot::Sender<()>> {
        (self.in_hand, self.oldest_in_hand) = ((0, 0), None);
        let flushes = std::mem::take(&mut self.flushes);
        let (done, left): (Vec<_>, _) = flushes.into_iter().partition(|(last, _)| self.is_settled(*last));
        self.flushes = left;
        done.into_iter().map(|(_, flush)| flush).collect()
    }

    /// Whether nothing up to this ticket is left.
    fn is_settled(&self, last: u64) -> bool {
        let fronts = [&self.proved, &self.noise].into_iter().filter_map(|queue| queue.front());
        let tickets = fronts.map(|queued| queued.ticket).chain(self.summaries.iter().map(|summary| summary.ticket));
        tickets.chain(self.oldest_in_hand).all(|ticket| ticket > last)
    }
}

impl Summary {
    fn into_event(self) -> AuditEvent<'static> {
        let Self { action, outcome, reason, count, first_at, at, .. } = self;
        AuditEvent::of_several(action, outcome, Subject::Nobody, at, Repeated { count, first_at }).because(reason)
    }
}
