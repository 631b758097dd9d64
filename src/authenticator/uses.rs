//! When tokens were last used, on the way to the store.
//!
//! One row for each token, merged from what was noted since it was last written. What is on its way comes back, unless
//! the store has taken it: a store that fails, hangs or panics loses nothing, and neither does who gives up waiting.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::TokenId;
use crate::token::LastUsed;

/// Last uses that wait to be written, of a bounded number of tokens.
pub(super) struct Uses {
    waiting: Mutex<Waiting>,
    capacity: usize,
    on_the_way: AtomicUsize,
    noted: AtomicU64,
    flushed: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    rows: HashMap<TokenId, LastUsed>,
    /// When the first of them was noted.
    since: Option<Timestamp>,
}

/// What became of the notes so far.
pub(super) struct Tally {
    pub(super) noted: u64,
    pub(super) flushed: u64,
    pub(super) dropped: u64,
}

impl Uses {
    pub(super) fn new(capacity: usize) -> Self {
        let [noted, flushed, dropped] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { waiting: Mutex::default(), capacity, on_the_way: AtomicUsize::new(0), noted, flushed, dropped }
    }

    /// Notes a use; answers for how long the first of those that wait has waited.
    pub(super) fn note(&self, id: TokenId, used: LastUsed) -> Duration {
        let at = used.at;
        let mut waiting = self.lock();
        let kept = waiting.keep(self.capacity, id, used);
        let since = *waiting.since.get_or_insert(at);
        drop(waiting);
        count(if kept { &self.noted } else { &self.dropped }, 1);
        at.since(since)
    }

    /// All that wait, for the store to take.
    pub(super) fn take(&self) -> Batch<'_> {
        let fresh = HashMap::with_capacity(self.lock().rows.len());
        let mut waiting = self.lock();
        let taken = std::mem::replace(&mut *waiting, Waiting { rows: fresh, since: None });
        self.on_the_way.fetch_add(taken.rows.len(), Ordering::Relaxed);
        drop(waiting);
        Batch { uses: self, rows: taken.rows.into_iter().collect() }
    }

    /// Of how many tokens the last use is not written.
    pub(super) fn waiting(&self) -> usize {
        self.lock().rows.len() + self.on_the_way.load(Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> Tally {
        let [noted, flushed, dropped] =
            [&self.noted, &self.flushed, &self.dropped].map(|counter| counter.load(Ordering::Relaxed));
        Tally { noted, flushed, dropped }
    }

    fn put_back(&self, rows: Vec<(TokenId, LastUsed)>) {
        let mut waiting = self.lock();
        let kept = rows.into_iter().map(|(id, used)| waiting.keep(self.capacity, id, used));
        let lost = kept.filter(|kept| !kept).count();
        drop(waiting);
        count(&self.dropped, lost);
    }

    /// Nobody's code runs under the lock, so a poisoned one is as good as another.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// `false` where there is no room for another token.
    fn keep(&mut self, capacity: usize, id: TokenId, used: LastUsed) -> bool {
        let full = self.rows.len() >= capacity;
        match self.rows.entry(id) {
            Entry::Occupied(mut known) => {
                let merged = used.merged(known.get());
                known.insert(merged);
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(place) => {
                place.insert(used);
            }
        }
        true
    }
}

/// Uses on their way to the store. Those that have not [arrived](Self::arrive) when it is dropped wait again.
pub(super) struct Batch<'a> {
    uses: &'a Uses,
    rows: Vec<(TokenId, LastUsed)>,
}

impl Batch<'_> {
    pub(super) fn rows(&self) -> &[(TokenId, LastUsed)] {
        &self.rows
    }

    pub(super) fn arrive(mut self) {
        count(&self.uses.flushed, self.rows.len());
        self.uses.on_the_way.fetch_sub(self.rows.len(), Ordering::Relaxed);
        self.rows.clear();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.rows);
        let number = left.len();
        self.uses.put_back(left);
        self.uses.on_the_way.fetch_sub(number, Ordering::Relaxed);
    }
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(u64) -> Timestamp = Timestamp::from_unix_seconds;

    fn id() -> TokenId {
        TokenId::generate().unwrap()
    }

    fn written(uses: &Uses) -> Vec<(TokenId, LastUsed)> {
        let batch = uses.take();
        let rows = batch.rows().to_vec();
        batch.arrive();
        rows
    }

    #[test]
    fn of_a_token_the_newest_use_and_write_are_kept() {
        let (uses, id) = (Uses::new(9), id());
        let (read, write) = (LastUsed::new(T(7)), LastUsed::new(T(5)).with_last_write(Some(T(5))));
        uses.note(id, read.clone());
        uses.note(id, write);
        uses.note(id, LastUsed::new(T(6)));
        assert_eq!(written(&uses), [(id, read.with_last_write(Some(T(5))))]);
        assert_eq!(written(&uses), []);
    }

    #[test]
    fn a_full_memory_drops_new_tokens_and_counts_them() {
        let (uses, known, new) = (Uses::new(1), id(), id());
        uses.note(known, LastUsed::new(T(1)));
        uses.note(new, LastUsed::new(T(2)));
        uses.note(known, LastUsed::new(T(3)));
        assert_eq!(written(&uses), [(known, LastUsed::new(T(3)))]);
        let Tally { noted, flushed, dropped } = uses.tally();
        assert_eq!((noted, flushed, dropped), (2, 1, 1));
    }

    #[test]
    fn what_does_not_arrive_waits_again_beside_what_came_meanwhile() {
        let (uses, both, old, new) = (Uses::new(2), id(), id(), id());
        uses.note(both, LastUsed::new(T(1)).with_last_write(Some(T(1))));
        uses.note(old, LastUsed::new(T(1)));
        let batch = uses.take();
        uses.note(both, LastUsed::new(T(2)));
        assert_eq!(uses.waiting(), 3, "two on the way, one of them again");
        drop(batch);
        assert_eq!(uses.waiting(), 2);
        let batch = uses.take();
        uses.note(new, LastUsed::new(T(3)));
        drop(batch);
        assert_eq!((uses.waiting(), uses.tally().dropped), (2, 1), "one of three has no room");
        let rows = written(&uses);
        assert!(rows.contains(&(new, LastUsed::new(T(3)))), "what is newest is there already");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn how_long_the_first_has_waited_is_told() {
        let (uses, id) = (Uses::new(1), id());
        for (at, waited) in [(10, 0), (15, 5), (9, 0)] {
            assert_eq!(uses.note(id, LastUsed::new(T(at))), Duration::from_secs(waited));
        }
        drop(uses.take());
        assert_eq!(uses.note(id, LastUsed::new(T(20))), Duration::ZERO);
    }
}
