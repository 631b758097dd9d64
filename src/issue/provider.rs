//! Where the policy comes from, and how it changes at run time.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;

use super::policy::IssuePolicy;
use crate::decision::StoreError;

/// Where the desk learns the policy: asked for each token, so that a change holds for the next one, on every process
/// that asks the same source.
///
/// A fixed [`IssuePolicy`] is one, and so is a closure in [`policy_fn`]. [`SharedPolicy`] can be changed at run time;
/// several processes need one of the application's own, over its settings table:
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
/// use tower_token_auth::{IssuePolicy, PolicyProvider, StoreError};
///
/// /// Stands for the table: a name and a number per row.
/// #[derive(Default)]
/// struct Settings(Mutex<BTreeMap<&'static str, u64>>);
///
/// impl PolicyProvider for Settings {
///     async fn policy(&self) -> Result<IssuePolicy, StoreError> {
///         let rows = self.0.lock().map_err(|_| StoreError::new("the table is locked"))?;
///         let read_only = rows.get("force_read_only").is_some_and(|on| *on != 0);
///         let days = rows.get("max_days").map(|days| Duration::from_secs(days * 24 * 3600));
///         // Rules are code: they are the same whatever the table says.
///         let policy = IssuePolicy::default().force_read_only(read_only).max_lifetime(days);
///         Ok(policy.rule("named", |wish| match wish.label().as_str() {
///             "token" => Err("a label must say what the token is for"),
///             _ => Ok(()),
///         }))
///     }
///
///     async fn replace(&self, new: IssuePolicy) -> Result<IssuePolicy, StoreError> {
///         let old = self.policy().await?;
///         let mut rows = self.0.lock().map_err(|_| StoreError::new("the table is locked"))?;
///         rows.insert("force_read_only", new.is_read_only_forced().into());
///         match new.lifetime_limit() {
///             Some(limit) => rows.insert("max_days", limit.as_secs() / (24 * 3600)),
///             None => rows.remove("max_days"),
///         };
///         Ok(old)
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), StoreError> {
/// # let settings = Settings::default();
/// # let strict = IssuePolicy::default().force_read_only(true).max_lifetime(Some(Duration::from_secs(90 * 24 * 3600)));
/// # assert!(!settings.replace(strict).await?.is_read_only_forced());
/// # let now = settings.policy().await?;
/// # assert_eq!(now.to_string().split(' ').take(2).collect::<Vec<_>>(), ["force_read_only=on", "max_lifetime=90d"]);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` provides no issue policy",
    note = "pass an `IssuePolicy`, wrap a closure in `policy_fn`, or implement `PolicyProvider`"
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
    /// [`StoreError`] when it cannot be written. A provider whose policy is fixed, which is the default, answers
    /// [unsupported](StoreError::unsupported).
    fn replace(&self, new: IssuePolicy) -> impl Future<Output = Result<IssuePolicy, StoreError>> + Send {
        drop(new);
        async { Err(StoreError::unsupported("this policy is fixed")) }
    }
}

impl PolicyProvider for IssuePolicy {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(self.clone())
    }
}

impl<T: PolicyProvider> PolicyProvider for Arc<T> {
    fn policy(&self) -> impl Future<Output = Result<IssuePolicy, StoreError>> + Send {
        T::policy(self)
    }

    fn replace(&self, new: IssuePolicy) -> impl Future<Output = Result<IssuePolicy, StoreError>> + Send {
        T::replace(self, new)
    }
}

/// A closure that answers with the policy as it is now, as a [`PolicyProvider`] whose desk cannot change it.
pub const fn policy_fn<F: Fn() -> IssuePolicy + Send + Sync>(policy: F) -> PolicyFn<F> {
    PolicyFn(policy)
}

/// Made by [`policy_fn`].
#[derive(Clone, Copy)]
pub struct PolicyFn<F>(F);

impl<F: Fn() -> IssuePolicy + Send + Sync> PolicyProvider for PolicyFn<F> {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok((self.0)())
    }
}

impl<F> fmt::Debug for PolicyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyFn")
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
