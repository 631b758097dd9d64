//! A concurrent map that never holds more than its capacity.
//!
//! A key is queued when it enters. When the queue is full the oldest key goes, unless it was used since: then it gets
//! a second chance (the CLOCK algorithm). Reading marks a key as used and takes no lock but its shard's.
//!
//! Lock order: the queue, then a shard. Nothing takes the queue while it holds a shard, and no closure given to this
//! map may use the same map. No guard leaves this file, so none can be held across an await.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::sync::PoisonError;

use ahash::RandomState;

use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{DashMap, Entry, Mutex};

/// How often one insertion may spare a used key before it evicts the next one all the same: bounds its stall.
const SECOND_CHANCES: usize = 16;

pub(crate) struct Bounded<K, V> {
    map: DashMap<K, Place<V>, RandomState>,
    queue: Mutex<VecDeque<(K, u64)>>,
    tickets: AtomicU64,
    /// How many values there are: counted, because going over the shards takes as many locks.
    size: AtomicUsize,
    evicted: AtomicU64,
    capacity: usize,
}

struct Place<V> {
    value: V,
    /// Tells this entry from an earlier one of the same key that is still queued.
    ticket: u64,
    used: AtomicBool,
}

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    pub(crate) fn new(capacity: usize, hasher: RandomState) -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(hasher, shards()),
            queue: Mutex::default(),
            tickets: AtomicU64::new(0),
            size: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            capacity,
        }
    }

    /// Looks at a value and marks it as used.
    pub(crate) fn read<R>(&self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        let place = self.map.get(key)?;
        // Storing only when it changes keeps a hot entry's cache line shared between cores.
        if !place.used.load(Ordering::Relaxed) {
            place.used.store(true, Ordering::Relaxed);
        }
        Some(look(&place.value))
    }

    /// Changes a value where there is one.
    pub(crate) fn alter(&self, key: &K, change: impl FnOnce(&mut V)) {
        if let Some(mut place) = self.map.get_mut(key) {
            change(&mut place.value);
        }
    }

    /// Sets, replaces or removes a value, in one step for all others. Values that have to make room for a new one are
    /// counted if `is_live` says so.
    pub(crate) fn merge(&self, key: K, is_live: impl Fn(&V) -> bool, decide: impl FnOnce(Option<&V>) -> Option<V>) {
        let entered = match self.map.entry(key) {
            Entry::Occupied(mut entry) => {
                match decide(Some(&entry.get().value)) {
                    Some(value) => entry.get_mut().value = value,
                    None => {
                        drop(entry.remove());
                        self.size.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                None
            }
            Entry::Vacant(entry) => decide(None).map(|value| {
                let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
                // Counted before it is there: whoever removes it counts after that.
                self.size.fetch_add(1, Ordering::Relaxed);
                entry.insert(Place { value, ticket, used: AtomicBool::new(false) });
                ticket
            }),
        };
        if let Some(ticket) = entered {
            self.enqueue(key, ticket, is_live);
        }
    }

    pub(crate) fn remove(&self, key: &K) {
        let removed = self.map.remove(key).is_some();
        self.size.fetch_sub(usize::from(removed), Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.map.retain(|_, _| {
            self.size.fetch_sub(1, Ordering::Relaxed);
            false
        });
    }

    /// Changes every value, one shard after the other.
    pub(crate) fn alter_all(&self, change: impl Fn(&mut V)) {
        #[cfg(not(all(test, shuttle)))]
        self.map.iter_mut().for_each(|mut place| change(&mut place.value));
        #[cfg(all(test, shuttle))]
        self.map.alter_all(|place| change(&mut place.value));
    }

    /// How many values there are now.
    pub(crate) fn len(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// How many live values have gone for want of room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn enqueue(&self, key: K, entered: u64, is_live: impl Fn(&V) -> bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back((key, entered));
        let mut chances = SECOND_CHANCES;
        while queue.len() > self.capacity {
            let Some((key, ticket)) = queue.pop_front() else { break };
            // What just entered has had no time to be used; the others have lost their chance by its turn.
            if ticket != entered && self.leaves(&key, ticket, &mut chances) {
                let evicted = self.map.remove_if(&key, |_, place| place.ticket == ticket);
                self.size.fetch_sub(usize::from(evicted.is_some()), Ordering::Relaxed);
                let live = evicted.is_some_and(|(_, place)| is_live(&place.value));
                self.evicted.fetch_add(u64::from(live), Ordering::Relaxed);
            } else {
                queue.push_back((key, ticket));
            }
        }
    }

    /// Whether a queued key is to go; one that was used since is spared while `chances` last.
    fn leaves(&self, key: &K, ticket: u64, chances: &mut usize) -> bool {
        let spared = *chances > 0
            && self
                .map
                .get(key)
                .is_some_and(|place| place.ticket == ticket && place.used.swap(false, Ordering::Relaxed));
        *chances = chances.saturating_sub(usize::from(spared));
        !spared
    }
}

/// Enough shards that cores rarely meet; dashmap asserts a power of two.
fn shards() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.saturating_mul(16).clamp(64, 1024).next_power_of_two()
}

impl<K: Eq + Hash, V> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(capacity: usize) -> Bounded<u32, u32> {
        Bounded::new(capacity, RandomState::with_seeds(1, 2, 3, 4))
    }

    fn keys(map: &Bounded<u32, u32>, range: std::ops::Range<u32>) -> Vec<u32> {
        range.filter(|key| map.read(key, |_| ()).is_some()).collect()
    }

    #[test]
    fn a_flood_never_exceeds_the_capacity() {
        let map = map(100);
        for key in 0..10_000 {
            map.merge(key, |_| true, |_| Some(key));
            assert!(map.len() <= 100 && map.len() == map.map.len());
        }
        assert_eq!(keys(&map, 0..10_000).len(), 100);
    }

    #[test]
    fn only_live_values_count_as_evicted() {
        let map = map(10);
        for key in 0..30 {
            map.merge(key, |value| value % 2 == 0, |_| Some(key));
        }
        assert_eq!((map.len(), map.evicted()), (10, 10), "20 have gone, every other was live");
        map.remove(&29);
        assert_eq!(map.evicted(), 10, "removed, not evicted");
    }

    #[test]
    fn a_used_key_outlives_unused_ones() {
        let map = map(3);
        for key in 0..3 {
            map.merge(key, |_| true, |_| Some(key));
        }
        assert!(map.read(&0, |_| ()).is_some());
        map.merge(3, |_| true, |_| Some(3));
        assert!(map.map.contains_key(&0), "used, so spared");
        assert!(!map.map.contains_key(&1), "the oldest unused one");
    }

    #[test]
    fn a_key_that_came_back_is_not_evicted_for_its_first_life() {
        let map = map(2);
        map.merge(1, |_| true, |_| Some(1));
        map.remove(&1);
        map.merge(1, |_| true, |_| Some(1));
        map.merge(2, |_| true, |_| Some(2));
        assert!(map.map.contains_key(&1) && map.map.contains_key(&2));
    }

    #[test]
    fn merging_sees_what_is_there_and_may_remove_it() {
        let map = map(2);
        map.merge(1, |_| true, |old| Some(old.copied().unwrap_or(0) + 1));
        map.merge(1, |_| true, |old| Some(old.copied().unwrap_or(0) + 1));
        assert_eq!(map.read(&1, |value| *value), Some(2));
        map.merge(1, |_| true, |_| None);
        assert_eq!(map.len(), 0);
        map.merge(1, |_| true, |_| None);
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn the_oldest_goes_where_none_was_used() {
        for capacity in 1..10 {
            let map = map(capacity);
            for key in 0..=u32::try_from(capacity).unwrap() {
                map.merge(key, |_| true, |_| Some(key));
            }
            assert!(!map.map.contains_key(&0), "of {capacity}");
            assert_eq!((map.len(), map.evicted()), (capacity, 1));
        }
    }

    #[test]
    fn one_insertion_spares_no_more_than_it_may() {
        let map = map(2 * SECOND_CHANCES);
        let full = u32::try_from(map.capacity).unwrap();
        for key in 0..full {
            map.merge(key, |_| true, |_| Some(key));
        }
        assert_eq!(keys(&map, 0..full).len(), map.capacity, "all are used now");
        map.merge(full, |_| true, |_| Some(full));
        let gone: Vec<u32> = (0..=full).filter(|key| !map.map.contains_key(key)).collect();
        assert_eq!(gone, [u32::try_from(SECOND_CHANCES).unwrap()], "the next one, though used");
    }

    #[test]
    fn what_is_removed_or_cleared_is_gone() {
        let map = map(5);
        for key in 0..5 {
            map.merge(key, |_| true, |_| Some(key));
        }
        map.remove(&2);
        assert_eq!((keys(&map, 0..5), map.len()), (vec![0, 1, 3, 4], 4));
        map.clear();
        assert_eq!((keys(&map, 0..5), map.len()), (vec![], 0));
    }
}
