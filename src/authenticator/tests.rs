//! The authenticator against a store and a hasher that can be held.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::audit::NoAudit;
use crate::clock::{SystemClock, Timestamp};
use crate::decision::StoreError;
use crate::hash::{HashCost, HashError, Scratch, Sha256Hasher};
use crate::id::Label;
use crate::scope::Scope;
use crate::secret::TokenSecret;
use crate::store::{Change, MemoryStore, TokenRegistry, TokenStore};
use crate::token::Revision;

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
        recorder: Recorder::new(Arc::new(NoAudit::new())),
        registry: None,
        flush_last_used: Duration::ZERO,
        #[cfg(feature = "metrics")]
        realm: "api".to_owned(),
    });
    Bench { store, hashes, authenticator: authenticator.unwrap(), token }
}

impl Bench {
    fn attempt(&self) -> Attempt {
        let (id, secret) = self.token.clone();
        self.authenticator.authenticate(ParsedToken::of_parts(id, secret))
    }

    fn attempt_wrong(&self) -> Attempt {
        let secret = TokenSecret::generate().unwrap();
        self.authenticator.authenticate(ParsedToken::of_parts(self.token.0, secret))
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
        let revoke = Change::Revoke { at: Timestamp::MAX };
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
    let attempt = || bench.authenticator.authenticate(ParsedToken::of_parts(unknown, bench.token.1.clone()));
    assert_eq!(verdict(attempt()).await.unwrap_err(), Reason::Unknown);
    assert!(matches!(attempt(), Attempt::Decided(Err(Reason::Unknown))));
}
