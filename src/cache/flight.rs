//! Look-ups in flight: one store call per id, however many wait for it.
//!
//! A flight is a future that its waiters share and drive. Whoever started it may go at any time; it ends when it has
//! landed, or when the last waiter is gone.
//!
//! # What it guarantees
//! * One store call per id at a time, and none while the cache has an answer: a flight writes the cache *before* it
//!   leaves the map, and a new one looks into the cache *after* it found none in the map.
//! * A flight that began before an invalidation is joined by nobody after it.
//! * Flights are bounded. Those of proved tokens have a budget of their own: unknown ids cannot starve them.
//! * A store that fails, hangs or panics is an error for its waiters, remembered by nobody.
//!
//! Lock order: a shard of the flights, then the cache's locks. The last handle to a flight must never be dropped
//! under the shard's lock: that ends the flight, which takes the same lock.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_lock::Semaphore;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared, WeakShared, select};

use super::{Cache, Found, FreshUntil, Mark, Recalled};
use crate::clock::{Clock, Moment};
use crate::config::LookupLimits;
use crate::decision::UnavailableCause;
use crate::id::TokenId;
use crate::store::ErasedStore;
use crate::sync::{DashMap, Entry};
use crate::text::Causes;
use crate::token::TokenRecord;

/// What the store knows of an id, and where the generations stood before it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    pub(crate) found: Option<Found>,
    pub(crate) mark: Mark,
    /// Whoever has not looked at it by then asks again.
    pub(crate) until: FreshUntil,
}

type LookupAnswer = Result<Landed, UnavailableCause>;

/// A seat on a flight.
pub(crate) type Lookup = Shared<BoxFuture<'static, LookupAnswer>>;

/// Where an answer comes from.
pub(crate) enum Boarded {
    /// The cache has one, after all. Never [`Recalled::Nothing`].
    Recalled(Recalled),
    Flight(Lookup),
}

/// What a gate has asked of its store, since it was built, and asks now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LookupStats {
    /// Store calls.
    pub calls: u64,
    /// Store calls that failed, hung, panicked, or brought a record for another token.
    pub failed: u64,
    /// Requests that waited for a look-up that was under way already.
    pub joined: u64,
    /// Look-ups that were refused, or given up while they waited for their turn: a bound was reached.
    pub refused: u64,
    /// Look-ups of tokens in use ahead of their TTL, by [`background`](crate::TokenAuthLayer::background).
    pub ahead: u64,
    /// Look-ups of tokens that are not proved, running or waiting now.
    pub in_flight: usize,
    /// Look-ups of proved tokens, running or waiting now.
    pub refreshes_in_flight: usize,
}

pub(crate) struct Lookups {
    source: Source,
    flights: Arc<Flights>,
    tickets: AtomicU64,
    cold: Arc<Budget>,
    refreshes: Arc<Budget>,
}

/// What every flight needs.
#[derive(Clone)]
struct Source {
    store: Arc<dyn ErasedStore>,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    joined: AtomicU64,
    refused: AtomicU64,
    ahead: AtomicU64,
}

impl Counts {
    fn answered(&self, answer: &LookupAnswer) {
        match answer {
            Ok(_) => {}
            Err(UnavailableCause::LookupsBusy) => count(&self.refused),
            Err(_) => count(&self.failed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

type Flights = DashMap<TokenId, Flight>;

struct Flight {
    /// Weak, so that a flight nobody waits for ends. `None` would be one that had landed before it left.
    lookup: Option<WeakShared<BoxFuture<'static, LookupAnswer>>>,
    mark: Mark,
    /// Tells this flight from one that it replaced.
    ticket: u64,
}

impl Lookups {
    pub(crate) fn new(
        store: Arc<dyn ErasedStore>,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
        limits: &LookupLimits,
    ) -> Self {
        Self {
            source: Source { store, cache, clock, timeout: limits.timeout, counts: Arc::default() },
            flights: Arc::default(),
            tickets: AtomicU64::new(0),
            cold: Budget::new(limits.in_flight, limits.waiting),
            refreshes: Budget::new(limits.refreshes, limits.waiting),
        }
    }

    /// Joins the flight of this id, or starts one. Asks nothing of the store yet.
    pub(crate) fn board(&self, id: &TokenId, now: Moment) -> Result<Boarded, UnavailableCause> {
        let entry = self.flights.entry(*id);
        if let Some(lookup) = self.joinable(&entry) {
            count(&self.source.counts.joined);
            return Ok(Boarded::Flight(lookup));
        }
        // A flight may have landed since the caller looked; from here on none can, the shard is locked.
        match self.source.cache.recall(id, now) {
            Recalled::Nothing => {}
            recalled => return Ok(Boarded::Recalled(recalled)),
        }
        let place = self.budget(id).enter().ok_or_else(|| {
            count(&self.source.counts.refused);
            UnavailableCause::LookupsBusy
        })?;
        let (flight, lookup) = self.depart(*id, place);
        drop(entry.insert(flight));
        Ok(Boarded::Flight(lookup))
    }

    /// Asks the store again for a token that is still believed; `None` where the budget is used up.
    pub(crate) fn refresh(&self, id: &TokenId) -> Option<Lookup> {
        let entry = self.flights.entry(*id);
        if let Some(lookup) = self.joinable(&entry) {
            return Some(lookup);
        }
        let place = self.refreshes.enter()?;
        let (flight, lookup) = self.depart(*id, place);
        drop(entry.insert(flight));
        count(&self.source.counts.ahead);
        Some(lookup)
    }

    pub(crate) fn stats(&self) -> LookupStats {
        let counts = &self.source.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LookupStats {
            calls: read(&counts.calls),
            failed: read(&counts.failed),
            joined: read(&counts.joined),
            refused: read(&counts.refused),
            ahead: read(&counts.ahead),
            in_flight: self.cold.entered.load(Ordering::Relaxed),
            refreshes_in_flight: self.refreshes.entered.load(Ordering::Relaxed),
        }
    }

    /// A handle to the flight in this entry, if it is still under way and nothing was invalidated since it began.
    fn joinable(&self, entry: &Entry<'_, TokenId, Flight>) -> Option<Lookup> {
        let Entry::Occupied(entry) = entry else { return None };
        let flight = entry.get();
        // In this order: a handle that is not handed out would be dropped under the lock, and may be the last.
        if !self.source.cache.is_current(entry.key(), flight.mark) {
            return None;
        }
        flight.lookup.as_ref()?.upgrade()
    }

    fn budget(&self, id: &TokenId) -> &Arc<Budget> {
        if self.source.cache.is_proved(id) { &self.refreshes } else { &self.cold }
    }

    fn depart(&self, id: TokenId, place: Place) -> (Flight, Lookup) {
        let (mark, ticket) = (self.source.cache.mark(&id), self.tickets.fetch_add(1, Ordering::Relaxed));
        let trip = Trip {
            source: self.source.clone(),
            id,
            mark,
            place,
            landing: Landing { flights: Arc::clone(&self.flights), id, ticket },
        };
        // A panic that got out of the shared future would be a panic in all who share it.
        let guarded = AssertUnwindSafe(trip.fly()).catch_unwind();
        let counts = Arc::clone(&self.source.counts);
        let landed = guarded.map(move |answer| {
            let answer = answer.unwrap_or_else(|_| Err(panicked(&id)));
            counts.answered(&answer);
            answer
        });
        let lookup = landed.boxed().shared();
        (Flight { lookup: lookup.downgrade(), mark, ticket }, lookup)
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("flights", &self.flights.len()).finish_non_exhaustive()
    }
}

fn panicked(id: &TokenId) -> UnavailableCause {
    tracing::error!(claimed_id = %id, "the token store panicked");
    UnavailableCause::StorePanicked
}

/// One flight, from the queue to the cache.
struct Trip {
    source: Source,
    id: TokenId,
    mark: Mark,
    place: Place,
    landing: Landing,
}

impl Trip {
    async fn fly(self) -> LookupAnswer {
        let Self { source, id, mark, place, landing } = self;
        // One timer for the wait and the call.
        let mut timer = source.clock.sleep(source.timeout);
        let slot = match select(pin!(place.slot()), &mut timer).await {
            Either::Left((slot, _)) => slot,
            Either::Right(_) => return Err(UnavailableCause::LookupsBusy),
        };
        let answer = match select(pin!(source.ask(&id, mark)), timer).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(UnavailableCause::StoreTimedOut),
        };
        drop((slot, landing));
        answer
    }
}

impl Source {
    async fn ask(&self, id: &TokenId, mark: Mark) -> LookupAnswer {
        // What is found is as old as the question.
        let started = Moment::now(&*self.clock);
        count(&self.counts.calls);
        let record = Arc::clone(&self.store).find(*id).await.map_err(|error| {
            tracing::error!(claimed_id = %id, cause = %Causes(&error), "the token store failed");
            UnavailableCause::StoreFailed
        })?;
        check_id(id, record.as_ref())?;
        let until = self.cache.answers_until(started, self.timeout);
        Ok(Landed { found: self.cache.fill(id, record, started, mark), mark, until })
    }
}

fn check_id(asked: &TokenId, record: Option<&TokenRecord>) -> Result<(), UnavailableCause> {
    match record.map(TokenRecord::id) {
        Some(id) if id != *asked => {
            tracing::error!(claimed_id = %asked, record_id = %id, "the token store answered with another token");
            Err(UnavailableCause::RecordUnusable)
        }
        _ => Ok(()),
    }
}

/// Takes a flight from the map, however it ends.
struct Landing {
    flights: Arc<Flights>,
    id: TokenId,
    ticket: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.remove_if(&self.id, |_, flight| flight.ticket == self.ticket);
    }
}

/// How many flights there may be: so many that ask the store, and so many that wait to.
struct Budget {
    slots: Semaphore,
    entered: AtomicUsize,
    places: usize,
}

impl Budget {
    fn new(slots: usize, waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Semaphore::new(slots),
            entered: AtomicUsize::new(0),
            places: slots.saturating_add(waiting),
        })
    }

    fn enter(self: &Arc<Self>) -> Option<Place> {
        let more = |entered: usize| entered.checked_add(1).filter(|entered| *entered <= self.places);
        self.entered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// A place in a budget, given back when dropped.
struct Place(Arc<Budget>);

impl Place {
    fn slot(&self) -> async_lock::futures::Acquire<'_> {
        self.0.slots.acquire()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.entered.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
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
        assert!(!cache.is_current(&bench.id, old.await.unwrap().unwrap().mark));
        assert!(cache.is_current(&bench.id, new.await.unwrap().unwrap().mark));
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
}
