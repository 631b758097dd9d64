//! Whether the background runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts the backgrounds of a gate that run: one is the rule.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    running: AtomicUsize,
    /// Whether its absence was told of, or is nothing to tell.
    missed: AtomicBool,
}

impl Attendance {
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    pub(super) fn enter(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells the operator, once, that what the background is wanted for is not done.
    pub(super) fn miss(&self) {
        if !self.is_running() && !self.missed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "no token is looked up ahead of its TTL, and no last use is written: add `tokio::spawn(layer.background())`"
            );
        }
    }

    /// From here on nobody misses it.
    pub(super) fn retire(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }
}
