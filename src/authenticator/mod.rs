//! The authenticator: from a token of our shape to a verdict.
//!
//! It knows tokens, records, secrets and time, and no HTTP.
//!
//! # How it decides
//! 1. A proved secret and a fresh record: judged at once, without an allocation or an await.
//! 2. No fresh record: the store is asked, once for all who wait for the same id.
//! 3. A record that is not live is refused before any hash.
//! 4. A secret that was never proved is hashed, once for all who claim it. What was read before a wait may have been
//!    revoked during it, so after a hash the record is recalled anew.
//!
//! # When things fail
//! Every failure is [`Reason::Unavailable`] with its cause; none is remembered. Where the application allows it, a proved
//! token whose record is still trusted goes on for a while when the store cannot be asked.
//!
//! # Cost
//! Hottest, on a thread that has admitted the token before: one SHA-256 block and no lock. Hot: one shard's read lock
//! and one SHA-256 block. Inline hashes and records that are known are judged
//! synchronously, too; only a look-up or a costly hash makes a boxed future.

mod attendance;
mod background;
mod chores;
mod follow;
mod handle;
mod life;
#[cfg(all(test, shuttle))]
mod models;
#[cfg(feature = "metrics")]
mod publish;
mod renewals;
mod stats;
mod upkeep;
mod uses;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use follow::FeedState;
pub use handle::AuthHandle;
pub use stats::{Stats, UpkeepStats};

use attendance::Attendance;
use background::Due;
use chores::Chore;
use follow::Feeds;
use life::Life;
use upkeep::{Registry, Terms, Upkeep};

use crate::audit::Recorder;
use crate::cache::{Boarded, Cache, Claim, Found, Hit, Judgement, Landed, Lookup, Lookups, News, Recalled};
use crate::clock::{Clock, Moment};
use crate::config::{BuildError, CacheConfig, LookupLimits, VerifyLimits, at_most_a_day};
use crate::count::Count;
use crate::decision::{AuthenticatedToken, GateId, Reason, UnavailableCause, Verdict};
use crate::hash::SecretHasher;
use crate::id::{OwnerId, TokenId};
use crate::secret::SecretHash;
use crate::store::ErasedStore;
use crate::token::{Cut, ParsedToken, TokenRecord};
use crate::verify::{Begun, Crew, Verification, Verified, Verifier};

/// How often a request may have to wait: four times for a look-up and a hash each. One pair is the rule; whatever
/// takes more is invalidated as fast as it is read.
const WAITS: usize = 8;

/// One gate's judge of tokens. A clone is another handle to the same one.
#[derive(Clone)]
pub(crate) struct Authenticator(Arc<Core>);

struct Core {
    gate: GateId,
    #[cfg(feature = "metrics")]
    realm: String,
    clock: Arc<dyn Clock>,
    cache: Arc<Cache>,
    lookups: Lookups,
    verifier: Verifier,
    recorder: Recorder,
    hits: Count,
    misses: Count,
    due: Due,
    /// How many due tokens are looked up at once.
    refreshes: usize,
    feeds: Arc<Feeds>,
    attendance: Arc<Attendance>,
    upkeep: Arc<Upkeep>,
    life: Life,
}

/// What an [`Authenticator`] is made of.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn ErasedStore>,
    pub(crate) cache: CacheConfig,
    pub(crate) lookup: LookupLimits,
    pub(crate) verification: VerifyLimits,
    pub(crate) hashers: Vec<Arc<dyn SecretHasher>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    /// Where the gate writes to, if it is known yet.
    pub(crate) registry: Option<Registry>,
    pub(crate) flush_last_used: Duration,
    /// Tells this gate's metrics from another's.
    #[cfg(feature = "metrics")]
    pub(crate) realm: String,
}

/// What can be said of a token now.
pub(crate) enum Attempt {
    Decided(Verdict),
    Pending(BoxFuture<'static, Verdict>),
}

impl Authenticator {
    pub(crate) fn new(setup: Setup) -> Result<Self, BuildError> {
        #[cfg(feature = "metrics")]
        let realm = setup.realm;
        let Setup { store, cache, lookup, verification, hashers, clock, recorder, registry, .. } = setup;
        let every = setup.flush_last_used;
        cache.check()?;
        lookup.check()?;
        verification.check()?;
        at_most_a_day("TokenAuthBuilder::flush_last_used", every)?;
        let (gate, attendance) = (GateId::next(), Arc::<Attendance>::default());
        let due = Due::new(cache.refresh_ahead.is_some_and(|ahead| !ahead.is_zero()), Arc::clone(&attendance));
        let terms = Terms { registry, timeout: lookup.timeout, every, capacity: cache.proved };
        let upkeep = Arc::new(Upkeep::new(terms, Arc::clone(&clock), Arc::clone(&attendance)));
        let cache = Arc::new(Cache::new(gate, cache)?);
        let lookups = Lookups::new(store, Arc::clone(&cache), Arc::clone(&clock), &lookup);
        let verifier =
            Verifier::new(gate, Arc::clone(&cache), Arc::clone(&clock), hashers, verification, upkeep.rehashing());
        Ok(Self(Arc::new(Core {
            gate,
            #[cfg(feature = "metrics")]
            realm,
            clock,
            cache,
            lookups,
            verifier,
            recorder,
            hits: Count::default(),
            misses: Count::default(),
            due,
            refreshes: lookup.refreshes,
            feeds: Arc::default(),
            attendance,
            upkeep,
            life: Life::new(),
        })))
    }

    pub(crate) fn gate(&self) -> GateId {
        self.0.gate
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    pub(crate) fn crew(&self) -> &Arc<Crew> {
        self.0.verifier.crew()
    }

    pub(crate) fn handle(&self) -> AuthHandle {
        AuthHandle(self.clone())
    }

    /// A token that this thread has lately admitted, presented word for word as then. `None` says nothing.
    #[inline(always)]
    pub(crate) fn recognise(&self, text: &Cut<'_>) -> Option<AuthenticatedToken> {
        let core = &self.0;
        core.cache.admit_again(text, || core.now()).inspect(|_| core.hits.up())
    }

    /// Decides at once where it can. The future needs nothing of the caller.
    pub(crate) fn authenticate(&self, token: ParsedToken) -> Attempt {
        let core = &self.0;
        let claim = core.cache.claim(token);
        match core.cache.admit(&claim, core.now()) {
            Some(Ok(hit)) => return Attempt::Decided(Ok(core.tell(hit))),
            Some(Err(reason)) => {
                core.hits.up();
                return Attempt::Decided(Err(reason.into()));
            }
            None => {}
        }
        let claim = Arc::new(claim);
        let step = core.advance(&claim, None);
        let remembered = matches!(&step, Step::Decided(verdict) if !is_unavailable(verdict));
        if remembered {
            core.hits.up()
        } else {
            core.misses.up()
        }
        match step {
            Step::Decided(verdict) => Attempt::Decided(verdict),
            waits => Attempt::Pending(Box::pin(resolve(Arc::clone(core), claim, waits))),
        }
    }

    /// Takes in a record that was changed here: nothing older is believed from now on.
    pub(crate) fn learn(&self, record: TokenRecord) {
        self.0.cache.learn(record);
    }

    /// Asks the store before this id is believed again.
    pub(crate) fn distrust(&self, id: &TokenId) {
        self.0.cache.distrust(id);
    }

    /// Whether the token's current secret has been shown here, whoever has shown it.
    pub(crate) fn has_proof_of_current(&self, record: &TokenRecord) -> bool {
        self.0.cache.has_proof_of_current(record)
    }

    pub(crate) fn distrust_owner(&self, owner: &OwnerId) {
        self.0.cache.distrust_owner(owner);
    }

    pub(crate) fn distrust_all(&self) {
        self.0.cache.distrust_all();
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("gate", &self.0.gate).finish_non_exhaustive()
    }
}

/// What is to be done next for a claim.
enum Step {
    Decided(Verdict),
    LookUp(Lookup),
    Verify(Verification),
}

impl Step {
    fn unavailable(cause: UnavailableCause) -> Self {
        Self::Decided(Err(Reason::Unavailable(cause)))
    }
}

fn is_unavailable(verdict: &Verdict) -> bool {
    matches!(verdict, Err(Reason::Unavailable(_)))
}

/// Waits for one step after the other. All that happens between two waits is synchronous, and reads the time anew.
async fn resolve(core: Arc<Core>, claim: Arc<Claim>, mut step: Step) -> Verdict {
    let mut proven = None;
    for _ in 0..WAITS {
        step = match step {
            Step::Decided(verdict) => return verdict,
            Step::LookUp(lookup) => match lookup.await {
                Ok(landed) => core.take_in(&claim, landed, proven.as_ref()),
                Err(cause) => core.go_without(&claim, cause, proven.as_ref()),
            },
            Step::Verify(verification) => match verification.outcome().await {
                Ok(Verified::Refuted) => Step::Decided(Err(Reason::Mismatch)),
                Ok(Verified::Elsewhere) => core.advance(&claim, proven.as_ref()),
                Ok(Verified::Proved(hash)) => core.advance(&claim, Some(proven.insert(hash))),
                Err(cause) => Step::unavailable(cause),
            },
        };
    }
    match step {
        Step::Decided(verdict) => verdict,
        Step::LookUp(_) | Step::Verify(_) => Err(Reason::Unavailable(UnavailableCause::Contended)),
    }
}

impl Core {
    fn now(&self) -> Moment {
        Moment::now(&*self.clock)
    }

    /// Counts a hit, and tells the background what it has to do about it.
    fn tell(&self, hit: Hit) -> AuthenticatedToken {
        self.hits.up();
        if let Some(news) = hit.news {
            self.pass_on(hit.token.id(), *news);
        }
        hit.token
    }

    #[cold]
    fn pass_on(&self, id: TokenId, news: News) {
        if news.due {
            self.due.tell(id);
        }
        if let Some(hash) = news.successor {
            self.upkeep.give(Chore::succeed(id, hash));
        }
    }

    /// From what is remembered to a verdict, or to what has to be waited for. `proven` is the hash that this request
    /// has already waited for: with a TTL of zero nothing else remembers it.
    fn advance(&self, claim: &Arc<Claim>, proven: Option<&SecretHash>) -> Step {
        let now = self.now();
        match self.cache.recall_counted(&claim.id, now) {
            Recalled::Nothing => self.look_up(claim, proven, now),
            recalled => self.weigh(claim, recalled, proven, now),
        }
    }

    fn look_up(&self, claim: &Arc<Claim>, proven: Option<&SecretHash>, now: Moment) -> Step {
        match self.lookups.board(&claim.id, now) {
            Ok(Boarded::Flight(lookup)) => Step::LookUp(lookup),
            Ok(Boarded::Recalled(recalled)) => self.weigh(claim, recalled, proven, now),
            Err(cause) => self.go_without(claim, cause, proven),
        }
    }

    /// Judges what a flight brought. It may be too old to be remembered: it was made for this request.
    fn take_in(&self, claim: &Arc<Claim>, landed: Landed, proven: Option<&SecretHash>) -> Step {
        let now = self.now();
        // Invalidated since the flight began, it may have brought what was true before. And a request that nobody has
        // polled for long must not be judged by what was true then.
        if !self.cache.is_current(landed.mark) || !landed.until.holds(now) {
            return self.advance(claim, proven);
        }
        // Others may have learnt better since it landed.
        let recalled = match self.cache.recall(&claim.id, now) {
            Recalled::Nothing => landed.found.map_or(Recalled::Unknown, Recalled::Found),
            known => known,
        };
        self.weigh(claim, recalled, proven, now)
    }

    /// The store could not be asked: goes on with what is remembered, where that may be.
    fn go_without(&self, claim: &Arc<Claim>, cause: UnavailableCause, proven: Option<&SecretHash>) -> Step {
        if self.excuse(&claim.id, cause) { self.advance(claim, proven) } else { Step::unavailable(cause) }
    }

    /// Believes what is remembered of a token a little longer, where the application allows it and the store, or what is
    /// asked beside it, is to blame. A record that makes no sense is no excuse: it may be the one that ends the token.
    fn excuse(&self, id: &TokenId, cause: UnavailableCause) -> bool {
        use UnavailableCause::{LookupsBusy, OwnersFailed, PolicyFailed, StoreFailed, StorePanicked, StoreTimedOut};
        let excuses =
            matches!(cause, StoreFailed | StorePanicked | StoreTimedOut | OwnersFailed | PolicyFailed | LookupsBusy);
        excuses && self.cache.excuse(id, self.now())
    }

    fn weigh(&self, claim: &Arc<Claim>, recalled: Recalled, proven: Option<&SecretHash>, now: Moment) -> Step {
        match recalled {
            Recalled::Found(found) => self.judge(claim, &found, proven, now),
            Recalled::Unknown => Step::Decided(Err(Reason::Unknown)),
            // Nothing is never weighed; if it were, another look would be due.
            Recalled::Nothing => Step::unavailable(UnavailableCause::Contended),
        }
    }

    fn judge(&self, claim: &Arc<Claim>, found: &Found, proven: Option<&SecretHash>, now: Moment) -> Step {
        let candidates = match self.cache.judge(claim, found, proven, now) {
            Judgement::Decided(verdict) => return Step::Decided(self.decided(verdict, now)),
            Judgement::Prove(candidates) => candidates,
        };
        match self.verifier.begin(claim, found, candidates) {
            Begun::Waiting(verification) => Step::Verify(verification),
            Begun::Answered(Ok(Some(hash))) => Step::Decided(self.admit_proven(claim, found, &hash, now)),
            Begun::Answered(Ok(None)) => Step::Decided(Err(Reason::Mismatch)),
            Begun::Answered(Err(cause)) => Step::unavailable(cause),
        }
    }

    /// The same record again, now that one of its hashes is proved: no time has passed.
    fn admit_proven(&self, claim: &Claim, found: &Found, hash: &SecretHash, now: Moment) -> Verdict {
        match self.cache.judge(claim, found, Some(hash), now) {
            Judgement::Decided(verdict) => self.decided(verdict, now),
            Judgement::Prove(_) => Err(Reason::Unavailable(UnavailableCause::Contended)),
        }
    }

    /// A verdict on its way to the request. Where it tells that a rotation's new secret is in use, so do we.
    fn decided(&self, verdict: Verdict, now: Moment) -> Verdict {
        let successor = |token: &AuthenticatedToken| {
            Some((token.id(), token.known().tells_successor(token.secret_slot(), now.wall)?))
        };
        if let Some((id, hash)) = verdict.as_ref().ok().and_then(successor) {
            self.upkeep.give(Chore::succeed(id, hash));
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
