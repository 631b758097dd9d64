//! What is remembered of one token.

use std::sync::Arc;

use super::generations::Mark;
use super::proof::Proofs;
use crate::clock::Moment;
use crate::decision::{AuthenticatedToken, GateId};
use crate::token::TokenRecord;

/// A record, and what handlers will be told of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) record: TokenRecord,
    pub(crate) token: AuthenticatedToken,
}

impl Known {
    pub(crate) fn new(gate: GateId, record: TokenRecord) -> Arc<Self> {
        Arc::new(Self { token: AuthenticatedToken::of_record(gate, &record), record })
    }
}

/// How long a record may be believed: until either clock has reached it. The monotonic clock stands still while a
/// machine sleeps, the wall clock can be stepped back; no record outlives both mistakes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshUntil(pub(crate) Moment);

impl FreshUntil {
    pub(crate) fn holds(self, now: Moment) -> bool {
        now.monotonic < self.0.monotonic && now.wall < self.0.wall
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) known: Arc<Known>,
    pub(crate) proofs: Proofs,
    /// `None` is distrust: ask the store before the next use. The proofs stay.
    pub(crate) trust: Option<FreshUntil>,
}

impl Entry {
    pub(crate) fn is_fresh(&self, now: Moment) -> bool {
        self.trust.is_some_and(|until| until.holds(now))
    }

    /// This entry after the store answered with `known`: the newer record counts, so a lagging replica cannot revive
    /// what was revoked. Of equal revisions the later answer counts: a bar on the owner changes no revision.
    pub(crate) fn updated(&self, known: &Arc<Known>, trust: Option<FreshUntil>) -> Self {
        if self.known.record.revision() > known.record.revision() {
            return Self { trust, ..self.clone() };
        }
        let proofs = self.proofs.carried(&self.known.record, &known.record);
        Self { known: Arc::clone(known), proofs, trust }
    }
}

/// A record that may be judged now, with the proofs there are.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) known: Arc<Known>,
    pub(crate) proofs: Proofs,
    /// Where the generations stood before the record was read.
    pub(crate) mark: Mark,
    pub(crate) trust: Option<FreshUntil>,
}

impl Found {
    pub(crate) fn of(entry: &Entry, mark: Mark) -> Self {
        Self { known: Arc::clone(&entry.known), proofs: entry.proofs, mark, trust: entry.trust }
    }
}
