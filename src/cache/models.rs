//! The bounded map under thousands of schedules.

use std::sync::Arc;

use ahash::RandomState;
use shuttle::thread;

use super::bounded::Bounded;
use super::bounded::tests::{Number, put};

const CAPACITY: usize = 2;
const THREADS: u32 = 3;

fn map() -> Arc<Bounded<Number>> {
    Arc::new(Bounded::new(CAPACITY, RandomState::with_seeds(1, 2, 3, 4)))
}

/// Runs a thread for each number, and waits for all of them.
fn run(body: impl Fn(u32) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let threads = (0..THREADS).map(|at| {
        let body = Arc::clone(&body);
        thread::spawn(move || body(at))
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

fn check(model: impl Fn() + Copy + Send + Sync + 'static) {
    shuttle::check_random(model, 10_000);
    shuttle::check_pct(model, 1_000, 3);
}

#[test]
fn concurrent_insertions_stay_within_the_capacity() {
    check(|| {
        let map = map();
        let shared = Arc::clone(&map);
        run(move |at| {
            for key in [at, at + THREADS, at] {
                put(&shared, key);
                // Each thread may have inserted one that it has yet to make room for.
                assert!(shared.len() <= CAPACITY + THREADS as usize);
            }
        });
        assert!(map.len() <= CAPACITY);
    });
}

#[test]
fn nothing_is_left_behind_that_could_never_be_evicted() {
    check(|| {
        let map = map();
        let shared = Arc::clone(&map);
        run(move |_| {
            put(&shared, 7);
            shared.remove(&7);
            put(&shared, 7);
        });
        for key in 100..104 {
            put(&map, key);
        }
        assert!(map.read(&7, |_| ()).is_none(), "the oldest by far, and never used");
        assert!(map.len() <= CAPACITY);
    });
}
