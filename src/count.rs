//! A counter that many threads count up at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads are spread over as many cells, so that counting a request does not move a cache line between cores.
const CELLS: usize = 16;

/// Counts up only; wraps after 2⁶⁴.
#[derive(Default)]
pub(crate) struct Count([Cell; CELLS]);

/// Two cache lines, because neighbours are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Cell(AtomicU64);

thread_local! {
    static CELL: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % CELLS
    };
}

impl Count {
    pub(crate) fn up(&self) {
        // A thread that is ending has no cell of its own any more.
        let at = CELL.try_with(|at| *at).unwrap_or_default();
        if let Some(cell) = self.0.get(at) {
            cell.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.iter().fold(0, |all, cell| all.wrapping_add(cell.0.load(Ordering::Relaxed)))
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
            for _ in 0..2 * CELLS {
                scope.spawn(|| (0..1_000).for_each(|_| count.up()));
            }
        });
        assert_eq!(count.read(), 32_000);
    }
}
