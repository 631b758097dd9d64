//! Where tokens are kept: the ports, and a store in memory.
//!
//! The gate needs [`TokenStore`], one method. The desk needs [`TokenRegistry`], which also writes. Both are plain
//! traits with async methods; the crate erases them behind its own doors, so no type parameter spreads.

mod any;
mod change;
mod durability;
mod erased;
mod feed;
mod list;
mod memory;
mod owners;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

#[cfg(feature = "redis")]
pub use self::redis::{KeyPrefixError, RedisFeed, RedisStore};
pub use any::AnyStore;
pub use change::{Change, ChangeError};
pub use durability::Durability;
pub(crate) use erased::{ErasedRegistry, ErasedStore, FindError, FindResult};
pub use feed::{ChangeFeed, Notice};
pub(crate) use list::can_work;
pub use list::{Cursor, TokenFilter, TokenPage};
pub use memory::MemoryStore;
pub use owners::OwnerDirectory;
pub(crate) use owners::{ErasedOwners, Vetted};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sql::{HistoryWriter, SqlHistory, SqlHistoryBuilder, SqlNameError};
#[cfg(feature = "postgres")]
pub use sql::{PostgresFeed, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sql::{SqliteFeed, SqliteStore};

use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::token::{LastUsed, Revision, TokenRecord};

/// Where the gate finds tokens.
///
/// An implementor *must* answer with the record of the asked id or `None`, *must* refuse (with an error) a record it
/// cannot read, such as one with an unknown scope, and *must* set [`TokenRecord::with_owner_barred`] where it keeps
/// barred owners. It *may* be slow, fail, hang or panic: the gate bounds all of it, answers 503, and never takes an
/// error for "no such token".
///
/// # Cancellation
/// The future is dropped when every request that waits for it has gone, or when it takes too long.
///
/// # Example
/// ```
/// use tower_token_auth::{StoreError, TokenId, TokenRecord, TokenStore};
///
/// struct Nobody;
///
/// impl TokenStore for Nobody {
///     async fn find(&self, _: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
///         Ok(None)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a token store",
    note = "implement `TokenStore` for it: one method, `async fn find(&self, id: &TokenId)`"
)]
pub trait TokenStore: Send + Sync {
    /// The token of this id, `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot answer or cannot read what it holds.
    fn find(&self, id: &TokenId) -> impl Future<Output = Result<Option<TokenRecord>, StoreError>> + Send;
}

/// A store the desk can write to.
///
/// An implementor *must* make each method atomic, and a change visible to [`find`](TokenStore::find) by the time it
/// returns. Required methods stay as they are; what later versions need comes as a [`Change`] or with a default.
/// `test_util::conformance` (feature `test-util`) checks an implementation by these rules.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a token registry",
    note = "a gate needs only `TokenStore`; issuing and revoking need `TokenRegistry`"
)]
pub trait TokenRegistry: TokenStore {
    /// Adds a record.
    ///
    /// # Errors
    /// [`InsertError::Taken`] when a record of this id is there already, which stays as it is.
    fn insert(&self, record: TokenRecord) -> impl Future<Output = Result<(), InsertError>> + Send;

    /// Changes a record if it still has the expected revision (compare and set), and answers with the new record.
    /// [`Change::apply`] does the changing, so that an implementor needs no case for each kind.
    ///
    /// # Errors
    /// [`UpdateError::Missing`] and [`UpdateError::Conflict`] when there is no such record, or another revision;
    /// [`UpdateError::Rejected`] when the record does not allow the change.
    fn update(
        &self,
        id: &TokenId,
        expected: Revision,
        change: Change,
    ) -> impl Future<Output = Result<TokenRecord, UpdateError>> + Send;

    /// The records that a filter lets through, a page at a time, in a stable order; `cursor` continues a listing. A page
    /// may hold fewer records than it may, and none, while the listing goes on.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot answer, cannot read what it holds, or does not know the cursor.
    fn list(
        &self,
        filter: &TokenFilter,
        cursor: Option<&Cursor>,
    ) -> impl Future<Output = Result<TokenPage, StoreError>> + Send;

    /// Notes when tokens were last used. Unknown ids are skipped, no revision changes, and what is known already is
    /// [merged](LastUsed::merged), so that an older use never replaces a newer one.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot write.
    fn touch(&self, uses: &[(TokenId, LastUsed)]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Bars an owner: all their tokens stop working. Barring twice changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot write.
    fn bar_owner(&self, owner: &OwnerId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lifts the bar: the owner's tokens work again as far as they would. Lifting none changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot write.
    fn lift_owner(&self, owner: &OwnerId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets the records that were [dead for good](TokenRecord::was_dead_before) before `time`, and answers how many.
    /// A store that cannot, which is the default, answers [unsupported](StoreError::unsupported).
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot write, or cannot prune at all.
    fn prune(&self, time: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send {
        let _ = time;
        async { Err(StoreError::unsupported("this registry cannot prune")) }
    }

    /// What this store promises of the changes it has acknowledged, as far as it knows: by default nothing.
    fn durability(&self) -> Durability {
        Durability::Volatile
    }
}

impl<T: TokenStore> TokenStore for Arc<T> {
    fn find(&self, id: &TokenId) -> impl Future<Output = Result<Option<TokenRecord>, StoreError>> + Send {
        T::find(self, id)
    }
}

impl<T: TokenRegistry> TokenRegistry for Arc<T> {
    fn insert(&self, record: TokenRecord) -> impl Future<Output = Result<(), InsertError>> + Send {
        T::insert(self, record)
    }

    fn update(
        &self,
        id: &TokenId,
        expected: Revision,
        change: Change,
    ) -> impl Future<Output = Result<TokenRecord, UpdateError>> + Send {
        T::update(self, id, expected, change)
    }

    fn list(
        &self,
        filter: &TokenFilter,
        cursor: Option<&Cursor>,
    ) -> impl Future<Output = Result<TokenPage, StoreError>> + Send {
        T::list(self, filter, cursor)
    }

    fn touch(&self, uses: &[(TokenId, LastUsed)]) -> impl Future<Output = Result<(), StoreError>> + Send {
        T::touch(self, uses)
    }

    fn bar_owner(&self, owner: &OwnerId) -> impl Future<Output = Result<(), StoreError>> + Send {
        T::bar_owner(self, owner)
    }

    fn lift_owner(&self, owner: &OwnerId) -> impl Future<Output = Result<(), StoreError>> + Send {
        T::lift_owner(self, owner)
    }

    fn prune(&self, time: Timestamp) -> impl Future<Output = Result<u64, StoreError>> + Send {
        T::prune(self, time)
    }

    fn durability(&self) -> Durability {
        T::durability(self)
    }
}

/// Why a record was not added.
#[derive(Debug)]
#[non_exhaustive]
pub enum InsertError {
    /// A record of this id is there already.
    Taken,
    /// The store could not write.
    Store(StoreError),
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "a token of this id exists already",
            Self::Store(_) => "the token could not be stored",
        })
    }
}

impl StdError for InsertError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Taken => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for InsertError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a record was not changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpdateError {
    /// There is no such record.
    Missing,
    /// The record has another revision: somebody else changed it in between.
    Conflict,
    /// The record does not allow the change.
    Rejected(ChangeError),
    /// The store could not write.
    Store(StoreError),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no such token",
            Self::Conflict => "the token was changed by somebody else at the same time",
            Self::Rejected(_) => "the token does not allow the change",
            Self::Store(_) => "the change could not be stored",
        })
    }
}

impl StdError for UpdateError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Missing | Self::Conflict => None,
            Self::Rejected(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for UpdateError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
