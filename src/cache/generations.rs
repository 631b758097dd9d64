//! Telling whether a look-up began before an invalidation.
//!
//! Every id belongs to one of 1,024 counters. Invalidating an id counts its counter up; a look-up notes the counters
//! at its start, and what it brings is only believed while they still stand. Two ids on one counter cost each other
//! a look-up now and then, never more; memory does not grow. Which ids share one is a secret of the gate: who may
//! invalidate tokens of their own must not choose whose they keep outdating.

use ahash::RandomState;

use crate::sync::atomic::{AtomicU64, Ordering};

const STRIPES: usize = 1024;

#[derive(Debug)]
pub(crate) struct Generations {
    hasher: RandomState,
    stripes: Box<[AtomicU64]>,
    all: AtomicU64,
}

/// Where the counters of an id stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which counter is the id's.
    at: usize,
    stripe: u64,
    all: u64,
}

impl Generations {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self { hasher, stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(), all: AtomicU64::new(0) }
    }

    pub(crate) fn mark(&self, key: u128) -> Mark {
        self.mark_at(self.at(key))
    }

    /// Whether nothing was invalidated, of those that share the marked counter, since it was marked.
    pub(crate) fn is_current(&self, mark: Mark) -> bool {
        self.mark_at(mark.at) == mark
    }

    pub(crate) fn advance(&self, key: u128) {
        self.stripe(self.at(key)).fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn advance_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    fn mark_at(&self, at: usize) -> Mark {
        Mark { at, stripe: self.stripe(at).load(Ordering::SeqCst), all: self.all.load(Ordering::SeqCst) }
    }

    fn at(&self, key: u128) -> usize {
        // 10 bits are always below 1,024.
        (self.hasher.hash_one(key) >> 54) as usize
    }

    fn stripe(&self, at: usize) -> &AtomicU64 {
        self.stripes.get(at).unwrap_or(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generations(seed: u64) -> Generations {
        Generations::new(RandomState::with_seeds(seed, 2, 3, 4))
    }

    #[test]
    fn advancing_one_key_outdates_it_and_few_others() {
        let generations = generations(1);
        let keys: Vec<u128> = (0..1000).map(|at| u128::from_be_bytes(*b"0123456789ab\0\0\0\0") + at).collect();
        let marks: Vec<Mark> = keys.iter().map(|key| generations.mark(*key)).collect();
        generations.advance(keys[7]);
        assert!(!generations.is_current(marks[7]));
        let outdated = marks.iter().filter(|mark| !generations.is_current(**mark)).count();
        assert!(outdated < 10, "{outdated} of 1,000");
    }

    #[test]
    fn who_shares_a_counter_differs_between_gates() {
        let keys = 0..2_000_u128;
        let neighbours = |seed| {
            let generations = generations(seed);
            let marks: Vec<Mark> = keys.clone().map(|key| generations.mark(key)).collect();
            generations.advance(0);
            keys.clone().filter(|key| !generations.is_current(marks[*key as usize])).collect::<Vec<_>>()
        };
        let gates: std::collections::BTreeSet<_> = (0..8).map(neighbours).collect();
        assert!(gates.len() > 1, "the same everywhere: {gates:?}");
    }

    #[test]
    fn advancing_all_outdates_every_key() {
        let generations = generations(1);
        let marks = [0, 1, u128::MAX].map(|key| generations.mark(key));
        assert!(marks.iter().all(|mark| generations.is_current(*mark)));
        generations.advance_all();
        assert!(marks.iter().all(|mark| !generations.is_current(*mark)));
    }

    #[test]
    fn every_half_of_a_key_tells_it_from_others() {
        let generations = generations(1);
        for shift in [0, 64, 118] {
            let marks: Vec<_> = (0..1000).map(|at| generations.mark(at << shift)).collect();
            generations.advance(7 << shift);
            let outdated = marks.iter().filter(|mark| !generations.is_current(**mark)).count();
            assert!((1..10).contains(&outdated), "{outdated} of 1,000 that differ above bit {shift}");
        }
    }
}
