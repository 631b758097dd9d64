//! Requests, look-ups and invalidations under thousands of schedules.
//!
//! Modelled are the crate's own locks, atomics and maps ([`crate::sync`]). What comes from elsewhere (the shared future
//! of a flight, the semaphore of the budgets) runs between two of their steps, as if it were atomic; it locks nothing
//! while it polls. The hash crew is not modelled: secrets are hashed inline.
//!
//! `nobody_is_accepted_after_an_invalidation_of_the_owner_or_of_all` found that an entry could pass from the unproved to
//! the proved behind the back of an invalidation, which went over the maps in the other order.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{block_on, yield_now};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use shuttle::thread;

use super::*;
use crate::audit::NoAudit;
use crate::clock::{Monotonic, Sleep, Timestamp};
use crate::decision::StoreError;
use crate::hash::{Scratch, Sha256Hasher};
use crate::id::Label;
use crate::scope::Scope;
use crate::secret::TokenSecret;
use crate::store::TokenStore;
use crate::token::{Cut, Revision, TokenState};

const TTL: Duration = Duration::from_secs(30);

fn check(model: impl Fn() + Copy + Send + Sync + 'static) {
    check_times(10_000, model);
}

fn check_times(times: usize, model: impl Fn() + Copy + Send + Sync + 'static) {
    shuttle::check_random(model, times);
    shuttle::check_pct(model, times / 10, 3);
}

/// A clock that a model turns, whose timers never ring.
#[derive(Debug, Clone, Default)]
struct Turned(Arc<std::sync::atomic::AtomicU64>);

impl Turned {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

impl Clock for Turned {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_000) + self.elapsed()
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.elapsed())
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

/// What the store answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Alive,
    /// The owner was barred, which changes no revision.
    Barred,
    /// A newer revision, revoked.
    Revoked,
    /// A newer revision, of another scope.
    Narrowed,
}

/// Reads at once, and answers after a while, as a store on a network does.
struct Store {
    token: (TokenId, TokenSecret),
    truth: AtomicU64,
    calls: AtomicUsize,
    in_flight: AtomicUsize,
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    fn record(&self, truth: Truth) -> TokenRecord {
        let hash = Sha256Hasher::new().hash(&self.token.1, &mut Scratch::new()).unwrap();
        let (owner, label) = (OwnerId::new("o").unwrap(), Label::new("l").unwrap());
        let record =
            TokenRecord::new(self.token.0, owner, label, Scope::ReadWrite, hash, Timestamp::from_unix_seconds(1));
        let newer = |record: TokenRecord| record.with_revision(Revision::FIRST.next());
        match truth {
            Truth::Alive => record,
            Truth::Barred => record.with_owner_barred(true),
            Truth::Revoked => newer(record.with_state(TokenState::Revoked)),
            Truth::Narrowed => newer(record.with_scope(Scope::ReadOnly)),
        }
    }

    fn set(&self, truth: Truth) {
        self.truth.store(truth as u64, Ordering::SeqCst);
    }

    fn truth(&self) -> Truth {
        let truths = [Truth::Alive, Truth::Barred, Truth::Revoked, Truth::Narrowed];
        truths[usize::try_from(self.truth.load(Ordering::SeqCst)).unwrap()]
    }
}

struct Port(Arc<Store>);

impl TokenStore for Port {
    async fn find(&self, _: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        let _in_flight = InFlight(&self.0.in_flight);
        let truth = self.0.truth();
        yield_now().await;
        Ok(Some(self.0.record(truth)))
    }
}

#[derive(Clone)]
struct Model {
    store: Arc<Store>,
    clock: Turned,
    gate: Authenticator,
}

impl Model {
    fn new() -> Self {
        let token = ("0123456789abcdef".parse().unwrap(), TokenSecret::generate().unwrap());
        let (truth, calls, in_flight) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let store = Arc::new(Store { token, truth, calls, in_flight });
        let clock = Turned::default();
        let gate = Authenticator::new(Setup {
            store: Arc::new(Port(Arc::clone(&store))),
            cache: CacheConfig::default().ttl(TTL),
            lookup: LookupLimits::default(),
            verification: VerifyLimits::default(),
            hashers: vec![Arc::new(Sha256Hasher::new())],
            clock: Arc::new(clock.clone()),
            recorder: Recorder::new(Arc::new(NoAudit::new())),
            registry: None,
            flush_last_used: Duration::ZERO,
            #[cfg(feature = "metrics")]
            realm: "api".to_owned(),
        });
        Self { store, clock, gate: gate.unwrap() }
    }

    async fn request(&self) -> Verdict {
        let (id, secret) = self.store.token.clone();
        let token = ParsedToken::of_parts(id, secret);
        let sealed: Vec<u8> = token.secret.as_bytes().iter().chain(&token.seal.checksum).copied().collect();
        let sealed = sealed.try_into().unwrap();
        let text = Cut::of_parts(token.id.as_bytes(), &sealed, token.seal.prefix);
        if let Some(token) = self.gate.recognise(&text) {
            return Ok(token);
        }
        match self.gate.authenticate(token) {
            Attempt::Decided(verdict) => verdict,
            Attempt::Pending(verdict) => verdict.await,
        }
    }

    /// A thread with a handle of its own.
    fn thread(&self, body: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let model = self.clone();
        thread::spawn(move || body(&model))
    }

    fn id(&self) -> TokenId {
        self.store.token.0
    }

    fn assert_nothing_left(&self) {
        let lookups = self.gate.stats().lookups;
        assert_eq!((lookups.in_flight, lookups.refreshes_in_flight), (0, 0));
        assert_eq!(self.store.in_flight.load(Ordering::SeqCst), 0);
    }
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A change in the store and a call that tells of it, while others look up, refresh, join and judge: whoever begins
/// after the call has returned is refused.
fn a_change_races(truth: Truth, tell: fn(&Model), hot: bool) {
    let model = Model::new();
    if hot {
        assert!(block_on(model.request()).is_ok());
        model.clock.advance(TTL - Duration::from_secs(1));
    }
    let told = Arc::new(AtomicBool::new(false));
    let watch = |told: &Arc<AtomicBool>| {
        let told = Arc::clone(told);
        move |model: &Model| {
            for _ in 0..2 {
                let before = told.load(Ordering::SeqCst);
                let verdict = block_on(model.request());
                assert!(!before || verdict.is_err(), "accepted after it was told");
            }
        }
    };
    let changing = model.thread({
        let told = Arc::clone(&told);
        move |model| {
            model.store.set(truth);
            tell(model);
            told.store(true, Ordering::SeqCst);
            assert!(block_on(model.request()).is_err(), "accepted by the next request");
        }
    });
    let refreshing = model.thread(move |model| {
        if hot {
            model.clock.advance(Duration::from_secs(1));
            if let Some(lookup) = model.gate.0.lookups.refresh(&model.id()) {
                drop(block_on(lookup));
            }
        }
    });
    join([model.thread(watch(&told)), model.thread(watch(&told)), changing, refreshing]);
    assert!(block_on(model.request()).is_err());
    model.assert_nothing_left();
}

#[test]
fn nobody_is_accepted_after_an_invalidation() {
    check(|| a_change_races(Truth::Barred, |model| model.gate.distrust(&model.id()), false));
    check(|| a_change_races(Truth::Barred, |model| model.gate.distrust(&model.id()), true));
}

#[test]
fn nobody_is_accepted_after_an_invalidation_of_the_owner_or_of_all() {
    check(|| a_change_races(Truth::Barred, |model| model.gate.distrust_owner(&OwnerId::new("o").unwrap()), true));
    check(|| a_change_races(Truth::Barred, |model| model.gate.distrust_all(), true));
    check(|| a_change_races(Truth::Barred, |model| model.gate.distrust_owner(&OwnerId::new("o").unwrap()), false));
}

#[test]
fn nobody_is_accepted_after_the_desk_has_revoked() {
    check(|| a_change_races(Truth::Revoked, |model| model.gate.learn(model.store.record(Truth::Revoked)), false));
    check(|| a_change_races(Truth::Revoked, |model| model.gate.learn(model.store.record(Truth::Revoked)), true));
}

/// A change while two threads have copies of the entry, or are about to make them.
fn a_change_races_copies(truth: Truth, tell: fn(&Model)) {
    let model = Model::new();
    assert!(block_on(model.request()).is_ok());
    let told = Arc::new(AtomicBool::new(false));
    let admitting = (0..2).map(|_| {
        let told = Arc::clone(&told);
        model.thread(move |model| {
            for _ in 0..4 {
                let before = told.load(Ordering::SeqCst);
                let verdict = block_on(model.request());
                assert!(!before || verdict.is_err(), "accepted after it was told");
            }
        })
    });
    let admitting: Vec<_> = admitting.collect();
    let changing = model.thread({
        let told = Arc::clone(&told);
        move |model| {
            model.store.set(truth);
            tell(model);
            told.store(true, Ordering::SeqCst);
        }
    });
    join(admitting.into_iter().chain([changing]));
    assert!(block_on(model.request()).is_err());
}

#[test]
fn no_copy_outlives_an_invalidation() {
    // Long schedules: every fourth of the other models' number takes as long.
    let check = |model: fn()| check_times(2_500, model);
    check(|| a_change_races_copies(Truth::Barred, |model| model.gate.distrust(&model.id())));
    check(|| a_change_races_copies(Truth::Barred, |model| model.gate.distrust_all()));
    check(|| a_change_races_copies(Truth::Revoked, |model| model.gate.learn(model.store.record(Truth::Revoked))));
}

/// A replica that never hears of the change goes on bringing the old record, and somebody distrusts everything
/// meanwhile: what the desk has told is kept all the same.
fn a_lagging_replica_races(hot: bool) {
    let model = Model::new();
    if hot {
        assert!(block_on(model.request()).is_ok());
    }
    let told = Arc::new(AtomicBool::new(false));
    let learning = model.thread({
        let told = Arc::clone(&told);
        move |model| {
            model.gate.learn(model.store.record(Truth::Narrowed));
            told.store(true, Ordering::SeqCst);
        }
    });
    let watching = (0..2).map(|_| {
        let told = Arc::clone(&told);
        model.thread(move |model| {
            for _ in 0..2 {
                let before = told.load(Ordering::SeqCst);
                let token = block_on(model.request()).unwrap();
                assert!(!before || token.scope() == Scope::ReadOnly, "judged by an older revision");
            }
        })
    });
    let watching: Vec<_> = watching.collect();
    let distrusting = model.thread(|model| model.gate.distrust_all());
    join(watching.into_iter().chain([learning, distrusting]));
    assert_eq!(block_on(model.request()).unwrap().scope(), Scope::ReadOnly);
}

#[test]
fn a_newer_revision_is_never_lost_between_proof_and_fill() {
    check(|| a_lagging_replica_races(false));
    check(|| a_lagging_replica_races(true));
}

#[test]
fn callers_share_one_look_up_and_one_that_leaves_takes_nobody_with_it() {
    check(|| {
        let model = Model::new();
        let callers: Vec<_> = (0..3)
            .map(|_| {
                model.thread(|model| {
                    assert!(block_on(model.request()).is_ok());
                    assert!(model.store.in_flight.load(Ordering::SeqCst) <= 1, "two calls for one id");
                })
            })
            .collect();
        let leaving = {
            let model = model.clone();
            shuttle::future::spawn(async move { drop(model.request().await) })
        };
        thread::yield_now();
        leaving.abort();
        join(callers);
        // Whoever left may have been alone on a flight of its own, before the others came.
        assert!(model.store.calls.load(Ordering::SeqCst) <= 2);
        let calls = model.store.calls.load(Ordering::SeqCst);
        assert!(block_on(model.request()).is_ok());
        assert_eq!(model.store.calls.load(Ordering::SeqCst), calls, "it is remembered");
        // A shared flight is dropped by its last waiter.
        block_on(async { leaving.await.is_ok() });
        model.assert_nothing_left();
    });
}
