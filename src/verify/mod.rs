//! Verification: whether a claimed secret is that of a stored hash.
//!
//! Cheap hashes are verified on the spot. Costly ones go to the [`Crew`], one *flight* for each (id, secret): whoever
//! claims the same secret meanwhile waits for the same answer.
//!
//! # What it guarantees
//! * One verification per secret at a time, and none of a secret that the cache has an answer for: a job writes the
//!   cache *before* it leaves the map, and a new one looks into the cache *after* it found none in the map.
//! * The job writes the answer down. Those who wait may all go; the next who asks finds it.
//! * What is kept by id and secret never depends on what is stored: an answer about other hashes is no refusal.
//!
//! # When things fail
//! | what | answer |
//! |---|---|
//! | no hasher recognises the hash, or it is malformed, too costly, under an unknown pepper | `RecordUnusable` |
//! | the hasher fails or panics | `HashingFailed` |
//! | the crew has no room | `HashingBusy` |
//! | the answer takes too long | `HashingTimedOut`; the job goes on |
//!
//! Lock order: a shard of the flights, then the cache's locks. No job is given to the crew under the shard's lock:
//! one that is refused is dropped, and takes its flight from the map.

mod crew;
mod renew;
mod stats;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared, select};

pub(crate) use crew::{Crew, CrewBusy, JobKey};
pub(crate) use renew::OnOutdated;
use renew::Renewer;
pub use stats::HashStats;
use stats::{Counts, count};

use crate::cache::{Cache, Claim, Found, Tag};
use crate::clock::{Clock, Moment};
use crate::config::VerifyLimits;
use crate::decision::{GateId, UnavailableCause};
use crate::hash::{HashCost, HashError, Scratch, SecretHasher};
use crate::id::TokenId;
use crate::secret::{SecretHash, TokenSecret};

/// The hash that was proved, `None` if the secret is that of none.
pub(crate) type Answer = Result<Option<SecretHash>, UnavailableCause>;

/// How a verification goes on.
pub(crate) enum Begun {
    /// It is over: nothing had to be waited for.
    Answered(Answer),
    Waiting(Verification),
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    Proved(SecretHash),
    Refuted,
    /// The secret was refuted for other hashes than those in question.
    Elsewhere,
}

pub(crate) struct Verifier {
    gate: GateId,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    crew: Arc<Crew>,
    hashers: Vec<Arc<dyn SecretHasher>>,
    limits: VerifyLimits,
    renewer: Renewer,
    flights: Arc<Flights>,
    counts: Arc<Counts>,
}

type Key = (TokenId, Tag);
type Flights = DashMap<Key, Flight>;

/// Strong, unlike a look-up: the job runs and ends whether or not anyone waits.
#[derive(Clone)]
struct Flight {
    answer: Shared<BoxFuture<'static, Answer>>,
    hashes: Arc<[SecretHash]>,
}

/// A hash, and who can verify it.
struct Pick {
    hash: SecretHash,
    hasher: Arc<dyn SecretHasher>,
}

impl Verifier {
    pub(crate) fn new(
        gate: GateId,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
        hashers: Vec<Arc<dyn SecretHasher>>,
        limits: VerifyLimits,
        on_outdated: OnOutdated,
    ) -> Self {
        let (crew, renewer) = (Crew::for_limits(&limits), Renewer::new(&hashers, on_outdated));
        let (flights, counts) = (Arc::default(), Arc::default());
        Self { gate, cache, clock, crew, hashers, limits, renewer, flights, counts }
    }

    pub(crate) fn stats(&self) -> HashStats {
        let (waiting, running) = self.crew.load();
        HashStats { waiting, running, ..self.counts.read() }
    }

    pub(crate) fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// Begins to find out whether a claim's secret is that of one of these hashes of the found record.
    pub(crate) fn begin(&self, claim: &Arc<Claim>, found: &Found, candidates: Vec<SecretHash>) -> Begun {
        match guarded(&claim.id, || self.pick_all(candidates)) {
            Err(cause) => {
                count(&self.counts.failed);
                Begun::Answered(Err(cause))
            }
            Ok((picks, HashCost::Inline)) => Begun::Answered(self.verify_here(claim, found, &picks)),
            Ok((picks, HashCost::Offload)) => self.board(claim, found, picks),
        }
    }

    /// Who verifies which hash, and whether that is costly.
    fn pick_all(&self, candidates: Vec<SecretHash>) -> Result<(Vec<Pick>, HashCost), HashError> {
        let picks = candidates.into_iter().map(|hash| self.pick(hash)).collect::<Result<Vec<_>, _>>()?;
        let costly = picks.iter().any(|pick| pick.hasher.cost() == HashCost::Offload);
        Ok((picks, if costly { HashCost::Offload } else { HashCost::Inline }))
    }

    fn pick(&self, hash: SecretHash) -> Result<Pick, HashError> {
        let hasher = self.hashers.iter().find(|hasher| hasher.recognises(&hash)).ok_or(HashError::Unrecognised)?;
        Ok(Pick { hasher: Arc::clone(hasher), hash })
    }

    fn verify_here(&self, claim: &Arc<Claim>, found: &Found, picks: &[Pick]) -> Answer {
        let answer = verify(claim, picks, &mut Scratch::new());
        self.counts.answered(&answer);
        write_down(&self.cache, claim, found, picks, &answer, &*self.clock);
        self.renewer.look_at(claim, &answer);
        answer
    }

    /// Joins the flight of this secret, or starts one.
    fn board(&self, claim: &Arc<Claim>, found: &Found, picks: Vec<Pick>) -> Begun {
        let hashes: Arc<[SecretHash]> = picks.iter().map(|pick| pick.hash.clone()).collect();
        let (flight, landing) = match self.flights.entry((claim.id, claim.tag)) {
            Entry::Occupied(entry) => {
                count(&self.counts.joined);
                (entry.get().clone(), None)
            }
            Entry::Vacant(entry) => {
                // A job may have ended since the caller looked; from here on none can, the shard is locked.
                if let Some(known) = self.recall(claim, found, &hashes) {
                    return Begun::Answered(Ok(known));
                }
                let (landing, flight) = Landing::new(self, *entry.key(), Arc::clone(&hashes));
                entry.insert(flight.clone());
                (flight, Some(landing))
            }
        };
        if let Some(landing) = landing {
            self.start(Arc::clone(claim), found.clone(), picks, landing);
        }
        let (clock, counts, limits) = (Arc::clone(&self.clock), Arc::clone(&self.counts), self.limits);
        Begun::Waiting(Verification { flight, hashes, clock, counts, limits })
    }

    fn recall(&self, claim: &Claim, found: &Found, hashes: &[SecretHash]) -> Option<Option<SecretHash>> {
        if let Some(proved) = hashes.iter().find(|hash| self.cache.has_proof(claim, hash)) {
            return Some(Some(proved.clone()));
        }
        let now = Moment::now(&*self.clock);
        self.cache.is_refuted(claim, &found.known, hashes, now).then_some(None)
    }

    fn start(&self, claim: Arc<Claim>, found: Found, picks: Vec<Pick>, landing: Landing) {
        let key = JobKey { gate: self.gate, id: claim.id };
        let (cache, clock, renewer) = (Arc::clone(&self.cache), Arc::clone(&self.clock), self.renewer.clone());
        let job = move |scratch: &mut Scratch| {
            let landing = landing.begun();
            let answer = verify(&claim, &picks, scratch);
            write_down(&cache, &claim, &found, &picks, &answer, &*clock);
            landing.end(answer.clone());
            renewer.look_at(&claim, &answer);
        };
        // A refused job is dropped, and its landing tells those who wait.
        let _: Result<oneshot::Receiver<()>, CrewBusy> = self.crew.run(key, &self.limits, job);
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A verification under way on the crew. Dropping it gives up the answer, not the job.
pub(crate) struct Verification {
    flight: Flight,
    hashes: Arc<[SecretHash]>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    limits: VerifyLimits,
}

impl Verification {
    /// Waits for the answer, at most as long as the limits allow.
    pub(crate) async fn outcome(self) -> Result<Verified, UnavailableCause> {
        let timer = self.clock.sleep(self.limits.wait);
        let answer = match select(self.flight.answer, timer).await {
            Either::Left((answer, _)) => answer?,
            Either::Right(_) => {
                count(&self.counts.timed_out);
                return Err(UnavailableCause::HashingTimedOut);
            }
        };
        let asked = self.hashes.iter().all(|hash| self.flight.hashes.contains(hash));
        Ok(match answer {
            Some(hash) => Verified::Proved(hash),
            None if asked => Verified::Refuted,
            None => Verified::Elsewhere,
        })
    }
}

/// Takes a flight from the map and then answers its waiters, however its job ends, or if it never begins.
struct Landing {
    flights: Arc<Flights>,
    counts: Arc<Counts>,
    key: Key,
    answer: Answer,
    sender: Option<oneshot::Sender<Answer>>,
}

impl Landing {
    fn new(verifier: &Verifier, key: Key, hashes: Arc<[SecretHash]>) -> (Self, Flight) {
        let (sender, receiver) = oneshot::channel();
        let answer = receiver.map(|sent| sent.unwrap_or(Err(UnavailableCause::HashingFailed))).boxed().shared();
        let busy = Err(UnavailableCause::HashingBusy);
        let (flights, counts) = (Arc::clone(&verifier.flights), Arc::clone(&verifier.counts));
        let landing = Self { flights, counts, key, answer: busy, sender: Some(sender) };
        (landing, Flight { answer, hashes })
    }

    /// From here on a job that does not end has failed: a clock that panics is an error for those who wait, too.
    fn begun(self) -> Self {
        self.with(Err(UnavailableCause::HashingFailed))
    }

    fn end(self, answer: Answer) {
        drop(self.with(answer));
    }

    fn with(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.counts.answered(&self.answer);
        self.flights.remove(&self.key);
        if let Some(sender) = self.sender.take() {
            // Nobody may be waiting.
            drop(sender.send(self.answer.clone()));
        }
    }
}

/// Verifies a secret against hashes until one proves it. Nothing but the cache is told which secret it was.
fn verify(claim: &Claim, picks: &[Pick], scratch: &mut Scratch) -> Answer {
    guarded(&claim.id, || verify_any(&claim.secret, picks, scratch))
}

/// A proof stands, whatever became of the other hashes; without one a failure counts before a mismatch.
fn verify_any(secret: &TokenSecret, picks: &[Pick], scratch: &mut Scratch) -> Result<Option<SecretHash>, HashError> {
    let mut answer = Ok(None);
    for Pick { hash, hasher } in picks {
        match hasher.verify(secret, hash, scratch) {
            Ok(true) => return Ok(Some(hash.clone())),
            Ok(false) => {}
            Err(error) => answer = Err(error),
        }
    }
    answer
}

fn write_down(cache: &Cache, claim: &Claim, found: &Found, picks: &[Pick], answer: &Answer, clock: &dyn Clock) {
    match answer {
        Ok(Some(hash)) => cache.prove(claim, found, hash),
        Ok(None) => cache.refute(claim, found, picks.iter().map(|pick| &pick.hash), Moment::now(clock)),
        Err(_) => {}
    }
}

/// Calls a hasher; its panic is an error like others.
fn guarded<T>(id: &TokenId, call: impl FnOnce() -> Result<T, HashError>) -> Result<T, UnavailableCause> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => answer.map_err(|error| failed(id, &error)),
        Err(_) => {
            tracing::error!(claimed_id = %id, "a secret hasher panicked");
            Err(UnavailableCause::HashingFailed)
        }
    }
}

/// The error names neither the secret nor the hash, so it can be logged.
fn failed(id: &TokenId, error: &HashError) -> UnavailableCause {
    tracing::error!(claimed_id = %id, %error, "a secret could not be verified");
    match error {
        HashError::Unrecognised | HashError::Malformed | HashError::TooCostly | HashError::UnknownPepper => {
            UnavailableCause::RecordUnusable
        }
        HashError::Random(_) | HashError::Failed(_) => UnavailableCause::HashingFailed,
    }
}

#[cfg(test)]
mod tests;
