//! A store that is chosen at run time.

use std::fmt;
use std::sync::Arc;

use super::{
    Change, Cursor, Durability, ErasedRegistry, InsertError, TokenFilter, TokenPage, TokenRegistry, TokenStore,
    UpdateError,
};
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::token::{LastUsed, Revision, TokenRecord};

/// A store of any type, for applications that read from their configuration which one it is. A clone is another handle
/// to the same store.
///
/// # Example
/// ```
/// use tower_token_auth::{AnyStore, IssuePolicy, MemoryStore, TokenAuthLayer};
///
/// fn store(kind: &str) -> Result<AnyStore, String> {
///     match kind {
///         "memory" => Ok(AnyStore::new(MemoryStore::new())),
///         // "postgres" => Ok(AnyStore::new(PostgresStore::new(pool))),
///         other => Err(format!("no such store: {other}")),
///     }
/// }
///
/// let store = store("memory")?;
/// let auth = TokenAuthLayer::new(store.clone());
/// let desk = auth.issuer(store, IssuePolicy::default());
/// # Ok::<(), String>(())
/// ```
///
/// # Cost
/// One boxed future a call.
#[derive(Clone)]
pub struct AnyStore(Arc<dyn ErasedRegistry>);

impl AnyStore {
    /// This store, without its type.
    pub fn new(store: impl TokenRegistry + 'static) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStore").finish_non_exhaustive()
    }
}

impl TokenStore for AnyStore {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.0.find(id).await
    }
}

impl TokenRegistry for AnyStore {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        self.0.insert(record).await
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        self.0.update(id, expected, change).await
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        self.0.list(filter, cursor).await
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        self.0.touch(uses).await
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.0.bar_owner(owner).await
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.0.lift_owner(owner).await
    }

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        self.0.prune(time).await
    }

    fn durability(&self) -> Durability {
        self.0.durability()
    }
}
