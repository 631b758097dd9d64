//! A store that misbehaves on request.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;

use super::{lock, panic_as_told};
use crate::clock::{Clock, Timestamp};
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{
    Change, Cursor, Durability, InsertError, MemoryStore, TokenFilter, TokenPage, TokenRegistry, TokenStore,
    UpdateError,
};
use crate::token::{LastUsed, Revision, TokenRecord};

/// A store whose [`find`](TokenStore::find) answers as told and is counted. Everything else goes to the store within.
///
/// What it is told holds for the look-ups that begin from then on; those under way go on as they began.
/// A clone is another handle to the same script, and to the same store as far as `S`'s clones are.
///
/// # Example
/// ```
/// use tower_token_auth::test_util::{ScriptedStore, mint};
/// use tower_token_auth::{Scope, TokenStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = ScriptedStore::default();
/// let token = mint(&store, "alice", Scope::ReadOnly).await?;
/// store.answer(None);
/// assert!(store.find(&token.id()).await?.is_none());
/// store.work();
/// assert!(store.find(&token.id()).await?.is_some());
/// assert_eq!(store.finds(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ScriptedStore<S = MemoryStore> {
    inner: S,
    script: Arc<Script>,
}

#[derive(Debug, Default)]
struct Script {
    state: Mutex<State>,
    in_flight: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    finds: usize,
    part: Part,
    /// Dropping these lets the held look-ups go on.
    holds: Vec<oneshot::Sender<()>>,
}

/// What a look-up does.
#[derive(Debug, Clone, Default)]
enum Part {
    #[default]
    Work,
    Fail,
    Hang,
    Panic,
    Answer(Box<Option<TokenRecord>>),
    Delay(Duration, Arc<dyn Clock>),
    Hold(Shared<oneshot::Receiver<()>>),
}

impl<S> ScriptedStore<S> {
    /// A store that does as `inner` does until it is told otherwise.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// The store within, whose look-ups are neither scripted nor counted.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// How many look-ups were begun.
    #[must_use]
    pub fn finds(&self) -> usize {
        lock(&self.script.state).finds
    }

    /// How many look-ups are under way: begun, and neither answered nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.script.in_flight.load(Ordering::SeqCst)
    }

    /// Look-ups are answered by the store within, at once.
    pub fn work(&self) {
        self.play(Part::Work);
    }

    /// Look-ups are answered with a [`StoreError`].
    pub fn fail(&self) {
        self.play(Part::Fail);
    }

    /// Look-ups are never answered. They can be dropped.
    pub fn hang(&self) {
        self.play(Part::Hang);
    }

    /// Look-ups panic when they are polled.
    pub fn panic(&self) {
        self.play(Part::Panic);
    }

    /// Look-ups are answered with `record`, whichever id they ask for.
    pub fn answer(&self, record: Option<TokenRecord>) {
        self.play(Part::Answer(Box::new(record)));
    }

    /// Look-ups read the store within at once, and their answer arrives `delay` after they began, by `clock`.
    pub fn delay(&self, delay: Duration, clock: impl Clock) {
        self.play(Part::Delay(delay, Arc::new(clock)));
    }

    /// Look-ups read the store within at once, and their answer waits for [`release`](Self::release): by then it may be
    /// out of date, as an answer on a slow network is.
    pub fn hold(&self) {
        let (release, released) = oneshot::channel();
        let mut state = lock(&self.script.state);
        state.holds.push(release);
        state.part = Part::Hold(released.shared());
    }

    /// All look-ups that [`hold`](Self::hold) keeps waiting go on, and new ones [`work`](Self::work).
    pub fn release(&self) {
        self.work();
        let holds = std::mem::take(&mut lock(&self.script.state).holds);
        // Out of the lock: this wakes those who wait.
        drop(holds);
    }

    fn play(&self, part: Part) {
        lock(&self.script.state).part = part;
    }
}

impl Default for ScriptedStore {
    /// Over an empty [`MemoryStore`].
    fn default() -> Self {
        Self::new(MemoryStore::new())
    }
}

/// One look-up under way.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    fn begin(&self) -> (Part, InFlight<'_>) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let mut state = lock(&self.state);
        state.finds += 1;
        (state.part.clone(), InFlight(&self.in_flight))
    }
}

impl<S: TokenStore> TokenStore for ScriptedStore<S> {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let (part, _in_flight) = self.script.begin();
        match part {
            Part::Work => self.inner.find(id).await,
            Part::Fail => Err(StoreError::new("the store was told to fail")),
            Part::Hang => pending().await,
            Part::Panic => panic_as_told("store"),
            Part::Answer(record) => Ok(*record),
            Part::Delay(delay, clock) => {
                let timer = clock.sleep(delay);
                let answer = self.inner.find(id).await;
                timer.await;
                answer
            }
            Part::Hold(released) => {
                let answer = self.inner.find(id).await;
                // Released is the sender's drop, so what arrives is always `Canceled`.
                let _ = released.await;
                answer
            }
        }
    }
}

impl<S: TokenRegistry> TokenRegistry for ScriptedStore<S> {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        self.inner.insert(record).await
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        self.inner.update(id, expected, change).await
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        self.inner.list(filter, cursor).await
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        self.inner.touch(uses).await
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.inner.bar_owner(owner).await
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.inner.lift_owner(owner).await
    }

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        self.inner.prune(time).await
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;
    use crate::scope::Scope;
    use crate::test_util::{ManualClock, draft, mint};

    async fn store_of_one() -> (ScriptedStore, TokenId) {
        let store = ScriptedStore::default();
        let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
        (store, token.id())
    }

    #[tokio::test]
    async fn look_ups_play_their_part() {
        let (store, id) = store_of_one().await;
        assert_eq!(store.find(&id).await.unwrap().unwrap().id(), id);
        store.fail();
        assert!(store.find(&id).await.is_err());
        store.panic();
        assert!(AssertUnwindSafe(store.find(&id)).catch_unwind().await.is_err());
        let (_, other) = draft("bob", Scope::ReadWrite).unwrap();
        store.answer(Some(other.clone()));
        assert_eq!(store.find(&id).await.unwrap(), Some(other));
        store.work();
        assert_eq!(store.find(&id).await.unwrap().unwrap().id(), id);
        assert_eq!((store.finds(), store.in_flight()), (5, 0));
    }

    #[tokio::test]
    async fn a_hanging_look_up_can_be_dropped() {
        let (store, id) = store_of_one().await;
        store.hang();
        let mut find = Box::pin(store.find(&id));
        assert!((&mut find).now_or_never().is_none());
        assert_eq!(store.in_flight(), 1);
        drop(find);
        assert_eq!((store.finds(), store.in_flight()), (1, 0));
    }

    #[tokio::test]
    async fn a_delayed_answer_arrives_on_time() {
        let ((store, id), clock) = (store_of_one().await, ManualClock::default());
        store.delay(Duration::from_secs(2), clock.clone());
        let mut find = Box::pin(store.find(&id));
        assert!((&mut find).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert!((&mut find).now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert!(find.now_or_never().unwrap().unwrap().is_some());
    }

    #[tokio::test]
    async fn released_look_ups_bring_what_they_read() {
        let (store, id) = store_of_one().await;
        store.hold();
        let (mut first, mut second) = (Box::pin(store.find(&id)), Box::pin(store.find(&id)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        store.bar_owner(&OwnerId::new("alice").unwrap()).await.unwrap();
        store.release();
        assert!(!first.await.unwrap().unwrap().owner_barred());
        assert!(!second.await.unwrap().unwrap().owner_barred());
        assert!(store.find(&id).await.unwrap().unwrap().owner_barred());
    }
}
