//! Which secrets were hashed anew here: once is enough.
//!
//! Two processes that prefer different hashers, as in the middle of a deployment, would otherwise undo each other's work
//! for as long as both run.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cache::{Claim, Tag};
use crate::id::TokenId;

/// Remembers the last so many, each as one number. Two secrets that share it cost one of them its re-hash.
pub(super) struct Renewals {
    numbers: RandomState,
    capacity: usize,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Renewals {
    pub(super) fn new(capacity: usize) -> Self {
        Self { numbers: RandomState::new(), capacity, last: Mutex::default() }
    }

    pub(super) fn knows(&self, claim: &Claim) -> bool {
        let number = self.number(claim);
        self.lock().known.contains(&number)
    }

    pub(super) fn note(&self, claim: &Claim) {
        let number = self.number(claim);
        self.lock().keep(self.capacity, number);
    }

    fn number(&self, claim: &Claim) -> u64 {
        self.numbers.hash_one::<(TokenId, Tag)>((claim.id, claim.tag))
    }

    /// Nobody's code runs under the lock, so a poisoned one is as good as another.
    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    fn keep(&mut self, capacity: usize, number: u64) {
        if !self.known.insert(number) {
            return;
        }
        self.order.push_back(number);
        if self.order.len() > capacity {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_known_and_no_more() {
        let mut last = Last::default();
        for number in [1, 2, 2, 3] {
            last.keep(2, number);
        }
        assert_eq!((last.known.len(), last.order.len()), (2, 2));
        assert!(!last.known.contains(&1) && last.known.contains(&2) && last.known.contains(&3));
    }
}
