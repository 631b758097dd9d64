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

use std::error::Error as StdError;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_lock::Semaphore;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared, WeakShared, select};

use super::{Cache, Found, Mark, Recalled};
use crate::clock::{Clock, Moment};
use crate::config::LookupLimits;
use crate::decision::UnavailableCause;
use crate::id::TokenId;
use crate::store::ErasedStore;
use crate::token::TokenRecord;

/// What the store knows of an id, and where the generations stood before it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    pub(crate) found: Option<Found>,
    pub(crate) mark: Mark,
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
            source: Source { store, cache, clock, timeout: limits.timeout },
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
            return Ok(Boarded::Flight(lookup));
        }
        // A flight may have landed since the caller looked; from here on none can, the shard is locked.
        match self.source.cache.recall(id, now) {
            Recalled::Nothing => {}
            recalled => return Ok(Boarded::Recalled(recalled)),
        }
        let place = self.budget(id).enter().ok_or(UnavailableCause::LookupsBusy)?;
        let (flight, lookup) = self.depart(*id, place);
        drop(entry.insert(flight));
        Ok(Boarded::Flight(lookup))
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
        let lookup = guarded.map(move |answer| answer.unwrap_or_else(|_| Err(panicked(&id)))).boxed().shared();
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
        let record = Arc::clone(&self.store).find(*id).await.map_err(|error| {
            tracing::error!(claimed_id = %id, cause = %Causes(&error), "the token store failed");
            UnavailableCause::StoreFailed
        })?;
        check_id(id, record.as_ref())?;
        Ok(Landed { found: self.cache.fill(id, record, started, mark), mark })
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

/// What caused an error, outermost first, in one line.
struct Causes<'a>(&'a dyn StdError);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, "{error}")?;
            cause = error.source();
            f.write_str(if cause.is_some() { ": " } else { "" })?;
        }
        Ok(())
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
