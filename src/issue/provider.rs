//! Where the policy comes from, and how it changes at run time.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;

use super::policy::IssuePolicy;
use crate::decision::StoreError;

/// Where the desk learns the policy: asked for each token, so that a change holds for the next one, on every process
/// that asks the same source.
///
/// A fixed [`IssuePolicy`] is one, and so is a closure that answers with one. [`SharedPolicy`] can be changed at run time;
/// several processes need one of the application's own, over its settings table.
#[diagnostic::on_unimplemented(
    message = "`{Self}` provides no issue policy",
    note = "pass an `IssuePolicy`, a closure `Fn() -> IssuePolicy`, or implement `PolicyProvider`"
)]
pub trait PolicyProvider: Send + Sync {
    /// The policy as it is now.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be told; the desk then issues nothing.
    fn policy(&self) -> impl Future<Output = Result<IssuePolicy, StoreError>> + Send;

    /// Puts another policy in its place, and answers with the one it replaced.
    /// [`TokenIssuer::change_policy`](super::TokenIssuer::change_policy) calls it, for those who may.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written. A provider whose policy is fixed, which is the default, always answers
    /// so.
    fn replace(&self, new: IssuePolicy) -> impl Future<Output = Result<IssuePolicy, StoreError>> + Send {
        drop(new);
        async { Err(StoreError::new("this policy is fixed")) }
    }
}

impl PolicyProvider for IssuePolicy {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(self.clone())
    }
}

impl<F: Fn() -> IssuePolicy + Send + Sync> PolicyProvider for F {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(self())
    }
}

/// A policy in memory that can be changed at run time. A clone is another handle to the same policy, so that a desk and
/// its gate can go by one; a restart forgets the change.
///
/// # Example
/// ```
/// use tower_token_auth::{Actor, IssuePolicy, MemoryStore, SharedPolicy, TokenIssuer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let policy = SharedPolicy::new(IssuePolicy::default());
/// let desk = TokenIssuer::builder(MemoryStore::new(), policy.clone()).build()?;
///
/// let strict = IssuePolicy::default().force_read_only(true);
/// let old = desk.change_policy(&Actor::system("incident 4711"), strict.clone()).await?;
/// assert_eq!((old, policy.current()), (IssuePolicy::default(), strict));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct SharedPolicy(Arc<RwLock<IssuePolicy>>);

impl SharedPolicy {
    /// Begins with this policy.
    #[must_use]
    pub fn new(policy: IssuePolicy) -> Self {
        Self(Arc::new(RwLock::new(policy)))
    }

    /// The policy as it is now.
    #[must_use]
    pub fn current(&self) -> IssuePolicy {
        // Nothing can panic while the lock is held, so a poisoned one is as good as another.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PolicyProvider for SharedPolicy {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(self.current())
    }

    async fn replace(&self, new: IssuePolicy) -> Result<IssuePolicy, StoreError> {
        Ok(std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), new))
    }
}

/// [`PolicyProvider`], object-safe.
pub(crate) trait ErasedPolicy: Send + Sync {
    fn policy(&self) -> BoxFuture<'_, Result<IssuePolicy, StoreError>>;
    fn replace(&self, new: IssuePolicy) -> BoxFuture<'_, Result<IssuePolicy, StoreError>>;
}

impl<T: PolicyProvider> ErasedPolicy for T {
    fn policy(&self) -> BoxFuture<'_, Result<IssuePolicy, StoreError>> {
        Box::pin(PolicyProvider::policy(self))
    }

    fn replace(&self, new: IssuePolicy) -> BoxFuture<'_, Result<IssuePolicy, StoreError>> {
        Box::pin(PolicyProvider::replace(self, new))
    }
}
