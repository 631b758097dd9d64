//! Look-ups in flight, against a store that waits to be let.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::clock::{SystemClock, Timestamp};
use crate::config::CacheConfig;
use crate::decision::{GateId, StoreError};
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::store::TokenStore;

type Script = fn(&TokenId) -> Result<Option<TokenRecord>, StoreError>;

/// Counts its calls, and answers none before it is opened.
struct Scripted {
    calls: AtomicUsize,
    door: tokio::sync::Semaphore,
    script: Script,
}

impl Scripted {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl TokenStore for Scripted {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _closed = self.door.acquire().await;
        (self.script)(id)
    }
}

fn record(id: &TokenId) -> TokenRecord {
    let secret = SecretHash::parse("$sha256$v=1$AAAA").unwrap();
    let (owner, label) = (OwnerId::new("o").unwrap(), Label::new("l").unwrap());
    TokenRecord::new(*id, owner, label, Scope::ReadOnly, secret, Timestamp::from_unix_seconds(1))
}

fn known(id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
    Ok(Some(record(id)))
}

struct Bench {
    store: Arc<Scripted>,
    lookups: Arc<Lookups>,
    id: TokenId,
}

fn bench(script: Script, limits: LookupLimits) -> Bench {
    let store = Arc::new(Scripted { calls: AtomicUsize::new(0), door: tokio::sync::Semaphore::new(0), script });
    let cache = Arc::new(Cache::new(GateId::NONE, CacheConfig::default()).unwrap());
    let lookups = Lookups::new(Arc::clone(&store) as _, cache, Arc::new(SystemClock::new()), &limits);
    Bench { store, lookups: Arc::new(lookups), id: TokenId::generate().unwrap() }
}

impl Bench {
    fn board(&self, id: &TokenId) -> Result<Boarded, UnavailableCause> {
        self.lookups.board(id, Moment::now(&*self.lookups.source.clock))
    }

    #[track_caller]
    fn flight(&self) -> Lookup {
        match self.board(&self.id) {
            Ok(Boarded::Flight(lookup)) => lookup,
            Ok(Boarded::Recalled(recalled)) => panic!("recalled {recalled:?}"),
            Err(cause) => panic!("{cause}"),
        }
    }

    /// A flight under way in a task of its own, which has reached the store.
    async fn flying(&self) -> tokio::task::JoinHandle<LookupAnswer> {
        let (flight, before) = (tokio::spawn(self.flight()), self.store.calls());
        while self.store.calls() == before {
            tokio::task::yield_now().await;
        }
        flight
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert!(self.lookups.flights.is_empty());
        for budget in [&self.lookups.cold, &self.lookups.refreshes] {
            assert_eq!(budget.entered.load(Ordering::SeqCst), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_cost_one_store_call() {
    let bench = Arc::new(bench(known, LookupLimits::default()));
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                match bench.board(&bench.id).unwrap() {
                    Boarded::Flight(lookup) => lookup.await.unwrap().found.is_some(),
                    Boarded::Recalled(recalled) => matches!(recalled, Recalled::Found(_)),
                }
            })
        })
        .collect();
    bench.store.door.close();
    for caller in callers {
        assert!(caller.await.unwrap());
    }
    assert_eq!(bench.store.calls(), 1);
    bench.assert_nothing_left();
}

#[tokio::test]
async fn whoever_started_a_flight_may_leave_it() {
    let bench = bench(known, LookupLimits::default());
    let leader = bench.flying().await;
    let other = bench.flight();
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    bench.store.door.close();
    assert!(other.await.unwrap().found.is_some());
    assert_eq!(bench.store.calls(), 1);
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_flight_that_all_have_left_is_over() {
    let bench = bench(known, LookupLimits::default());
    let leader = bench.flying().await;
    leader.abort();
    assert!(leader.await.is_err());
    bench.assert_nothing_left();
    drop(bench.flight());
    bench.assert_nothing_left();
}

#[tokio::test]
async fn failures_reach_every_waiter_and_are_not_remembered() {
    let other: Script = |_| Ok(Some(record(&TokenId::generate().unwrap())));
    let panics: Script = |_| std::panic::panic_any("on purpose");
    let scripts: [(Script, UnavailableCause); 3] = [
        (|_| Err(StoreError::new("down")), UnavailableCause::StoreFailed),
        (panics, UnavailableCause::StorePanicked),
        (other, UnavailableCause::RecordUnusable),
    ];
    for (script, cause) in scripts {
        let bench = bench(script, LookupLimits::default());
        bench.store.door.close();
        let (one, two) = (bench.flight(), bench.flight());
        assert_eq!(one.await.unwrap_err(), cause);
        assert_eq!(two.await.unwrap_err(), cause);
        bench.assert_nothing_left();
        assert_eq!(bench.flight().await.unwrap_err(), cause);
        assert_eq!(bench.store.calls(), 2, "asked again");
    }
}

#[tokio::test]
async fn a_flight_that_began_before_an_invalidation_is_not_joined() {
    let bench = bench(known, LookupLimits::default());
    let old = bench.flying().await;
    bench.lookups.source.cache.distrust(&bench.id);
    let new = bench.flying().await;
    assert_eq!(bench.store.calls(), 2);
    bench.store.door.close();
    let cache = &bench.lookups.source.cache;
    assert!(!cache.is_current(old.await.unwrap().unwrap().mark));
    assert!(cache.is_current(new.await.unwrap().unwrap().mark));
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_full_budget_refuses_at_once_and_frees_itself() {
    let bench = bench(known, LookupLimits::default().in_flight(1).waiting(0));
    let flying = bench.flying().await;
    let other = TokenId::generate().unwrap();
    assert_eq!(bench.board(&other).err(), Some(UnavailableCause::LookupsBusy));
    bench.store.door.close();
    flying.await.unwrap().unwrap();
    assert!(bench.board(&other).is_ok());
}

#[tokio::test]
async fn a_store_that_hangs_and_a_queue_that_stands_are_told_apart() {
    let bench = bench(known, LookupLimits::default().in_flight(1).timeout(Duration::from_millis(20)));
    let flying = bench.flight();
    let Ok(Boarded::Flight(queued)) = bench.board(&TokenId::generate().unwrap()) else { panic!("refused") };
    // Only the second is polled, and its slot is taken.
    let slot = bench.lookups.cold.slots.try_acquire();
    assert_eq!(queued.await.unwrap_err(), UnavailableCause::LookupsBusy);
    drop(slot);
    assert_eq!(flying.await.unwrap_err(), UnavailableCause::StoreTimedOut);
    bench.assert_nothing_left();
}
