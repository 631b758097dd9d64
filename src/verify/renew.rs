//! Hashes that are not as they would be made today.
//!
//! Whoever proves such a hash has shown the secret, and only then can it be hashed anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::future::{Either, select};

use super::{Answer, Crew, JobKey, Verifier};
use crate::cache::Claim;
use crate::clock::Clock;
use crate::config::VerifyLimits;
use crate::decision::GateId;
use crate::hash::{HashCost, Scratch, SecretHasher};
use crate::secret::SecretHash;

/// Is told which hash a claim has proved, where that one is outdated. Must not block.
pub(crate) type OnOutdated = Arc<dyn Fn(&Arc<Claim>, &SecretHash) + Send + Sync>;

/// Knows how a hash is made today.
#[derive(Clone)]
pub(super) struct Renewer {
    hasher: Option<Arc<dyn SecretHasher>>,
    on_outdated: OnOutdated,
}

impl Renewer {
    /// Of hashers that serve a gate, the first makes new hashes.
    pub(super) fn new(hashers: &[Arc<dyn SecretHasher>], on_outdated: OnOutdated) -> Self {
        Self { hasher: hashers.first().cloned(), on_outdated }
    }

    /// Tells of a proof by an outdated hash.
    pub(super) fn look_at(&self, claim: &Arc<Claim>, answer: &Answer) {
        let Ok(Some(hash)) = answer else { return };
        // A hasher that panics has no opinion; whoever waits for the proof has nothing to do with that.
        let outdated = catch_unwind(AssertUnwindSafe(|| !hash.has_precheck() || !self.is_current(hash)));
        if outdated.is_ok_and(|outdated| outdated) {
            (self.on_outdated)(claim, hash);
        }
    }

    fn is_current(&self, hash: &SecretHash) -> bool {
        self.hasher.as_ref().is_none_or(|hasher| hasher.recognises(hash) && hasher.is_current(hash))
    }
}

impl Verifier {
    /// The claim's secret hashed as it is done today, which `proved` was not; `None` where that can not be had.
    pub(crate) fn renew(
        &self,
        claim: &Arc<Claim>,
        proved: &SecretHash,
    ) -> impl Future<Output = Option<SecretHash>> + Send + use<> {
        let (renewer, claim, proved) = (self.renewer.clone(), Arc::clone(claim), proved.clone());
        let (crew, clock) = (Arc::clone(&self.crew), Arc::clone(&self.clock));
        let bench = Bench { gate: self.gate, crew, limits: self.limits, clock };
        async move {
            // Where nothing but the precheck is missing, the hash can stay.
            let hash = if renewer.is_current(&proved) { proved } else { bench.hash(&renewer, &claim).await? };
            // A hasher that does not call its own hashes current would be asked again for ever.
            renewer.is_current(&hash).then(|| hash.with_precheck(&claim.id, &claim.secret))
        }
    }
}

/// Where hashing is done.
struct Bench {
    gate: GateId,
    crew: Arc<Crew>,
    limits: VerifyLimits,
    clock: Arc<dyn Clock>,
}

impl Bench {
    async fn hash(&self, renewer: &Renewer, claim: &Arc<Claim>) -> Option<SecretHash> {
        let (hasher, claim) = (renewer.hasher.clone()?, Arc::clone(claim));
        let (id, cost) = (claim.id, hasher.cost());
        let hash = move |scratch: &mut Scratch| hasher.hash(&claim.secret, scratch);
        let hashed = match cost {
            HashCost::Inline => hash(&mut Scratch::new()),
            HashCost::Offload => {
                let job = self.crew.run(JobKey { gate: self.gate, id }, &self.limits, hash).ok()?;
                match select(job, self.clock.sleep(self.limits.wait)).await {
                    Either::Left((hashed, _)) => hashed.ok()?,
                    Either::Right(_) => return None,
                }
            }
        };
        hashed.inspect_err(|error| tracing::warn!(token_id = %id, %error, "a secret could not be hashed anew")).ok()
    }
}
