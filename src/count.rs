//! A counter that many threads count up at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// So many threads at a time have a cell to themselves; all others share one. That is 8 KiB a count.
const CELLS: usize = 64;

/// Counts up only; wraps after 2⁶⁴.
///
/// Who has a cell to itself counts by a load and a store: an atomic addition would have the processor wait for all that
/// is under way, and nobody else writes there.
pub(crate) struct Count {
    /// Not in place: whoever has counts is made on a stack.
    own: Box<[Cell]>,
    shared: Cell,
}

/// Two cache lines, because neighbours are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Cell(AtomicU64);

impl Default for Count {
    fn default() -> Self {
        Self { own: (0..CELLS).map(|_| Cell::default()).collect(), shared: Cell::default() }
    }
}

/// Which cells are nobody's. Taken and given back under its lock, so that each owner sees what the one before has
/// counted.
static FREE: Mutex<Free> = Mutex::new(Free { next: 0, returned: Vec::new() });

struct Free {
    /// This and those after it were never anybody's.
    next: usize,
    returned: Vec<usize>,
}

/// A thread's own cell of every count, until it ends.
struct Seat(usize);

impl Seat {
    /// One past the cells where there is none.
    fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let new = free.next.min(CELLS);
        Self(free.returned.pop().unwrap_or_else(|| {
            free.next = (new + 1).min(CELLS);
            new
        }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0 < CELLS {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).returned.push(self.0);
        }
    }
}

thread_local! {
    static SEAT: Seat = Seat::take();
}

impl Count {
    #[inline(always)]
    pub(crate) fn up(&self) {
        // A thread that is ending has no cell of its own any more.
        let at = SEAT.try_with(|seat| seat.0).unwrap_or(CELLS);
        match self.own.get(at) {
            Some(cell) => cell.0.store(cell.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed),
            None => drop(self.shared.0.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn read(&self) -> u64 {
        let cells = self.own.iter().chain([&self.shared]);
        cells.fold(0, |all, cell| all.wrapping_add(cell.0.load(Ordering::Relaxed)))
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Count({})", self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let count = Count::default();
        std::thread::scope(|scope| {
            for _ in 0..3 * CELLS {
                scope.spawn(|| (0..1_000).for_each(|_| count.up()));
            }
        });
        assert_eq!(count.read(), 3_000 * CELLS as u64);
    }

    #[test]
    fn no_two_living_threads_have_one_cell_and_the_dead_give_theirs_back() {
        let seat = || SEAT.with(|seat| seat.0);
        for _ in 0..2 * CELLS {
            let all = std::sync::Barrier::new(CELLS / 4);
            let mut seats: Vec<usize> = std::thread::scope(|scope| {
                let meet = || {
                    let at = seat();
                    all.wait();
                    at
                };
                let threads: Vec<_> = (0..CELLS / 4).map(|_| scope.spawn(meet)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|at| *at < CELLS).collect()
            });
            let owners = seats.len();
            seats.sort_unstable();
            seats.dedup();
            assert_eq!(seats.len(), owners);
            assert!(owners > 0, "cells are given back");
        }
    }
}
