//! How long a desk waits for what it asks: nobody holds an act up for ever.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};

use super::policy::IssuePolicy;
use super::provider::ErasedPolicy;
use crate::clock::{Clock, Timestamp};
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{Change, Cursor, Durability, ErasedRegistry, InsertError, TokenFilter, TokenPage, UpdateError};
use crate::token::{LastUsed, Revision, TokenRecord};

/// People wait at a desk, and a browser gives up after a minute.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Pruning goes over everything there is.
const PRUNING: Duration = Duration::from_secs(600);

/// What a desk asks, given up where it does not answer in time.
pub(super) struct Bounded<T: ?Sized> {
    asked: Arc<T>,
    clock: Arc<dyn Clock>,
}

impl<T: ?Sized + Send + Sync> Bounded<T> {
    pub(super) fn new(asked: Arc<T>, clock: &Arc<dyn Clock>) -> Self {
        Self { asked, clock: Arc::clone(clock) }
    }

    fn within<'a, A: 'a, E>(
        &'a self,
        bound: Duration,
        answer: impl Future<Output = Result<A, E>> + Send + 'a,
    ) -> BoxFuture<'a, Result<A, E>>
    where
        E: From<StoreError> + 'a,
    {
        Box::pin(async move { within(&*self.clock, bound, answer).await.unwrap_or_else(|late| Err(late.into())) })
    }
}

/// What `answer` comes to, unless it takes longer than `bound`: then it is dropped.
pub(super) async fn within<A>(
    clock: &dyn Clock,
    bound: Duration,
    answer: impl Future<Output = A>,
) -> Result<A, StoreError> {
    match select(pin!(answer), clock.sleep(bound)).await {
        Either::Left((answer, _)) => Ok(answer),
        Either::Right(_) => Err(StoreError::late(bound)),
    }
}

impl ErasedRegistry for Bounded<dyn ErasedRegistry> {
    fn find<'a>(&'a self, id: &'a TokenId) -> BoxFuture<'a, Result<Option<TokenRecord>, StoreError>> {
        self.within(PATIENCE, self.asked.find(id))
    }

    fn insert(&self, record: TokenRecord) -> BoxFuture<'_, Result<(), InsertError>> {
        self.within(PATIENCE, self.asked.insert(record))
    }

    fn update<'a>(
        &'a self,
        id: &'a TokenId,
        expected: Revision,
        change: Change,
    ) -> BoxFuture<'a, Result<TokenRecord, UpdateError>> {
        self.within(PATIENCE, self.asked.update(id, expected, change))
    }

    fn list<'a>(
        &'a self,
        filter: &'a TokenFilter,
        cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<TokenPage, StoreError>> {
        self.within(PATIENCE, self.asked.list(filter, cursor))
    }

    fn touch<'a>(&'a self, uses: &'a [(TokenId, LastUsed)]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.within(PATIENCE, self.asked.touch(uses))
    }

    fn bar_owner<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<(), StoreError>> {
        self.within(PATIENCE, self.asked.bar_owner(owner))
    }

    fn lift_owner<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<(), StoreError>> {
        self.within(PATIENCE, self.asked.lift_owner(owner))
    }

    fn prune(&self, time: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.within(PRUNING, self.asked.prune(time))
    }

    fn durability(&self) -> Durability {
        self.asked.durability()
    }
}

impl ErasedPolicy for Bounded<dyn ErasedPolicy> {
    fn policy(&self) -> BoxFuture<'_, Result<IssuePolicy, StoreError>> {
        self.within(PATIENCE, self.asked.policy())
    }

    fn replace(&self, new: IssuePolicy) -> BoxFuture<'_, Result<IssuePolicy, StoreError>> {
        self.within(PATIENCE, self.asked.replace(new))
    }
}
