//! From a record and a claim to a verdict, as far as no hash is needed.

use super::{Cache, Claim, Found};
use crate::clock::Moment;
use crate::decision::{Reason, Verdict};
use crate::secret::SecretHash;
use crate::token::SecretSlot;

impl Cache {
    /// What the record alone says of a claim, apart from secrets that have yet to be hashed.
    pub(crate) fn judge(&self, claim: &Claim, found: &Found, proven: Option<&SecretHash>, now: Moment) -> Judgement {
        let record = &found.known.record;
        if let Err(reason) = record.check_live(now.wall) {
            return Judgement::Decided(Err(reason.into()));
        }
        let live = SecretSlot::ALL.into_iter().filter_map(|slot| Some((slot, record.live_secret(slot, now.wall)?)));
        let mut candidates = Vec::new();
        for (slot, hash) in live {
            if proven == Some(hash) || found.proofs.matches(slot, &claim.tag) {
                return Judgement::Decided(Ok(found.known.token.by(slot)));
            }
            // A secret that is proved already is another one; a guess at it needs no hash.
            if found.proofs.of(slot).is_none() && !hash.rules_out(&claim.id, &claim.secret) {
                candidates.push(hash.clone());
            }
        }
        if candidates.is_empty() || self.is_refuted(claim, record, &candidates, now) {
            return Judgement::Decided(Err(Reason::Mismatch));
        }
        Judgement::Prove(candidates)
    }
}

/// What can be said of a claim without hashing.
#[derive(Debug)]
pub(crate) enum Judgement {
    Decided(Verdict),
    /// The claim holds if its secret is that of one of these hashes.
    Prove(Vec<SecretHash>),
}
