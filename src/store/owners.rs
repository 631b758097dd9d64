//! Whether an owner may use tokens, asked of an application that keeps its users elsewhere.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{ErasedStore, FindError, FindResult};
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::token::TokenState;

/// Where the gate learns whether an owner may use tokens at all: the permission *use*. For applications whose users live
/// elsewhere than their tokens; a [`TokenRegistry`](crate::TokenRegistry) that is told of
/// [barred owners](crate::TokenRegistry::bar_owner) needs none.
///
/// It is asked within the look-up of a token, after the store, and its answer is remembered with the record: for
/// [`CacheConfig::ttl`](crate::CacheConfig::ttl), not at each request, and never for a token that the store does not know
/// or that is revoked. All tokens of an owner who may not use them are answered 401, and work again when the owner may.
/// Where that has changed, tell the gate with [`AuthHandle::invalidate_owner`](crate::AuthHandle::invalidate_owner), and
/// it holds for the next request.
///
/// An implementor *must* answer `false` for an owner it does not know, unless such owners may use tokens. It *may* be
/// slow, fail, hang or panic: it shares the bounds of the look-up ([`LookupLimits`](crate::LookupLimits)), and a failure
/// is a 503 that nobody remembers, never a 401.
///
/// # Cancellation
/// The future is dropped when every request that waits for it has gone, or when the look-up takes too long.
///
/// # Example
/// ```
/// use tower_token_auth::{MemoryStore, OwnerDirectory, OwnerId, StoreError, TokenAuthLayer};
///
/// struct Staff;
///
/// impl OwnerDirectory for Staff {
///     async fn may_use(&self, owner: &OwnerId) -> Result<bool, StoreError> {
///         Ok(owner.as_str() != "mallory")
///     }
/// }
///
/// let auth = TokenAuthLayer::builder(MemoryStore::new()).owners(Staff).build()?;
/// // Mallory has left, says the directory from now on:
/// auth.handle().invalidate_owner(&OwnerId::new("mallory")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an owner directory",
    note = "implement `OwnerDirectory` for it: one method, `async fn may_use(&self, owner: &OwnerId)`"
)]
pub trait OwnerDirectory: Send + Sync {
    /// Whether this owner's tokens may be used now.
    ///
    /// # Errors
    /// [`StoreError`] when the directory cannot answer.
    fn may_use(&self, owner: &OwnerId) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

impl<T: OwnerDirectory> OwnerDirectory for Arc<T> {
    fn may_use(&self, owner: &OwnerId) -> impl Future<Output = Result<bool, StoreError>> + Send {
        T::may_use(self, owner)
    }
}

/// [`OwnerDirectory`], object-safe.
pub(crate) trait ErasedOwners: Send + Sync {
    fn may_use<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<bool, StoreError>>;
}

impl<T: OwnerDirectory> ErasedOwners for T {
    fn may_use<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(OwnerDirectory::may_use(self, owner))
    }
}

/// A store whose records say of their owners what a directory says of them.
pub(crate) struct Vetted {
    store: Arc<dyn ErasedStore>,
    owners: Arc<dyn ErasedOwners>,
}

impl Vetted {
    pub(crate) fn new(store: Arc<dyn ErasedStore>, owners: Arc<dyn ErasedOwners>) -> Self {
        Self { store, owners }
    }
}

impl ErasedStore for Vetted {
    fn find(self: Arc<Self>, id: TokenId) -> BoxFuture<'static, FindResult> {
        Box::pin(async move {
            let Some(record) = Arc::clone(&self.store).find(id).await? else { return Ok(None) };
            // Whatever the directory says, these do not work. One that is only paused may be resumed by a change this
            // process knows of before its replica does.
            if record.owner_barred() || record.state() == TokenState::Revoked {
                return Ok(Some(record));
            }
            let may_use = self.owners.may_use(record.owner()).await.map_err(FindError::Owners)?;
            Ok(Some(record.with_owner_barred(!may_use)))
        })
    }
}
