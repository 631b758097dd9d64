//! What a gate writes to its store, beside the requests: last uses, and what a use has shown of a secret.
//!
//! Only the background and a shutdown write, and only where there is a registry to write to.
//!
//! # When things fail
//! No request is told, delayed or refused. Last uses wait for the next flush, in bounded memory; a re-hash is given up
//! until the secret is proved anew.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_lock::Semaphore;
use futures_util::FutureExt;
use futures_util::future::{Either, pending, select};

use super::Authenticator;
use super::attendance::Attendance;
use super::chores::{Chore, Done};
use super::renewals::Renewals;
use super::stats::UpkeepStats;
use super::uses::{Tally, Uses};
use crate::access::Access;
use crate::cache::Claim;
use crate::clock::{Clock, Timestamp};
use crate::decision::{AuthenticatedToken, StoreError};
use crate::id::TokenId;
use crate::store::{Change, ErasedRegistry, UpdateError};
use crate::text::Causes;
use crate::token::{LastUsed, TokenRecord};
use crate::verify::OnOutdated;

/// How many chores may wait. Some hold a secret, so few do.
const CHORES: usize = 64;

pub(crate) type Registry = Arc<dyn ErasedRegistry>;

pub(super) struct Upkeep {
    registry: OnceLock<Registry>,
    attendance: Arc<Attendance>,
    clock: Arc<dyn Clock>,
    /// How long the registry may take.
    timeout: Duration,
    every: Duration,
    uses: Uses,
    /// One flush at a time: the next finds what the one before has put back.
    turn: Semaphore,
    sender: Sender<Chore>,
    chores: Receiver<Chore>,
    renewals: Renewals,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    flushes_failed: AtomicU64,
    rehashed: AtomicU64,
    not_rehashed: AtomicU64,
    successors: AtomicU64,
}

/// How an [`Upkeep`] is done.
pub(super) struct Terms {
    pub(super) registry: Option<Registry>,
    pub(super) timeout: Duration,
    /// How often last uses are written; zero for never, and then none is noted.
    pub(super) every: Duration,
    /// Of how many tokens the last use is kept, and that they were hashed anew.
    pub(super) capacity: usize,
}

impl Authenticator {
    /// Where last uses and re-hashes are written. The first that is told of is kept.
    pub(crate) fn upkeep(&self, registry: Registry) {
        let _: Result<(), Registry> = self.0.upkeep.registry.set(registry);
    }

    /// Notes that a token was admitted, where a note is due; only then it has to be told from where it was used.
    #[inline(always)]
    pub(crate) fn note_use(
        &self,
        token: &AuthenticatedToken,
        access: Access,
        describe: impl FnOnce(LastUsed) -> LastUsed,
    ) {
        self.0.upkeep.note(token, access, describe);
    }
}

impl Upkeep {
    pub(super) fn new(terms: Terms, clock: Arc<dyn Clock>, attendance: Arc<Attendance>) -> Self {
        let (sender, chores) = async_channel::bounded(CHORES);
        Self {
            registry: terms.registry.map(OnceLock::from).unwrap_or_default(),
            attendance,
            clock,
            timeout: terms.timeout,
            every: terms.every,
            uses: Uses::new(terms.capacity),
            turn: Semaphore::new(1),
            sender,
            chores,
            renewals: Renewals::new(terms.capacity),
            counts: Counts::default(),
        }
    }

    #[inline(always)]
    fn note(&self, token: &AuthenticatedToken, access: Access, describe: impl FnOnce(LastUsed) -> LastUsed) {
        if self.registry.get().is_none() || self.every.is_zero() {
            return;
        }
        let now = self.clock.wall();
        if token.is_due_for_note(now, access) {
            self.note_at(now, token, access, describe);
        }
    }

    #[inline(never)]
    fn note_at(
        &self,
        now: Timestamp,
        token: &AuthenticatedToken,
        access: Access,
        describe: impl FnOnce(LastUsed) -> LastUsed,
    ) {
        let written = (access == Access::Write).then_some(now);
        let waited = self.uses.note(token.id(), describe(LastUsed::new(now)).with_last_write(written));
        if waited >= self.every {
            self.attendance.miss();
        }
    }

    /// Gives the background something to do, where it runs and has a place to write to.
    pub(super) fn give(&self, chore: Chore) {
        if self.registry.get().is_some() && self.attendance.is_running() {
            self.queue(chore);
        }
    }

    fn queue(&self, chore: Chore) {
        // A full queue is no reason to wait, and the secret is not to wait elsewhere.
        if let Err(refused) = self.sender.try_send(chore) {
            self.tell(refused.into_inner().rehashes(), None);
        }
        // The last background may have ended since it was asked for.
        self.forget_the_unattended();
    }

    /// Gives up what waits, where nobody comes for it. Whoever queues a chore looks afterwards whether a background runs,
    /// and one that ends has left before it looks for chores: one of them sees the other.
    fn forget_the_unattended(&self) {
        while !self.attendance.is_running() {
            let Ok(chore) = self.chores.try_recv() else { return };
            self.tell(chore.rehashes(), None);
        }
    }

    /// Where a verifier leaves what is to be hashed anew.
    pub(super) fn rehashing(self: &Arc<Self>) -> OnOutdated {
        let upkeep = Arc::clone(self);
        Arc::new(move |claim, hash| {
            if !upkeep.renewals.knows(claim) {
                upkeep.give(Chore::rehash(claim, hash, upkeep.clock.monotonic()));
            }
        })
    }

    /// A secret was hashed anew, and is not to be again.
    pub(super) fn note_renewed(&self, claim: &Claim) {
        self.renewals.note(claim);
    }

    /// The next chore that is not given up.
    pub(super) async fn next(&self) -> Option<Chore> {
        loop {
            let chore = self.chores.recv().await.ok()?;
            if !chore.is_overdue(self.clock.monotonic()) {
                return Some(chore);
            }
            self.tell(chore.rehashes(), None);
        }
    }

    /// Counts what became of a chore.
    pub(super) fn tell(&self, rehashes: bool, done: Option<Done>) {
        let up = |counter: &AtomicU64, by: bool| counter.fetch_add(u64::from(by), Ordering::Relaxed);
        up(&self.counts.rehashed, rehashes && done.is_some());
        up(&self.counts.not_rehashed, rehashes && done.is_none());
        up(&self.counts.successors, done.is_some_and(|done| done.succeeded));
    }

    /// Writes last uses from time to time, for ever.
    pub(super) async fn flush_regularly(&self) {
        if self.every.is_zero() {
            return pending().await;
        }
        loop {
            self.clock.sleep(self.every).await;
            self.flush().await;
        }
    }

    /// Writes all last uses in one batch; `false` where they wait again.
    ///
    /// Dropped, it puts back what it has taken.
    pub(super) async fn flush(&self) -> bool {
        let Some(registry) = self.registry.get() else { return true };
        let _turn = self.turn.acquire().await;
        let batch = self.uses.take();
        if batch.rows().is_empty() {
            return true;
        }
        let touched = self.bounded("touch", async { registry.touch(batch.rows()).await }).await;
        match touched {
            Some(()) => batch.arrive(),
            None => drop(self.counts.flushes_failed.fetch_add(1, Ordering::Relaxed)),
        }
        touched.is_some()
    }

    pub(super) async fn find(&self, id: &TokenId) -> Option<TokenRecord> {
        let registry = self.registry.get()?;
        self.bounded("find", async { registry.find(id).await }).await?
    }

    /// Changes a record if it is still the same; that it is not is nobody's failure.
    pub(super) async fn update(&self, record: &TokenRecord, change: Change) -> Option<TokenRecord> {
        let registry = self.registry.get()?;
        let update = async {
            match registry.update(&record.id(), record.revision(), change).await {
                Ok(changed) => Ok(Some(changed)),
                Err(UpdateError::Store(error)) => Err(error),
                Err(UpdateError::Missing | UpdateError::Conflict | UpdateError::Rejected(_)) => Ok(None),
            }
        };
        self.bounded("update", update).await?
    }

    /// Asks the registry, and waits no longer than for a look-up. Its panic is an error like others.
    async fn bounded<T>(&self, call: &'static str, answer: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        let guarded = pin!(AssertUnwindSafe(answer).catch_unwind());
        match select(guarded, self.clock.sleep(self.timeout)).await {
            Either::Left((Ok(Ok(answer)), _)) => return Some(answer),
            Either::Left((Ok(Err(error)), _)) => {
                tracing::error!(call, cause = %Causes(&error), "the token registry failed");
            }
            Either::Left((Err(_), _)) => tracing::error!(call, "the token registry panicked"),
            Either::Right(_) => tracing::error!(call, "the token registry did not answer in time"),
        }
        None
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Of how many tokens the last use is not written.
    pub(super) fn waiting(&self) -> usize {
        self.uses.waiting()
    }

    pub(super) fn stats(&self) -> UpkeepStats {
        let Tally { noted, flushed, dropped } = self.uses.tally();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UpkeepStats {
            noted,
            flushed,
            dropped,
            waiting: self.uses.waiting(),
            flushes_failed: read(&self.counts.flushes_failed),
            rehashed: read(&self.counts.rehashed),
            not_rehashed: read(&self.counts.not_rehashed),
            successors: read(&self.counts.successors),
        }
    }
}

/// A background at work, until it is dropped.
pub(super) struct Attending(Arc<Upkeep>);

impl Attending {
    pub(super) fn new(upkeep: &Arc<Upkeep>) -> Self {
        upkeep.attendance.enter();
        Self(Arc::clone(upkeep))
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.0.attendance.leave();
        self.0.forget_the_unattended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::secret::SecretHash;
    use crate::store::MemoryStore;

    #[test]
    fn what_waits_when_the_last_background_ends_waits_no_more() {
        let terms = Terms {
            registry: Some(Arc::new(MemoryStore::new())),
            timeout: Duration::MAX,
            every: Duration::MAX,
            capacity: 1,
        };
        let upkeep = Arc::new(Upkeep::new(terms, Arc::new(SystemClock::new()), Arc::default()));
        let chore = || Chore::succeed(TokenId::generate().unwrap(), SecretHash::parse("$a$b").unwrap());
        let give = || {
            upkeep.give(chore());
            upkeep.chores.len()
        };
        assert_eq!(give(), 0, "nobody is there");
        let (one, two) = (Attending::new(&upkeep), Attending::new(&upkeep));
        assert_eq!(give(), 1);
        drop(one);
        assert_eq!(give(), 2);
        drop(two);
        assert_eq!(upkeep.chores.len(), 0);
        upkeep.queue(chore());
        assert_eq!(upkeep.chores.len(), 0, "who asked before it ended, and came after");
    }
}
