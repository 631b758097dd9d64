//! Whether the background runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts the backgrounds of a gate that run: one is the rule. In one order with all queues (`SeqCst`), so that who leaves
/// a queue and who puts something into it do not both miss the other.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    running: AtomicUsize,
    /// Whether its absence was told of, or is nothing to tell.
    missed: AtomicBool,
}

impl Attendance {
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 0
    }

    pub(super) fn enter(&self) {
        self.running.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells the operator, once, that what the background is wanted for is not done.
    pub(super) fn miss(&self) {
        if !self.is_running() && !self.missed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "no token is looked up ahead of its TTL, no last use is written, no outdated hash is made anew and no \
                 rotation learns that its new secret is in use: add `tokio::spawn(layer.background())`"
            );
        }
    }

    /// From here on nobody misses it.
    pub(super) fn retire(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }
}
