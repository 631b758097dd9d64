//! Which failures of a sink are worth a line in the log.

use std::sync::atomic::{AtomicU64, Ordering};

/// After how many successes in a row an outage is over. Fewer prove nothing: a sink that takes every other event would
/// have an outage for each event it does not take.
const RECOVERED: u64 = 1_000;

/// The first failure of an outage is told, and then each doubling: a log that grows with every request would be the next
/// thing to fail.
#[derive(Default)]
pub(super) struct Outage {
    failures: AtomicU64,
    successes: AtomicU64,
}

impl Outage {
    /// How many failures the outage has had, where that is to be told.
    pub(super) fn failed(&self) -> Option<u64> {
        self.successes.store(0, Ordering::Relaxed);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        failures.is_power_of_two().then_some(failures)
    }

    pub(super) fn succeeded(&self) {
        // Written only in an outage: all cores read it for every event.
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.successes.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= RECOVERED {
            self.failures.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these failures are told of, each after so many successes.
    #[track_caller]
    fn assert_told(outage: &Outage, failures: u64, successes: u64, told: usize) {
        let tell = |_: &u64| {
            (0..successes).for_each(|_| outage.succeeded());
            outage.failed().is_some()
        };
        assert_eq!((0..failures).filter(tell).count(), told);
    }

    #[test]
    fn an_outage_is_told_of_at_once_and_at_each_doubling_whatever_succeeds_meanwhile() {
        for successes in [0, 1, RECOVERED - 1] {
            assert_told(&Outage::default(), 100, successes, 7);
        }
    }

    #[test]
    fn after_enough_successes_in_a_row_the_next_failure_is_another_outage() {
        assert_told(&Outage::default(), 20, RECOVERED, 20);
        let outage = Outage::default();
        assert_told(&outage, 100, 0, 7);
        assert_told(&outage, 1, RECOVERED - 1, 0);
        assert_told(&outage, 1, RECOVERED, 1);
    }
}
