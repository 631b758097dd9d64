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
//! Every failure is [`Reason::Unavailable`] with its cause; none is remembered.
//!
//! # Cost
//! Hot: one shard's read lock, one SHA-256 of the secret. Inline hashes and records that are known are judged
//! synchronously, too; only a look-up or a costly hash makes a boxed future.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::cache::{Boarded, Cache, Claim, Found, Judgement, Landed, Lookup, Lookups, Recalled};
use crate::clock::{Clock, Moment};
use crate::config::{BuildError, CacheConfig, LookupLimits, VerifyLimits};
use crate::decision::{GateId, Reason, UnavailableCause, Verdict};
use crate::hash::SecretHasher;
use crate::id::{OwnerId, TokenId};
use crate::secret::SecretHash;
use crate::store::ErasedStore;
use crate::token::{ParsedToken, TokenRecord};
use crate::verify::{Begun, Crew, Verification, Verified, Verifier};

/// How often a request may have to wait: four times for a look-up and a hash each. One pair is the rule; whatever
/// takes more is invalidated as fast as it is read.
const WAITS: usize = 8;

/// One gate's judge of tokens. A clone is another handle to the same one.
#[derive(Clone)]
pub(crate) struct Authenticator(Arc<Core>);

struct Core {
    gate: GateId,
    clock: Arc<dyn Clock>,
    cache: Arc<Cache>,
    lookups: Lookups,
    verifier: Verifier,
}

/// What an [`Authenticator`] is made of.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn ErasedStore>,
    pub(crate) cache: CacheConfig,
    pub(crate) lookup: LookupLimits,
    pub(crate) verification: VerifyLimits,
    pub(crate) hashers: Vec<Arc<dyn SecretHasher>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What can be said of a token now.
pub(crate) enum Attempt {
    Decided(Verdict),
    Pending(BoxFuture<'static, Verdict>),
}

impl Authenticator {
    pub(crate) fn new(setup: Setup) -> Result<Self, BuildError> {
        let Setup { store, cache, lookup, verification, hashers, clock } = setup;
        cache.check()?;
        lookup.check()?;
        verification.check()?;
        let gate = GateId::next();
        let cache = Arc::new(Cache::new(gate, cache)?);
        let lookups = Lookups::new(store, Arc::clone(&cache), Arc::clone(&clock), &lookup);
        let verifier = Verifier::new(gate, Arc::clone(&cache), Arc::clone(&clock), hashers, verification);
        Ok(Self(Arc::new(Core { gate, clock, cache, lookups, verifier })))
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

    /// Decides at once where it can. The future needs nothing of the caller.
    pub(crate) fn authenticate(&self, token: ParsedToken) -> Attempt {
        let core = &self.0;
        let claim = core.cache.claim(token);
        if let Some(verdict) = core.cache.admit(&claim, core.now()) {
            return Attempt::Decided(verdict);
        }
        let claim = Arc::new(claim);
        match core.advance(&claim, None) {
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

/// Waits for one step after the other. All that happens between two waits is synchronous, and reads the time anew.
async fn resolve(core: Arc<Core>, claim: Arc<Claim>, mut step: Step) -> Verdict {
    let mut proven = None;
    for _ in 0..WAITS {
        step = match step {
            Step::Decided(verdict) => return verdict,
            Step::LookUp(lookup) => match lookup.await {
                Ok(landed) => core.take_in(&claim, landed, proven.as_ref()),
                Err(cause) => Step::unavailable(cause),
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

    /// From what is remembered to a verdict, or to what has to be waited for. `proven` is the hash that this request
    /// has already waited for: with a TTL of zero nothing else remembers it.
    fn advance(&self, claim: &Arc<Claim>, proven: Option<&SecretHash>) -> Step {
        let now = self.now();
        match self.cache.recall(&claim.id, now) {
            Recalled::Nothing => self.look_up(claim, proven, now),
            recalled => self.weigh(claim, recalled, proven, now),
        }
    }

    fn look_up(&self, claim: &Arc<Claim>, proven: Option<&SecretHash>, now: Moment) -> Step {
        match self.lookups.board(&claim.id, now) {
            Ok(Boarded::Flight(lookup)) => Step::LookUp(lookup),
            Ok(Boarded::Recalled(recalled)) => self.weigh(claim, recalled, proven, now),
            Err(cause) => Step::unavailable(cause),
        }
    }

    /// Judges what a flight brought. It is not asked whether it is still fresh: it was made for this request.
    fn take_in(&self, claim: &Arc<Claim>, landed: Landed, proven: Option<&SecretHash>) -> Step {
        // Invalidated since the flight began: it may have brought what was true before.
        if !self.cache.is_current(&claim.id, landed.mark) {
            return self.advance(claim, proven);
        }
        let recalled = landed.found.map_or(Recalled::Unknown, Recalled::Found);
        self.weigh(claim, recalled, proven, self.now())
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
            Judgement::Decided(verdict) => return Step::Decided(verdict),
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
            Judgement::Decided(verdict) => verdict,
            Judgement::Prove(_) => Err(Reason::Unavailable(UnavailableCause::Contended)),
        }
    }
}

/// Tells a gate, and all clones of it, that something has changed. Cheap to clone.
///
/// When one of its methods has returned, nothing that this gate read before is believed, even if a look-up was under
/// way: the next use of the token asks the store. Secrets that were proved stay proved, so that costs a look-up, not a
/// hash. All methods are synchronous, wait for no I/O, and can be called from anywhere.
///
/// An issuer made by the layer's `issuer` tells its gate by itself. A handle is for changes made elsewhere.
///
/// # Example
/// ```
/// use tower_token_auth::{MemoryStore, TokenAuthLayer, TokenId};
///
/// let layer = TokenAuthLayer::new(MemoryStore::new());
/// let handle = layer.handle();
/// // Another process has revoked this token:
/// handle.invalidate(&TokenId::generate()?);
/// # Ok::<(), tower_token_auth::RandomError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthHandle(Authenticator);

impl AuthHandle {
    /// One token has changed: was revoked, paused, rotated, or created under an id that was unknown.
    pub fn invalidate(&self, id: &TokenId) {
        self.0.distrust(id);
    }

    /// All tokens of one owner have changed, such as when the owner was barred.
    ///
    /// # Cost
    /// Walks over all remembered tokens, and makes every look-up under way start anew.
    pub fn invalidate_owner(&self, owner: &OwnerId) {
        self.0.0.cache.distrust_owner(owner);
    }

    /// Anything may have changed.
    ///
    /// # Cost
    /// Walks over all remembered tokens; each costs a look-up before its next use.
    pub fn invalidate_all(&self) {
        self.0.0.cache.distrust_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::clock::{SystemClock, Timestamp};
    use crate::decision::StoreError;
    use crate::hash::{HashCost, HashError, Scratch, Sha256Hasher};
    use crate::id::Label;
    use crate::scope::Scope;
    use crate::secret::TokenSecret;
    use crate::store::{Change, MemoryStore, TokenRegistry, TokenStore};
    use crate::token::{Revision, TokenState};

    /// SHA-256, on the crew.
    struct Offloaded(Arc<AtomicUsize>);

    impl SecretHasher for Offloaded {
        fn recognises(&self, hash: &SecretHash) -> bool {
            Sha256Hasher::new().recognises(hash)
        }

        fn cost(&self) -> HashCost {
            HashCost::Offload
        }

        fn hash(&self, secret: &TokenSecret, scratch: &mut Scratch) -> Result<SecretHash, HashError> {
            Sha256Hasher::new().hash(secret, scratch)
        }

        fn verify(&self, secret: &TokenSecret, hash: &SecretHash, scratch: &mut Scratch) -> Result<bool, HashError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Sha256Hasher::new().verify(secret, hash, scratch)
        }

        fn is_current(&self, hash: &SecretHash) -> bool {
            Sha256Hasher::new().is_current(hash)
        }
    }

    /// Reads at once, and hands out what it read when a ticket is there.
    #[derive(Clone)]
    struct Slow {
        inner: MemoryStore,
        calls: Arc<AtomicUsize>,
        tickets: Arc<tokio::sync::Semaphore>,
    }

    impl TokenStore for Slow {
        async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
            let read = self.inner.find(id).await;
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.tickets.acquire().await.unwrap().forget();
            read
        }
    }

    struct Bench {
        store: Slow,
        hashes: Arc<AtomicUsize>,
        authenticator: Authenticator,
        token: (TokenId, TokenSecret),
    }

    async fn bench(cache: CacheConfig, inline: bool) -> Bench {
        let (inner, calls, hashes) = (MemoryStore::new(), Arc::default(), Arc::<AtomicUsize>::default());
        let store = Slow { inner, calls, tickets: Arc::new(tokio::sync::Semaphore::new(100)) };
        let token = (TokenId::generate().unwrap(), TokenSecret::generate().unwrap());
        let secret = Sha256Hasher::new().hash(&token.1, &mut Scratch::new()).unwrap();
        let (owner, label) = (OwnerId::new("o").unwrap(), Label::new("l").unwrap());
        let at = Timestamp::from_unix_seconds(1);
        let record = TokenRecord::new(token.0, owner, label, Scope::ReadOnly, secret, at);
        store.inner.insert(record).await.unwrap();
        let hasher: Arc<dyn SecretHasher> =
            if inline { Arc::new(Sha256Hasher::new()) } else { Arc::new(Offloaded(Arc::clone(&hashes))) };
        let authenticator = Authenticator::new(Setup {
            store: Arc::new(store.clone()),
            cache,
            lookup: LookupLimits::default(),
            verification: VerifyLimits::default().own_workers(2),
            hashers: vec![hasher],
            clock: Arc::new(SystemClock::new()),
        });
        Bench { store, hashes, authenticator: authenticator.unwrap(), token }
    }

    impl Bench {
        fn attempt(&self) -> Attempt {
            let (id, secret) = self.token.clone();
            self.authenticator.authenticate(ParsedToken { id, secret })
        }

        fn attempt_wrong(&self) -> Attempt {
            let secret = TokenSecret::generate().unwrap();
            self.authenticator.authenticate(ParsedToken { id: self.token.0, secret })
        }

        fn calls(&self) -> usize {
            self.store.calls.load(Ordering::SeqCst)
        }

        fn close(&self) {
            self.store.tickets.forget_permits(100);
        }
    }

    async fn verdict(attempt: Attempt) -> Verdict {
        match attempt {
            Attempt::Decided(verdict) => verdict,
            Attempt::Pending(verdict) => verdict.await,
        }
    }

    #[tokio::test]
    async fn a_proved_token_is_decided_at_once() {
        for inline in [true, false] {
            let bench = bench(CacheConfig::default(), inline).await;
            assert!(matches!(bench.attempt(), Attempt::Pending(_)));
            assert!(verdict(bench.attempt()).await.is_ok());
            assert!(matches!(bench.attempt(), Attempt::Decided(Ok(_))));
            assert!(matches!(bench.attempt_wrong(), Attempt::Decided(Err(Reason::Mismatch))));
            assert_eq!(bench.calls(), 1);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_stampede_costs_one_call_and_one_hash() {
        let bench = Arc::new(bench(CacheConfig::default(), false).await);
        let callers: Vec<_> = (0..1_000)
            .map(|_| {
                let bench = Arc::clone(&bench);
                tokio::spawn(async move { verdict(bench.attempt()).await })
            })
            .collect();
        callers.iter().step_by(10).for_each(|caller| caller.abort());
        for caller in callers {
            assert!(caller.await.map_or_else(|gone| gone.is_cancelled(), |verdict| verdict.is_ok()));
        }
        assert_eq!((bench.calls(), bench.hashes.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn what_was_read_before_an_invalidation_is_not_believed_after_it() {
        for inline in [true, false] {
            let bench = bench(CacheConfig::default(), inline).await;
            bench.close();
            let Attempt::Pending(pending) = bench.attempt() else { panic!("decided") };
            let pending = tokio::spawn(pending);
            while bench.calls() == 0 {
                tokio::task::yield_now().await;
            }
            let revoke = Change::State(TokenState::Revoked);
            bench.store.inner.update(&bench.token.0, Revision::FIRST, revoke).await.unwrap();
            bench.authenticator.handle().invalidate(&bench.token.0);
            bench.store.tickets.add_permits(100);
            assert_eq!(pending.await.unwrap().unwrap_err(), Reason::Revoked);
            assert_eq!(bench.calls(), 2);
        }
    }

    #[tokio::test]
    async fn invalidation_keeps_the_proof() {
        let bench = bench(CacheConfig::default(), false).await;
        assert!(verdict(bench.attempt()).await.is_ok());
        let handle = bench.authenticator.handle();
        let owner = OwnerId::new("o").unwrap();
        for invalidate in [&|| handle.invalidate(&bench.token.0), &|| handle.invalidate_owner(&owner), &|| {
            handle.invalidate_all();
        }] as [&dyn Fn(); 3]
        {
            invalidate();
            assert!(matches!(bench.attempt(), Attempt::Pending(_)));
            assert!(verdict(bench.attempt()).await.is_ok());
        }
        assert_eq!((bench.calls(), bench.hashes.load(Ordering::SeqCst)), (4, 1));
    }

    #[tokio::test]
    async fn without_a_ttl_every_request_asks_and_none_hashes_again() {
        let bench = bench(CacheConfig::default().ttl(Duration::ZERO).negative_ttl(Duration::ZERO), false).await;
        assert_eq!(verdict(bench.attempt_wrong()).await.unwrap_err(), Reason::Mismatch);
        assert!(verdict(bench.attempt()).await.is_ok());
        let (calls, hashes) = (bench.calls(), bench.hashes.load(Ordering::SeqCst));
        assert!(verdict(bench.attempt()).await.is_ok());
        assert_eq!((bench.calls(), bench.hashes.load(Ordering::SeqCst)), (calls + 1, hashes));
    }

    #[tokio::test]
    async fn an_unknown_id_is_refused_and_remembered() {
        let bench = bench(CacheConfig::default(), true).await;
        let unknown = TokenId::generate().unwrap();
        let attempt = || bench.authenticator.authenticate(ParsedToken { id: unknown, secret: bench.token.1.clone() });
        assert_eq!(verdict(attempt()).await.unwrap_err(), Reason::Unknown);
        assert!(matches!(attempt(), Attempt::Decided(Err(Reason::Unknown))));
    }
}
