//! What is remembered and looked up, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::flight::LookupAnswer;
use crate::decision::UnavailableCause;

/// What a gate remembers now, and what it had to forget to stay within its bounds.
///
/// An eviction of what could still be believed means that a bound is too small, or that there is a flood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Requests with a token of our shape that were decided at once, from memory.
    pub hits: u64,
    /// Requests with a token of our shape for which the store or a hash had to be waited for, or was too busy.
    pub misses: u64,
    /// How often it was remembered that an id is unknown, or a secret wrong.
    pub negative_hits: u64,
    /// How often a record was believed past its TTL because the store could not answer.
    pub excused: u64,
    /// Proved tokens remembered now.
    pub proved: usize,
    /// Records remembered now whose secret nobody has proved.
    pub unproved: usize,
    /// Unknown ids and wrong secrets remembered now.
    pub negatives: usize,
    /// Proved tokens that were forgotten for want of room, whatever their age: a proof is worth a hash.
    pub proved_evicted: u64,
    /// Unproved records that were forgotten for want of room within their TTL.
    pub unproved_evicted: u64,
    /// Unknown ids and wrong secrets that were forgotten for want of room within their TTL.
    pub negatives_evicted: u64,
}

/// What a gate has asked of its store, since it was built, and asks now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LookupStats {
    /// Store calls.
    pub calls: u64,
    /// Store calls that failed, hung, panicked, or brought a record for another token.
    pub failed: u64,
    /// Requests that waited for a look-up that was under way already.
    pub joined: u64,
    /// Look-ups that were refused, or given up while they waited for their turn: a bound was reached.
    pub refused: u64,
    /// Look-ups of tokens in use ahead of their TTL, by [`background`](crate::TokenAuthLayer::background).
    pub ahead: u64,
    /// Look-ups of tokens that are not proved, running or waiting now.
    pub in_flight: usize,
    /// Look-ups of proved tokens, running or waiting now.
    pub refreshes_in_flight: usize,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) calls: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) ahead: AtomicU64,
}

impl Counts {
    /// Everything but what is in flight now.
    pub(super) fn read(&self) -> LookupStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LookupStats {
            calls: read(&self.calls),
            failed: read(&self.failed),
            joined: read(&self.joined),
            refused: read(&self.refused),
            ahead: read(&self.ahead),
            ..LookupStats::default()
        }
    }

    pub(super) fn answered(&self, answer: &LookupAnswer) {
        match answer {
            Ok(_) => {}
            Err(UnavailableCause::LookupsBusy) => count(&self.refused),
            Err(_) => count(&self.failed),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
