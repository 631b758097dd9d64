//! A map of what was met lately, with a bound.

use std::collections::BTreeMap;

/// When it is full, the key that was touched longest ago makes room for a new one.
///
/// Ordered maps, because their cost is the same for every choice of keys, and callers choose some of them.
pub(super) struct Recent<K, V> {
    places: BTreeMap<K, Place<V>>,
    /// By when they were touched last.
    order: BTreeMap<u64, K>,
    touches: u64,
    capacity: usize,
}

struct Place<V> {
    touched: u64,
    value: V,
}

impl<K: Copy + Ord, V> Recent<K, V> {
    /// For this many keys, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self { places: BTreeMap::new(), order: BTreeMap::new(), touches: 0, capacity: capacity.max(1) }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.places.get(key).map(|place| &place.value)
    }

    /// A value to be changed, without touching its key.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.places.get_mut(key).map(|place| &mut place.value)
    }

    /// The key's value, or a new one. The key is the last that makes room.
    pub(super) fn touch(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.places.len() >= self.capacity && !self.places.contains_key(&key) {
            self.forget_oldest();
        }
        let touched = self.touches;
        self.touches += 1;
        self.order.insert(touched, key);
        let place = self.places.entry(key).or_insert_with(|| Place { touched, value: make() });
        let before = std::mem::replace(&mut place.touched, touched);
        if before != touched {
            self.order.remove(&before);
        }
        &mut place.value
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.order.pop_first() {
            self.places.remove(&oldest);
        }
    }

    /// The values of all keys greater than this one, in the keys' order.
    pub(super) fn after(&self, key: Option<K>) -> impl Iterator<Item = (&K, &V)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (key.map_or(Unbounded, Excluded), Unbounded);
        self.places.range(range).map(|(key, place)| (key, &place.value))
    }
}

#[cfg(test)]
impl<K, V> Recent<K, V> {
    /// How many keys there are, and how many the order knows.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.places.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_touched_longest_ago_makes_room() {
        let mut recent = Recent::new(3);
        for key in [1, 2, 3, 1] {
            *recent.touch(key, || 0) += 1;
        }
        recent.get_mut(&2).into_iter().for_each(|value| *value = 9);
        recent.touch(4, || 0);
        assert_eq!(recent.get(&2), None, "to change a value is not to touch its key");
        let left: Vec<_> = recent.after(None).map(|(key, value)| (*key, *value)).collect();
        assert_eq!(left, [(1, 2), (3, 1), (4, 0)]);
        assert_eq!(recent.after(Some(1)).count(), 2);
    }

    #[test]
    fn a_flood_stays_within_the_bound() {
        let mut recent = Recent::new(10);
        for key in 0..10_000 {
            recent.touch(key, || ());
            recent.touch(0, || ());
            assert!(recent.sizes().0 <= 10 && recent.sizes().0 == recent.sizes().1);
        }
        assert!(recent.get(&0).is_some(), "it was touched all the time");
    }
}
