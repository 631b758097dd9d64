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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, Shared, WeakShared, select};

use super::budget::{Budget, Place};
use super::stats::{Counts, LookupStats, count};
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

pub(super) type LookupAnswer = Result<Landed, UnavailableCause>;

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
    counts: Arc<Counts>,
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
        LookupStats {
            in_flight: self.cold.entered.load(Ordering::Relaxed),
            refreshes_in_flight: self.refreshes.entered.load(Ordering::Relaxed),
            ..self.source.counts.read()
        }
    }

    /// A handle to the flight in this entry, if it is still under way and nothing was invalidated since it began.
    fn joinable(&self, entry: &Entry<'_, TokenId, Flight>) -> Option<Lookup> {
        let Entry::Occupied(entry) = entry else { return None };
        let flight = entry.get();
        // In this order: a handle that is not handed out would be dropped under the lock, and may be the last.
        if !self.source.cache.is_current(flight.mark) {
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
            tracing::error!(claimed_id = %id, cause = %Causes(error.error()), "{error}");
            error.cause()
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

#[cfg(test)]
mod tests;
