//! What is hashed, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Answer;
use crate::decision::UnavailableCause;

/// What a gate has hashed since it was built, and what its crew hashes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HashStats {
    /// Verifications that proved a secret.
    pub proved: u64,
    /// Verifications that refuted one.
    pub refuted: u64,
    /// Verifications that failed: the hasher failed or panicked, or the stored hash is unusable.
    pub failed: u64,
    /// Verifications that were refused because the crew's queue was full.
    pub refused: u64,
    /// Requests that gave up waiting for theirs.
    pub timed_out: u64,
    /// Requests that waited for a verification that was under way already.
    pub joined: u64,
    /// Jobs that wait for a worker now, of all gates and desks that share the crew.
    pub waiting: usize,
    /// Jobs that run now, of all gates and desks that share the crew.
    pub running: usize,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) proved: AtomicU64,
    pub(super) refuted: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) joined: AtomicU64,
}

impl Counts {
    /// Everything but what the crew does now.
    pub(super) fn read(&self) -> HashStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HashStats {
            proved: read(&self.proved),
            refuted: read(&self.refuted),
            failed: read(&self.failed),
            refused: read(&self.refused),
            timed_out: read(&self.timed_out),
            joined: read(&self.joined),
            ..HashStats::default()
        }
    }

    pub(super) fn answered(&self, answer: &Answer) {
        count(match answer {
            Ok(Some(_)) => &self.proved,
            Ok(None) => &self.refuted,
            Err(UnavailableCause::HashingBusy) => &self.refused,
            Err(_) => &self.failed,
        });
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
