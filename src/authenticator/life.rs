//! Until when a gate's futures have work to do.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;

/// Lives until it is ended or dropped.
pub(super) struct Life {
    alive: Mutex<Option<oneshot::Sender<Infallible>>>,
    ended: Ended,
}

/// Resolves when a gate's life has ended.
pub(super) type Ended = Shared<oneshot::Receiver<Infallible>>;

impl Life {
    pub(super) fn new() -> Self {
        let (alive, ended) = oneshot::channel();
        Self { alive: Mutex::new(Some(alive)), ended: ended.shared() }
    }

    pub(super) fn ended(&self) -> Ended {
        self.ended.clone()
    }

    pub(super) fn end(&self) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Out of the lock: this wakes those who wait.
        drop(alive);
    }
}
