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

use super::intake::Intake;
use super::outage::Outage;
use super::places::{Event, Turn};
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
    /// The last of them may be a report of what was lost.
    reports: bool,
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

struct Allowance {
    left: usize,
    since: Monotonic,
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
        taken.map_err(|error| if self.started.load(Ordering::Relaxed) { error } else { unattended() })
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
        state.sleep_until(0);
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
        state.sleep_until(BATCH);
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
        Self { backlog, noise, allowance: Allowance { left: noise, since }, in_hand: 0 }
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
            self.allowance = Allowance { left: self.noise, since: now };
        }
        let mut events = Vec::new();
        {
            let mut state = self.backlog.intake.lock();
            // Who waits for noise waits for a few thousand at most, and no caller can make anybody wait for it.
            let all = state.is_hurried();
            while events.len() < BATCH {
                let noise = all || self.allowance.left > 0;
                let turn = if noise { state.places.take() } else { state.places.take_no_noise() };
                match turn {
                    Some(Turn::Write(event)) => {
                        if event.is_anonymous() {
                            self.allowance.left = self.allowance.left.saturating_sub(1);
                        }
                        events.push(event);
                    }
                    Some(Turn::Report) => {}
                    None => break,
                }
            }
        }
        self.in_hand = events.iter().map(|event| event.decisions()).sum();
        let report = self.backlog.intake.accounts.report(|| self.backlog.clock.wall());
        let reports = report.is_some();
        events.extend(report.map(Box::new));
        Batch { events, reports }
    }

    pub(crate) fn written(&mut self, batch: Batch) {
        let Batch { mut events, reports } = batch;
        let accounts = &self.backlog.intake.accounts;
        let report = if reports { events.pop() } else { None };
        report.into_iter().for_each(|report| accounts.reported(&report));
        for event in &events {
            accounts.written(event);
            self.backlog.outage.succeeded();
        }
        self.in_hand = 0;
        self.backlog.intake.settle(|_| {});
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
            while let Some(turn) = state.places.take() {
                if let Turn::Write(event) = turn {
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
