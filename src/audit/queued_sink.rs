//! A queue before a sink, so that no request waits for one that does I/O.
//!
//! One thread takes the events in turn and gives them to the sink within. What it has no time for is bounded, and
//! every decision is accounted for.
//!
//! # What it guarantees
//! * [`record`](AuditSink::record) waits for nothing but a short lock, however slow the sink within is.
//! * *Proved* events (about a token whose secret was checked, or an act at the desk) have places of their own. Events
//!   about anybody else are *noise*: they have a tenth of the places, and what finds none there is counted by action,
//!   outcome and reason, exactly, and written as one summary for each. No amount of noise costs a proved event.
//! * A proved event that finds no place is lost, and [`record`](AuditSink::record) says so:
//!   [`OnAuditFailure::Refuse`](crate::OnAuditFailure::Refuse) then refuses the request.
//! * Losses are counted, and reported to the sink within as an event of their own
//!   ([`Action::ReportLoss`](crate::Action::ReportLoss)) once it writes again.
//! * Events of one kind are written in their order. Of seven proved events and more, noise gets the eighth turn.
//!
//! # When things fail
//! | the sink within | what happens |
//! |---|---|
//! | is slow | the queue fills; then proved events are lost and noise is summed up |
//! | answers an error, or panics | the event is lost |
//! | hangs | as slow; its thread can not be ended, only left |
//!
//! # Cost
//! An owned copy of the event (2 to 4 small allocations), a mutex, and a wake-up where the thread sleeps. A full queue
//! of the default size holds some 5 MiB.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt;

use super::event::{Repeated, Subject};
use super::tally::{AuditTally, Flush, Unflushed, flush_within};
use super::{Action, AuditError, AuditEvent, AuditSink, Outcome, catch};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::BuildError;
use crate::decision::{Reason, UnavailableCause};

/// How many events the thread takes at a time.
const BATCH: usize = 32;
/// Of how many turns noise gets one while proved events wait.
const NOISE_TURN: u64 = 8;
/// After how many turns summaries are written at the latest, if they never come to their own.
const SUMMARY_TURN: u64 = 1_024;

/// A bounded queue before a sink, with a thread of its own. A clone is another handle to the same queue.
///
/// When the last handle is gone, the thread writes what is left and ends. A process that ends earlier loses it: call
/// [`shutdown`](Self::shutdown), or [`AuthHandle::shutdown`](crate::AuthHandle::shutdown), first.
///
/// # Example
/// ```
/// use tower_token_auth::{MemoryStore, OnAuditFailure, QueuedSink, TokenAuthLayer, TracingSink};
///
/// let queue = QueuedSink::builder(TracingSink::new()).capacity(50_000).build()?;
/// let auth = TokenAuthLayer::builder(MemoryStore::new())
///     .audit(queue.clone())
///     .on_audit_failure(OnAuditFailure::Refuse)
///     .build()?;
/// # Ok::<(), tower_token_auth::BuildError>(())
/// ```
#[derive(Clone)]
pub struct QueuedSink {
    queue: Arc<Queue>,
    _open: Arc<Open>,
}

/// Configures a [`QueuedSink`].
#[must_use = "a builder does nothing until it is built"]
pub struct QueuedSinkBuilder {
    inner: Arc<dyn AuditSink>,
    capacity: usize,
    noise: Option<usize>,
    clock: Arc<dyn Clock>,
}

impl QueuedSink {
    /// A queue of 10,000 events before `inner`.
    ///
    /// # Errors
    /// [`BuildError::Thread`] when the system has no thread to give.
    pub fn new(inner: impl AuditSink) -> Result<Self, BuildError> {
        Self::builder(inner).build()
    }

    /// A queue before `inner`, to be configured.
    pub fn builder(inner: impl AuditSink) -> QueuedSinkBuilder {
        QueuedSinkBuilder { inner: Arc::new(inner), capacity: 10_000, noise: None, clock: Arc::new(SystemClock::new()) }
    }

    /// Waits until what was recorded before is written, at most for `deadline`. What is recorded afterwards is taken
    /// all the same.
    ///
    /// # Errors
    /// [`Unflushed`] with the number of decisions that wait when the deadline has passed.
    ///
    /// # Cancellation
    /// Dropped, it changes nothing.
    pub fn shutdown(&self, deadline: Duration) -> impl Future<Output = Result<(), Unflushed>> + Send + use<> {
        let (flush, queue) = (self.flush(), Arc::clone(&self.queue));
        async move { flush_within(flush, &*queue.clock, deadline, || queue.tally().queued).await }
    }
}

impl QueuedSinkBuilder {
    /// How many events may wait, at least 2. Default 10,000.
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// How many of these places noise may take, less than the capacity. Default: a tenth. With zero all of it is
    /// summed up.
    pub fn noise(self, noise: usize) -> Self {
        Self { noise: Some(noise), ..self }
    }

    /// The clock of deadlines. Default: the machine's.
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// The queue, with its thread.
    ///
    /// # Errors
    /// [`BuildError`] when the capacity is too small or leaves no place for proved events, and when the system has no
    /// thread to give.
    pub fn build(self) -> Result<QueuedSink, BuildError> {
        let Self { inner, capacity, noise, clock } = self;
        let noise = noise.unwrap_or(capacity / 10);
        if capacity < 2 || noise >= capacity {
            return Err(BuildError::AuditQueue);
        }
        let queue = Arc::new(Queue::new(inner, clock, capacity - noise, noise));
        let worker = Arc::clone(&queue);
        let thread = thread::Builder::new().name("token-auth-audit".to_owned());
        thread.spawn(move || worker.work()).map_err(BuildError::Thread)?;
        Ok(QueuedSink { _open: Arc::new(Open(Arc::clone(&queue))), queue })
    }
}

impl AuditSink for QueuedSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.queue.take_in(event.clone().into_owned())
    }

    fn wants(&self, outcome: Outcome) -> bool {
        self.queue.inner.wants(outcome)
    }

    fn tally(&self) -> Option<AuditTally> {
        Some(self.queue.tally())
    }

    fn flush(&self) -> Flush {
        self.queue.flush()
    }
}

impl fmt::Debug for QueuedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedSink").field("tally", &self.queue.tally()).finish_non_exhaustive()
    }
}

impl fmt::Debug for QueuedSinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedSinkBuilder").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Lets the thread end when the last handle goes.
struct Open(Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_all();
    }
}

/// What the handles and the thread share.
struct Queue {
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
    fn new(inner: Arc<dyn AuditSink>, clock: Arc<dyn Clock>, proved: usize, noise: usize) -> Self {
        let (state, wake, accounts) = (Mutex::default(), Condvar::new(), Accounts::default());
        Self { inner, clock, proved, noise, state, wake, accounts }
    }

    /// No code of others runs under the lock, so a poisoned one guards nothing half-done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, event: AuditEvent<'static>) -> Result<(), AuditError> {
        let decisions = event.count();
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

    fn tally(&self) -> AuditTally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Accounts { written, coalesced, lost, told, .. } = &self.accounts;
        // Settled ones first: a decision is told before it is settled, so the difference never falls below zero.
        let (written, coalesced, lost) = (read(written), read(coalesced), read(lost));
        let queued = read(told).saturating_sub(written + coalesced + lost);
        AuditTally { written, coalesced, lost, queued }
    }

    fn flush(&self) -> Flush {
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
    fn work(&self) {
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
        let (count, summed_up) = (event.count(), event.repeated.is_some());
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
        let report = AuditEvent {
            at,
            repeated: Some(Repeated { count: lost, first_at: at }),
            action: Action::ReportLoss,
            outcome: Outcome::Unavailable,
            reason: Some(Reason::Unavailable(UnavailableCause::AuditFailed)),
            subject: Subject::Nobody,
            access: None,
            request: None,
            actor: None,
        };
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
        AuditEvent {
            at: self.at,
            repeated: Some(Repeated { count: self.count, first_at: self.first_at }),
            action: self.action,
            outcome: self.outcome,
            reason: self.reason,
            subject: Subject::Nobody,
            access: None,
            request: None,
            actor: None,
        }
    }
}
