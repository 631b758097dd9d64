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
    /// Whether changes made elsewhere arrive.
    pub feed: FeedState,
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
            feed: core.feeds.state(),
        }
    }
}
