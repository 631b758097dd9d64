//! From a record and a claim to a verdict, as far as no hash is needed.

use std::sync::Arc;

use super::{Cache, Claim, Found, Known, key_of};
use crate::clock::Moment;
use crate::decision::{AuthenticatedToken, Reason, Verdict};
use crate::secret::SecretHash;
use crate::token::SecretSlot;

impl Cache {
    /// What the record alone says of a claim, apart from secrets that have yet to be hashed.
    pub(crate) fn judge(&self, claim: &Claim, found: &Found, proven: Option<&SecretHash>, now: Moment) -> Judgement {
        let known = &found.known;
        if let Err(reason) = known.check_live(now.wall) {
            return Judgement::Decided(Err(reason.into()));
        }
        let proven = proven.map(|hash| self.fingerprints.of(hash));
        let mut candidates = Vec::new();
        for slot in SecretSlot::ALL.into_iter().filter(|slot| known.is_live(*slot, now.wall)) {
            let is_proven = proven.is_some() && proven == known.fingerprint(slot);
            if is_proven || known.matches(slot, &claim.tag) {
                return Judgement::Decided(Ok(AuthenticatedToken::of_known(self.gate, self.shared(known), slot)));
            }
            // A secret that is proved already is another one; a guess at it needs no hash.
            let unproved = known.hash(slot).filter(|_| known.proof(slot).is_none());
            candidates.extend(unproved.filter(|hash| !hash.rules_out(&claim.id, &claim.secret)).cloned());
        }
        if candidates.is_empty() || self.is_refuted(claim, known, &candidates, now) {
            return Judgement::Decided(Err(Reason::Mismatch));
        }
        Judgement::Prove(candidates)
    }

    /// The proved entry where it says the same as `known`: who uses the token notes there that it is used.
    fn shared(&self, known: &Arc<Known>) -> Arc<Known> {
        // A store that is edited by hand may not count the revision up.
        let says = |known: &Known| (known.version, known.owner_barred, known.narrowed, known.scope, known.expires_at);
        let same = |kept: &Arc<Known>| (says(kept) == says(known)).then(|| Arc::clone(kept));
        self.proved.read(&key_of(&known.id), same).flatten().unwrap_or_else(|| Arc::clone(known))
    }
}

/// What can be said of a claim without hashing.
#[derive(Debug)]
pub(crate) enum Judgement {
    Decided(Verdict),
    /// The claim holds if its secret is that of one of these hashes.
    Prove(Vec<SecretHash>),
}
