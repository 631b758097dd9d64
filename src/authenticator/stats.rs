//! What a gate has done and holds, in numbers.

use super::Authenticator;
use super::follow::FeedState;
use crate::audit::AuditStats;
use crate::cache::{CacheStats, LookupStats};
use crate::verify::HashStats;

/// What a gate has done since it was built, and holds now: [`AuthHandle::stats`](crate::AuthHandle::stats).
///
/// Counters are read one after the other while requests go on, so sums may be off by the requests of that moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What is remembered.
    pub cache: CacheStats,
    /// What is asked of the store.
    pub lookups: LookupStats,
    /// What is hashed.
    pub hashes: HashStats,
    /// What became of audit events.
    pub audit: AuditStats,
    /// What is written to the store.
    pub upkeep: UpkeepStats,
    /// Whether changes made elsewhere arrive.
    pub feed: FeedState,
}

/// What a gate writes to its store beside the requests: see [`background`](crate::TokenAuthLayer::background).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpkeepStats {
    /// Uses that were noted: at most one a second for each record that was read, and one more where it first writes.
    pub noted: u64,
    /// Last uses written. Many notes of a token are one.
    pub flushed: u64,
    /// Uses that found no place in memory, and are not known.
    pub dropped: u64,
    /// Tokens whose last use waits to be written.
    pub waiting: usize,
    /// Batches the store did not take. They were put back.
    pub flushes_failed: u64,
    /// Secrets that were hashed anew.
    pub rehashed: u64,
    /// Secrets that were to be, and were not: they are when they are next proved.
    pub not_rehashed: u64,
    /// Rotations that learnt that their new secret is in use.
    pub successors: u64,
}

impl Authenticator {
    pub(crate) fn stats(&self) -> Stats {
        let core = &self.0;
        let (hits, misses) = (core.hits.read(), core.misses.read());
        Stats {
            cache: CacheStats { hits, misses, ..core.cache.stats() },
            lookups: core.lookups.stats(),
            hashes: core.verifier.stats(),
            audit: core.recorder.stats(),
            upkeep: core.upkeep.stats(),
            feed: core.feeds.state(),
        }
    }
}
