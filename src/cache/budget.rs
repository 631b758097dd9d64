//! How much is asked of a store at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_lock::Semaphore;

/// How many flights there may be: so many that ask the store, and so many that wait to.
pub(super) struct Budget {
    pub(super) slots: Semaphore,
    pub(super) entered: AtomicUsize,
    places: usize,
}

impl Budget {
    pub(super) fn new(slots: usize, waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Semaphore::new(slots),
            entered: AtomicUsize::new(0),
            places: slots.saturating_add(waiting),
        })
    }

    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let more = |entered: usize| entered.checked_add(1).filter(|entered| *entered <= self.places);
        self.entered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// A place in a budget, given back when dropped.
pub(super) struct Place(Arc<Budget>);

impl Place {
    pub(super) fn slot(&self) -> async_lock::futures::Acquire<'_> {
        self.0.slots.acquire()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.entered.fetch_sub(1, Ordering::Relaxed);
    }
}
