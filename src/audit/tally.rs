//! Accounts: every decision is written, coalesced, sampled, lost, or still on its way.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::clock::Clock;

/// What became of the events that a sink was given. At rest the five add up to the decisions it was told (for a
/// [`FanOut`](crate::FanOut), to more: see [`AuditStats`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditTally {
    /// Decisions written, each as an event of its own.
    pub written: u64,
    /// Decisions written as part of a summary.
    pub coalesced: u64,
    /// Decisions that a [`SampledSink`](crate::SampledSink) has only counted.
    pub sampled: u64,
    /// Decisions that were not written and will not be.
    pub lost: u64,
    /// Decisions that wait to be written.
    pub queued: u64,
}

impl AuditTally {
    /// A tally to be filled in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            coalesced: self.coalesced + other.coalesced,
            sampled: self.sampled + other.sampled,
            lost: self.lost + other.lost,
            queued: self.queued + other.queued,
        }
    }
}

/// What became of a gate's audit events: `events` is the sum of all the others, at rest, where the gate and its desk have
/// the sink to themselves.
///
/// The last five are the sink's own, whoever gives it events. Of a [`FanOut`](crate::FanOut) they are the sum over the
/// sinks that keep a [tally](crate::AuditSink::tally), and `lost` has what the others did not take, too: an event that
/// two queues have written counts twice, and so does one that a queue has written and the sink beside it has lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStats {
    /// Decisions of the gate, and acts at its desk.
    pub events: u64,
    /// Those the sink did not want to hear of.
    pub unheard: u64,
    /// Those written, each as an event of its own.
    pub written: u64,
    /// Those written as part of a summary.
    pub coalesced: u64,
    /// Those that a [`SampledSink`](crate::SampledSink) has only counted.
    pub sampled: u64,
    /// Those that were not written and will not be.
    pub lost: u64,
    /// Those that wait to be written.
    pub queued: u64,
}

impl AuditStats {
    pub(super) fn tallied(events: u64, unheard: u64, tally: AuditTally) -> Self {
        let AuditTally { written, coalesced, sampled, lost, queued } = tally;
        Self { events, unheard, written, coalesced, sampled, lost, queued }
    }

    pub(super) fn settled(events: u64, unheard: u64, lost: u64) -> Self {
        let written = events.saturating_sub(unheard).saturating_sub(lost);
        Self { events, unheard, written, lost, ..Self::default() }
    }
}

/// Returned by [`AuditSink::flush`](crate::AuditSink::flush).
pub type Flush = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A shutdown has ended, and something still waits to be written: the deadline has passed, or the store has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unflushed {
    events: u64,
    uses: u64,
}

impl Unflushed {
    pub(crate) const fn new(events: u64, uses: u64) -> Self {
        Self { events, uses }
    }

    /// How many decisions wait.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Of how many tokens the last use waits. A sink's own shutdown knows of none.
    #[must_use]
    pub const fn uses(&self) -> u64 {
        self.uses
    }
}

impl fmt::Display for Unflushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, uses } = self;
        match (events, uses) {
            (events, 0) => write!(f, "{events} audit events were not written before the deadline"),
            (0, uses) => write!(f, "the last uses of {uses} tokens were not written"),
            _ => write!(f, "{events} audit events and the last uses of {uses} tokens were not written"),
        }
    }
}

impl StdError for Unflushed {}

/// Waits for a flush, but not longer than `deadline`; `queued` says what is left then.
pub(crate) async fn flush_within(
    flush: Flush,
    clock: &dyn Clock,
    deadline: Duration,
    queued: impl FnOnce() -> u64,
) -> Result<(), Unflushed> {
    match select(flush, clock.sleep(deadline)).await {
        Either::Left(((), _)) => Ok(()),
        Either::Right(((), _)) => Err(Unflushed::new(queued(), 0)),
    }
}
