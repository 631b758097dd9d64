//! Taking turns: who issues under a limit on the number of tokens waits for those who issue for the same owner.

use std::hash::{BuildHasher, RandomState};

use async_lock::{Mutex, MutexGuard};

use crate::id::OwnerId;

/// Some owners share a turn with others, so that memory is bounded; hashed with random keys, so that nobody can choose
/// with whom.
const STRIPES: usize = 64;

pub(super) struct Turns {
    stripes: [Mutex<()>; STRIPES],
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { stripes: std::array::from_fn(|_| Mutex::new(())), hasher: RandomState::new() }
    }
}

impl Turns {
    /// The turn of those who issue for `owner`, until it is dropped. Two who issued at once would count each other's
    /// token, and both be refused for it. (Across processes they can.)
    pub(super) async fn of(&self, owner: &OwnerId) -> Option<MutexGuard<'_, ()>> {
        let at = self.hasher.hash_one(owner) as usize % STRIPES;
        match self.stripes.get(at) {
            Some(stripe) => Some(stripe.lock().await),
            None => None,
        }
    }
}
