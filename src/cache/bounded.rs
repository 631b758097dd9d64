//! A concurrent map that never holds more than its capacity.
//!
//! A key is queued when it enters. When the queue is full the oldest key goes, unless it was used since: then it gets
//! a second chance (the CLOCK algorithm). Reading marks a key as used and takes no lock but its shard's.
//!
//! # Cost
//! Beside a value some 18 to 37 bytes: nine for a place in a table that is 7/16 to 7/8 full, and eight in a queue that may be
//! half empty. There are so many shards that one that grows moves no more than some thousand pointers while it is locked.
//!
//! Lock order: the queue, then a shard. Nothing takes the queue while it holds a shard, and no closure given to this
//! map may use the same map. No guard leaves this file, so none can be held across an await.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError};

use ahash::RandomState;

use crate::decision::Place;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, Shards, SharedValue};

/// How often one insertion may spare a used key before it evicts the next one all the same: bounds its stall.
const SECOND_CHANCES: usize = 16;

/// What a bounded map holds: a value that knows its key, and has room for what the map notes of it. One value stands in
/// one map only.
pub(crate) trait Kept {
    type Key: Copy + Eq + Hash;

    fn key(&self) -> Self::Key;

    fn place(&self) -> &Place;
}

pub(crate) struct Bounded<V> {
    hasher: RandomState,
    /// A dashmap of values that know their keys themselves, worked on shard by shard.
    map: Shards<Held<V>>,
    queue: Mutex<VecDeque<Queued>>,
    tickets: AtomicU32,
    /// How many values there are: counted, because going over the shards takes as many locks.
    size: AtomicUsize,
    evicted: AtomicU64,
    capacity: usize,
}

/// A value in the map's tables. Its key is its value's: a map that had both would take half as much again.
struct Held<V>(Arc<V>);

impl<V: Kept> PartialEq for Held<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<V: Kept> Eq for Held<V> {}

impl<V: Kept> Hash for Held<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

type Entry<V> = (Held<V>, SharedValue<()>);

/// A turn in the queue. It is an entry's if both are, and says nothing of its key.
///
/// Tickets come round again after 2³² entries. A turn whose entry has gone leaves the queue within two capacities' worth of
/// entries; should it meet another's ticket all the same, that one goes too early, and nothing stays for ever.
#[derive(Clone, Copy)]
struct Queued {
    hash: Hashed,
    ticket: u32,
}

/// A key's hash: its high bits choose the shard, all of it the place in the shard's table.
#[derive(Clone, Copy)]
struct Hashed(u32);

impl Hashed {
    fn in_table(self) -> u64 {
        // The table looks at the highest bits and at the lowest. The product's highest depend on all, its lowest on the
        // lowest, which have no part in choosing the shard.
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl<V: Kept> Bounded<V> {
    pub(crate) fn new(capacity: usize, hasher: RandomState) -> Self {
        Self {
            map: Shards::with_hasher_and_shard_amount(hasher.clone(), shards(capacity)),
            hasher,
            queue: Mutex::default(),
            tickets: AtomicU32::new(0),
            size: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            capacity,
        }
    }

    /// Looks at a value and marks it as used.
    pub(crate) fn read<R>(&self, key: &V::Key, look: impl FnOnce(&Arc<V>) -> R) -> Option<R> {
        let hash = self.hash(key);
        let table = self.map.shards().get(self.shard(hash))?.read();
        let (Held(value), _) = table.get(hash.in_table(), |entry| entry.0.0.key() == *key)?;
        // Storing only when it changes keeps a hot entry's cache line shared between cores.
        if !value.place().used.is_set() {
            value.place().used.set(true);
        }
        Some(look(value))
    }

    /// Changes a value where there is one.
    pub(crate) fn alter(&self, key: &V::Key, change: impl FnOnce(&mut Arc<V>)) {
        let hash = self.hash(key);
        let Some(shard) = self.map.shards().get(self.shard(hash)) else { return };
        if let Some((Held(value), _)) = shard.write().get_mut(hash.in_table(), |entry| entry.0.0.key() == *key) {
            replace(value, change);
        }
    }

    /// Sets, replaces or removes a value, in one step for all others. Values that have to make room for a new one are
    /// counted if `is_live` says so.
    pub(crate) fn merge(
        &self,
        key: V::Key,
        is_live: impl Fn(&V) -> bool,
        decide: impl FnOnce(Option<&Arc<V>>) -> Option<Arc<V>>,
    ) {
        let hash = self.hash(&key);
        if let Some(ticket) = self.merge_in(key, hash, decide) {
            self.enqueue(Queued { hash, ticket }, is_live);
        }
    }

    /// The ticket of a key that has entered.
    fn merge_in(
        &self,
        key: V::Key,
        hash: Hashed,
        decide: impl FnOnce(Option<&Arc<V>>) -> Option<Arc<V>>,
    ) -> Option<u32> {
        let is_it = |entry: &Entry<V>| entry.0.0.key() == key;
        let mut table = self.map.shards().get(self.shard(hash))?.write();
        match table.get_mut(hash.in_table(), is_it) {
            Some((Held(old), _)) => {
                match decide(Some(old)) {
                    Some(value) => replace(old, |place| *place = value),
                    None => {
                        drop(table.remove_entry(hash.in_table(), is_it));
                        self.size.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                None
            }
            None => decide(None).map(|value| {
                let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
                // Counted before it is there: whoever removes it counts after that.
                self.size.fetch_add(1, Ordering::Relaxed);
                value.place().enter(ticket, false);
                let rehash = |entry: &Entry<V>| self.hash(&entry.0.0.key()).in_table();
                table.insert(hash.in_table(), (Held(value), SharedValue::new(())), rehash);
                ticket
            }),
        }
    }

    pub(crate) fn remove(&self, key: &V::Key) {
        drop(self.take(self.hash(key), |value| value.key() == *key));
    }

    pub(crate) fn clear(&self) {
        for shard in self.map.shards() {
            let mut table = shard.write();
            self.size.fetch_sub(table.len(), Ordering::Relaxed);
            table.clear();
        }
    }

    /// Changes every value, one shard after the other, each under the lock that whoever replaces a value takes.
    pub(crate) fn alter_all(&self, change: impl Fn(&V)) {
        #[cfg(not(all(test, shuttle)))]
        self.map.iter_mut().for_each(|entry| change(&entry.key().0));
        #[cfg(all(test, shuttle))]
        self.map.for_each(|held| change(&held.0));
    }

    /// How many values there are now.
    pub(crate) fn len(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// How many live values have gone for want of room.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn enqueue(&self, entered: Queued, is_live: impl Fn(&V) -> bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(entered);
        let mut chances = SECOND_CHANCES;
        while queue.len() > self.capacity {
            let Some(turn) = queue.pop_front() else { break };
            // What just entered has had no time to be used; the others have lost their chance by its turn.
            if turn.ticket != entered.ticket && self.leaves(turn, &mut chances) {
                let evicted = self.take(turn.hash, |value| value.place().ticket() == turn.ticket);
                let live = evicted.is_some_and(|value| is_live(&value));
                self.evicted.fetch_add(u64::from(live), Ordering::Relaxed);
            } else {
                queue.push_back(turn);
            }
        }
    }

    /// Whether a queued key is to go; one that was used since is spared while `chances` last.
    fn leaves(&self, turn: Queued, chances: &mut usize) -> bool {
        let spared = *chances > 0 && self.was_used(turn);
        *chances = chances.saturating_sub(usize::from(spared));
        !spared
    }

    fn was_used(&self, turn: Queued) -> bool {
        let Some(shard) = self.map.shards().get(self.shard(turn.hash)) else { return false };
        let table = shard.read();
        let entry = table.get(turn.hash.in_table(), |entry| entry.0.0.place().ticket() == turn.ticket);
        entry.is_some_and(|entry| entry.0.0.place().used.take())
    }

    /// Takes an entry out, and counts that it has gone.
    fn take(&self, hash: Hashed, is_it: impl Fn(&V) -> bool) -> Option<Arc<V>> {
        let mut table = self.map.shards().get(self.shard(hash))?.write();
        let (Held(value), _) = table.remove_entry(hash.in_table(), |entry| is_it(&entry.0.0))?;
        self.size.fetch_sub(1, Ordering::Relaxed);
        Some(value)
    }

    fn hash(&self, key: &V::Key) -> Hashed {
        Hashed((self.hasher.hash_one(key) >> 32) as u32)
    }

    /// Which shard: always below their number.
    fn shard(&self, hash: Hashed) -> usize {
        ((u64::from(hash.0) * self.map.shards().len() as u64) >> 32) as usize
    }
}

/// Changes an entry, which keeps its place.
fn replace<V: Kept>(value: &mut Arc<V>, change: impl FnOnce(&mut Arc<V>)) {
    let (ticket, used) = (value.place().ticket(), value.place().used.is_set());
    change(value);
    value.place().enter(ticket, used);
}

/// Enough shards that cores rarely meet, and that each is small.
fn shards(capacity: usize) -> usize {
    if cfg!(all(test, shuttle)) {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let for_cores = cores.saturating_mul(16).clamp(64, 1024);
    // dashmap asserts a power of two.
    capacity.div_ceil(FULL_SHARD).clamp(for_cores, 1 << 16).next_power_of_two()
}

/// How many entries a shard has at most, or so.
const FULL_SHARD: usize = 800;

impl<V> fmt::Debug for Bounded<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A number under another.
    #[derive(Default)]
    pub(in crate::cache) struct Number(u32, u32, Place);

    impl Kept for Number {
        type Key = u32;

        fn key(&self) -> u32 {
            self.0
        }

        fn place(&self) -> &Place {
            &self.2
        }
    }

    pub(in crate::cache) fn put(map: &Bounded<Number>, key: u32) {
        map.merge(key, |_| true, |_| Some(number(key, key)));
    }

    fn number(key: u32, value: u32) -> Arc<Number> {
        Arc::new(Number(key, value, Place::default()))
    }

    fn map(capacity: usize) -> Bounded<Number> {
        Bounded::new(capacity, RandomState::with_seeds(1, 2, 3, 4))
    }

    fn keys(map: &Bounded<Number>, range: std::ops::Range<u32>) -> Vec<u32> {
        range.filter(|key| map.read(key, |_| ()).is_some()).collect()
    }

    /// Without marking it as used.
    fn has(map: &Bounded<Number>, key: &u32) -> bool {
        let hash = map.hash(key);
        let table = map.map.shards()[map.shard(hash)].read();
        table.get(hash.in_table(), |entry| entry.0.0.0 == *key).is_some()
    }

    fn held(map: &Bounded<Number>) -> usize {
        map.map.shards().iter().map(|shard| shard.read().len()).sum()
    }

    #[test]
    fn a_flood_never_exceeds_the_capacity() {
        let map = map(100);
        for key in 0..10_000 {
            put(&map, key);
            assert!(map.len() <= 100 && map.len() == held(&map));
        }
        assert_eq!(keys(&map, 0..10_000).len(), 100);
    }

    #[test]
    fn only_live_values_count_as_evicted() {
        let map = map(10);
        for key in 0..30 {
            map.merge(key, |value| value.1 % 2 == 0, |_| Some(number(key, key)));
        }
        assert_eq!((map.len(), map.evicted()), (10, 10), "20 have gone, every other was live");
        map.remove(&29);
        assert_eq!(map.evicted(), 10, "removed, not evicted");
    }

    #[test]
    fn a_used_key_outlives_unused_ones() {
        let map = map(3);
        for key in 0..3 {
            put(&map, key);
        }
        assert!(map.read(&0, |_| ()).is_some());
        put(&map, 3);
        assert!(has(&map, &0), "used, so spared");
        assert!(!has(&map, &1), "the oldest unused one");
    }

    #[test]
    fn a_key_that_came_back_is_not_evicted_for_its_first_life() {
        let map = map(2);
        put(&map, 1);
        map.remove(&1);
        put(&map, 1);
        put(&map, 2);
        assert!(has(&map, &1) && has(&map, &2));
    }

    #[test]
    fn merging_sees_what_is_there_and_may_remove_it() {
        let map = map(2);
        map.merge(1, |_| true, |old| Some(number(1, old.map_or(0, |old| old.1) + 1)));
        map.merge(1, |_| true, |old| Some(number(1, old.map_or(0, |old| old.1) + 1)));
        assert_eq!(map.read(&1, |value| value.1), Some(2));
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
                put(&map, key);
            }
            assert!(!has(&map, &0), "of {capacity}");
            assert_eq!((map.len(), map.evicted()), (capacity, 1));
        }
    }

    #[test]
    fn one_insertion_spares_no_more_than_it_may() {
        let map = map(2 * SECOND_CHANCES);
        let full = u32::try_from(map.capacity).unwrap();
        for key in 0..full {
            put(&map, key);
        }
        assert_eq!(keys(&map, 0..full).len(), map.capacity, "all are used now");
        put(&map, full);
        let gone: Vec<u32> = (0..=full).filter(|key| !has(&map, key)).collect();
        assert_eq!(gone, [u32::try_from(SECOND_CHANCES).unwrap()], "the next one, though used");
    }

    #[test]
    fn what_is_removed_or_cleared_is_gone() {
        let map = map(5);
        for key in 0..5 {
            put(&map, key);
        }
        map.remove(&2);
        assert_eq!((keys(&map, 0..5), map.len()), (vec![0, 1, 3, 4], 4));
        map.clear();
        assert_eq!((keys(&map, 0..5), map.len()), (vec![], 0));
    }
}
