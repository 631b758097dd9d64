//! What is not to be believed any more.

use std::sync::Arc;

use super::{Cache, Claim, Found, Known, Negative, key_of};
use crate::id::{OwnerId, TokenId};
use crate::secret::SecretHash;
use crate::token::{Revision, TokenRecord};

impl Cache {
    /// Takes in a changed record from whoever changed it: not believed before the store says so too, but no older
    /// revision is believed after it.
    pub(crate) fn learn(&self, record: TokenRecord) {
        let id = record.id();
        self.distrust(&id);
        let mark = self.mark(&id);
        self.settle(key_of(&id), self.known(&record), mark, None);
    }

    /// Takes in a changed record one of whose hashes was made of this claim's secret: it is proved from the first.
    pub(crate) fn learn_proved(&self, record: TokenRecord, claim: &Claim, hash: &SecretHash) {
        let mark = self.mark(&claim.id);
        let known = Arc::new(self.known(&record));
        // In this order, so that no request finds the record here without the proof.
        self.prove(claim, &Found { known, mark }, hash);
        self.learn(record);
    }

    /// Believes nothing of this id that was read before now. Proofs are kept.
    pub(crate) fn distrust(&self, id: &TokenId) {
        let key = key_of(id);
        // First the counter, which outdates look-ups in flight, then what is there: a look-up that fills in between
        // sees the counter, one that filled before is found. And the unproved before the proved: that is the way an
        // entry goes while its secret is being proved.
        self.invalidations.advance(key);
        self.unproved.alter(&key, |known| known.trusted.set(false));
        self.proved.alter(&key, |known| known.trusted.set(false));
        self.negatives.remove(&Negative::Unknown(key));
        // Last, and also where there is no entry any more: a thread may have a copy of one that has gone.
        self.changes.advance(key);
    }

    /// Believes nothing older than this revision; without one nothing that was read before now.
    pub(crate) fn distrust_before(&self, id: &TokenId, revision: Option<Revision>) {
        let key = key_of(id);
        let is_known = |known: &Arc<Known>| revision.is_some_and(|revision| known.version.revision() >= revision);
        let known = [&self.proved, &self.unproved].into_iter().any(|map| map.read(&key, is_known).unwrap_or(false));
        if !known {
            self.distrust(id);
        }
        // Who has brought the revision may not have come to tell so yet.
        self.changes.advance(key);
    }

    /// Believes nothing of this owner's tokens that was read before now.
    pub(crate) fn distrust_owner(&self, owner: &OwnerId) {
        // Whose tokens are being looked up is not known yet: all look-ups in flight are outdated.
        self.invalidations.advance_all();
        let distrust = |known: &Known| {
            if known.owner == *owner {
                known.trusted.set(false);
            }
        };
        self.unproved.alter_all(distrust);
        self.proved.alter_all(distrust);
        self.changes.advance_all();
    }

    /// Believes nothing that was read before now.
    pub(crate) fn distrust_all(&self) {
        self.invalidations.advance_all();
        self.unproved.alter_all(|known| known.trusted.set(false));
        self.proved.alter_all(|known| known.trusted.set(false));
        self.negatives.clear();
        self.changes.advance_all();
    }
}
