//! Locks, atomics, thread locals and the sharded map, under names that a model can take over.
//!
//! Ordinarily these are the standard library's and dashmap's own. Built for tests with `--cfg shuttle` they are
//! [shuttle](https://docs.rs/shuttle)'s, which runs a test under thousands of schedules: see `models` in the
//! authenticator and in the cache.

#[cfg(not(all(test, shuttle)))]
pub(crate) use dashmap::{DashMap, SharedValue, mapref::entry::Entry};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, atomic};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::thread_local;

/// A map whose keys are all it holds.
#[cfg(not(all(test, shuttle)))]
pub(crate) type Shards<T> = DashMap<T, (), ahash::RandomState>;

#[cfg(all(test, shuttle))]
pub(crate) use modelled::{DashMap, Entry, Shards, SharedValue};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, atomic};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::thread_local;

/// A map of one shard: every operation, and every guard, holds its lock.
#[cfg(all(test, shuttle))]
mod modelled {
    use std::collections::HashMap;
    use std::hash::Hash;
    use std::ops::{Deref, DerefMut};

    use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) use dashmap::SharedValue;

    /// The shards of a dashmap whose keys are all it holds: here one, and its table a list.
    pub(crate) struct Shards<T>([Shard<T>; 1]);

    pub(crate) struct Shard<T>(RwLock<Table<T>>);

    pub(crate) struct Table<T>(Vec<(u64, (T, SharedValue<()>))>);

    impl<T> Shards<T> {
        pub(crate) fn with_hasher_and_shard_amount<S>(_: S, _: usize) -> Self {
            Self([Shard(RwLock::new(Table(Vec::new())))])
        }

        pub(crate) fn shards(&self) -> &[Shard<T>] {
            &self.0
        }

        pub(crate) fn for_each(&self, change: impl Fn(&T)) {
            self.0.iter().for_each(|shard| shard.write().0.iter().for_each(|(_, (held, _))| change(held)));
        }
    }

    impl<T> Shard<T> {
        pub(crate) fn read(&self) -> RwLockReadGuard<'_, Table<T>> {
            self.0.read().unwrap()
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Table<T>> {
            self.0.write().unwrap()
        }
    }

    impl<T> Table<T> {
        pub(crate) fn get(
            &self,
            _: u64,
            mut is_it: impl FnMut(&(T, SharedValue<()>)) -> bool,
        ) -> Option<&(T, SharedValue<()>)> {
            self.0.iter().map(|(_, entry)| entry).find(|entry| is_it(entry))
        }

        pub(crate) fn get_mut(
            &mut self,
            _: u64,
            mut is_it: impl FnMut(&(T, SharedValue<()>)) -> bool,
        ) -> Option<&mut (T, SharedValue<()>)> {
            self.0.iter_mut().map(|(_, entry)| entry).find(|entry| is_it(entry))
        }

        pub(crate) fn insert(
            &mut self,
            hash: u64,
            entry: (T, SharedValue<()>),
            _: impl Fn(&(T, SharedValue<()>)) -> u64,
        ) {
            self.0.push((hash, entry));
        }

        pub(crate) fn remove_entry(
            &mut self,
            _: u64,
            mut is_it: impl FnMut(&(T, SharedValue<()>)) -> bool,
        ) -> Option<(T, SharedValue<()>)> {
            let at = self.0.iter().position(|(_, entry)| is_it(entry))?;
            Some(self.0.swap_remove(at).1)
        }

        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn clear(&mut self) {
            self.0.clear();
        }
    }

    pub(crate) struct DashMap<K, V>(Mutex<HashMap<K, V>>);

    impl<K, V> Default for DashMap<K, V> {
        fn default() -> Self {
            Self(Mutex::new(HashMap::new()))
        }
    }

    impl<K: Copy + Eq + Hash, V> DashMap<K, V> {
        fn lock(&self) -> MutexGuard<'_, HashMap<K, V>> {
            self.0.lock().unwrap()
        }

        pub(crate) fn entry(&self, key: K) -> Entry<'_, K, V> {
            let values = self.lock();
            let place = Ref { values, key };
            if place.values.contains_key(&key) {
                Entry::Occupied(Occupied(place))
            } else {
                Entry::Vacant(Vacant(place))
            }
        }

        pub(crate) fn remove_if(&self, key: &K, condition: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
            let mut values = self.lock();
            values
                .get(key)
                .is_some_and(|value| condition(key, value))
                .then(|| values.remove(key))
                .flatten()
                .map(|value| (*key, value))
        }

        pub(crate) fn len(&self) -> usize {
            self.lock().len()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.lock().is_empty()
        }
    }

    pub(crate) struct Ref<'a, K, V> {
        values: MutexGuard<'a, HashMap<K, V>>,
        key: K,
    }

    impl<K: Eq + Hash, V> Deref for Ref<'_, K, V> {
        type Target = V;

        fn deref(&self) -> &V {
            &self.values[&self.key]
        }
    }

    impl<K: Eq + Hash, V> DerefMut for Ref<'_, K, V> {
        fn deref_mut(&mut self) -> &mut V {
            self.values.get_mut(&self.key).unwrap()
        }
    }

    pub(crate) enum Entry<'a, K, V> {
        Occupied(Occupied<'a, K, V>),
        Vacant(Vacant<'a, K, V>),
    }

    pub(crate) struct Occupied<'a, K, V>(Ref<'a, K, V>);
    pub(crate) struct Vacant<'a, K, V>(Ref<'a, K, V>);

    impl<'a, K: Copy + Eq + Hash, V> Entry<'a, K, V> {
        pub(crate) fn insert(self, value: V) -> Ref<'a, K, V> {
            let (Self::Occupied(Occupied(mut place)) | Self::Vacant(Vacant(mut place))) = self;
            place.values.insert(place.key, value);
            place
        }
    }

    impl<K: Copy + Eq + Hash, V> Occupied<'_, K, V> {
        pub(crate) fn get(&self) -> &V {
            &self.0
        }
    }
}
