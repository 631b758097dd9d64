//! When a token's use was last noted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::access::Access;
use crate::clock::Timestamp;

/// The second of the last note, and whether a write was noted in it: one word, so that asking is one load.
#[derive(Debug)]
pub(crate) struct Noted(AtomicU64);

impl Clone for Noted {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Noted {
    /// Nothing is noted yet. No timestamp is in this second.
    pub(crate) const fn never() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Whether a use is to be noted: the first in its second, or the first that writes in it. Of those who ask at once,
    /// one is told so.
    pub(crate) fn is_due(&self, at: Timestamp, access: Access) -> bool {
        self.is_due_after(self.0.load(Ordering::Relaxed), at, access)
    }

    /// Whether a use is to be noted after `last`. Another may have noted theirs since that was read: then after theirs,
    /// for what they have noted may be a read, and this the first write.
    fn is_due_after(&self, mut last: u64, at: Timestamp, access: Access) -> bool {
        while let Some(next) = after(last, at, access) {
            match self.0.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(newer) => last = newer,
            }
        }
        false
    }
}

/// The word that notes this use; `None` where the last one says enough.
fn after(last: u64, at: Timestamp, access: Access) -> Option<u64> {
    let (second, writes) = (at.unix_millis() / 1_000, access == Access::Write);
    let wrote = last & 1 == 1;
    let says_enough = second == last >> 1 && (wrote || !writes);
    (!says_enough).then_some((second << 1) | u64::from(writes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Read, Write};

    const T: fn(u64) -> Timestamp = Timestamp::from_unix_millis;

    #[test]
    fn one_use_a_second_and_the_first_write_in_it() {
        let noted = Noted::never();
        for (at, access, due) in [
            (0, Read, true),
            (999, Read, false),
            (999, Write, true),
            (999, Write, false),
            (999, Read, false),
            (1_000, Write, true),
            (1_001, Read, false),
            (1_001, Write, false),
            (2_000, Read, true),
        ] {
            assert_eq!(noted.is_due(T(at), access), due, "{access:?} at {at}");
        }
    }

    #[test]
    fn a_clock_that_is_stepped_back_notes_again() {
        let noted = Noted::never();
        assert!(noted.is_due(Timestamp::MAX, Read) && noted.is_due(T(5), Read));
        assert!(!noted.is_due(T(6), Read));
    }

    #[test]
    fn a_write_that_a_read_has_overtaken_is_noted_all_the_same() {
        for (overtaken, due) in [(Write, true), (Read, false)] {
            let noted = Noted::never();
            let before = noted.0.load(Ordering::Relaxed);
            assert!(noted.is_due(T(7_000), Read));
            assert_eq!(noted.is_due_after(before, T(7_000), overtaken), due, "{overtaken:?}");
            assert_eq!(noted.is_due(T(7_000), Write), !due, "{overtaken:?}: noted once");
        }
    }

    #[test]
    fn of_many_at_once_one_notes() {
        let noted = Noted::never();
        let due = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| noted.is_due(T(7_000), Write))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|due| *due).count()
            })
        };
        assert_eq!((due(), due()), (1, 0));
    }
}
