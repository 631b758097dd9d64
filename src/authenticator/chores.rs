//! What a use has shown of a secret, and the store should know.
//!
//! Two things: a hash that is not as it would be made today (other parameters, another pepper, no precheck) is made
//! anew, and a rotation learns that its new secret is in use. Both are one compare-and-set of the record's secrets.
//!
//! # What it guarantees
//! * One chore at a time: re-hashing never takes more than one worker from those who wait for a verification.
//! * What is written is for the secret that was shown. Where it is none of the token's any more, or where the record
//!   changes meanwhile, the chore is given up.
//! * The other secret stays as it is. The new hash is proved from the first: its holder is not hashed again here, unless
//!   a look-up brings the record before its change has been told of. Other processes hash it once.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;

use super::Core;
use super::upkeep::Upkeep;
use crate::cache::Claim;
use crate::id::TokenId;
use crate::secret::SecretHash;
use crate::store::Change;
use crate::token::{RetiringSecret, SecretSlot, TokenRecord};

/// A secret that was shown.
pub(super) struct Chore {
    id: TokenId,
    shown: SecretHash,
    /// The secret itself, where it is to be hashed anew.
    claim: Option<Arc<Claim>>,
}

/// What a chore has written.
pub(super) struct Done {
    /// A rotation has learnt that its new secret is in use.
    pub(super) succeeded: bool,
}

impl Chore {
    /// The hash `shown` was proved, and is not as it would be made today.
    pub(super) fn rehash(claim: &Arc<Claim>, shown: &SecretHash) -> Self {
        Self { id: claim.id, shown: shown.clone(), claim: Some(Arc::clone(claim)) }
    }

    /// The new secret of a rotation is in use.
    pub(super) const fn succeed(id: TokenId, shown: SecretHash) -> Self {
        Self { id, shown, claim: None }
    }

    pub(super) const fn rehashes(&self) -> bool {
        self.claim.is_some()
    }

    async fn carry_out(&self, core: &Weak<Core>, upkeep: &Upkeep) -> Option<Done> {
        let record = upkeep.find(&self.id).await?;
        let now = upkeep.now();
        let is_shown = |slot: &SecretSlot| record.live_secret(*slot, now) == Some(&self.shown);
        let slot = SecretSlot::ALL.into_iter().find(is_shown).filter(|_| record.is_live(now))?;
        // The gate is not held while it is waited for.
        let hash = match &self.claim {
            Some(claim) => {
                let renewing = core.upgrade()?.verifier.renew(claim, &self.shown);
                renewing.await?
            }
            None => self.shown.clone(),
        };
        let renewed = Renewed::new(&record, slot, &hash)?;
        let done = Done { succeeded: renewed.succeeded };
        let written = upkeep.update(&record, renewed.change).await?;
        let cache = Arc::clone(&core.upgrade()?.cache);
        match &self.claim {
            Some(claim) => cache.learn_proved(written, claim, &hash),
            None => cache.learn(written),
        }
        Some(done)
    }
}

/// A record's secrets, after one of them was shown.
struct Renewed {
    change: Change,
    succeeded: bool,
}

impl Renewed {
    /// `None` where the store knows all of it.
    fn new(record: &TokenRecord, slot: SecretSlot, hash: &SecretHash) -> Option<Self> {
        let old = record.retiring();
        let succeeded = slot == SecretSlot::Current && old.is_some_and(|old| !old.successor_used());
        let in_slot = |this: SecretSlot, known: &SecretHash| if this == slot { hash.clone() } else { known.clone() };
        let secret = in_slot(SecretSlot::Current, record.secret());
        let retiring = old.map(|old| {
            RetiringSecret::new(in_slot(SecretSlot::Retiring, old.secret()), old.until())
                .with_successor_used(old.successor_used() || succeeded)
        });
        let changes = secret != *record.secret() || retiring.as_ref() != old;
        changes.then_some(Self { change: Change::Secrets { secret, retiring }, succeeded })
    }
}

/// Carries out one chore after the other.
pub(super) async fn work(core: Weak<Core>, upkeep: Arc<Upkeep>) {
    while let Some(chore) = upkeep.next().await {
        // A hasher that panics has hashed nothing anew.
        let done = AssertUnwindSafe(chore.carry_out(&core, &upkeep)).catch_unwind().await;
        upkeep.tell(chore.rehashes(), done.ok().flatten());
    }
}
