//! The ports without their types: boxed futures, only where I/O is about to happen anyway.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Change, Cursor, Durability, InsertError, TokenFilter, TokenPage, TokenRegistry, TokenStore, UpdateError};
use crate::clock::Timestamp;
use crate::decision::{StoreError, UnavailableCause};
use crate::id::{OwnerId, TokenId};
use crate::token::{LastUsed, Revision, TokenRecord};

/// [`TokenStore`], object-safe. The future owns the store, so that nobody who waits for it has to.
///
/// What is asked beside the store is a decorator of it: it shares the look-up's flight, its bounds and its answer.
pub(crate) trait ErasedStore: Send + Sync {
    fn find(self: Arc<Self>, id: TokenId) -> BoxFuture<'static, FindResult>;
}

pub(crate) type FindResult = Result<Option<TokenRecord>, FindError>;

/// Who could not answer within a look-up.
#[derive(Debug)]
pub(crate) enum FindError {
    Store(StoreError),
    Owners(StoreError),
    Policy(StoreError),
}

impl FindError {
    pub(crate) const fn cause(&self) -> UnavailableCause {
        match self {
            Self::Store(_) => UnavailableCause::StoreFailed,
            Self::Owners(_) => UnavailableCause::OwnersFailed,
            Self::Policy(_) => UnavailableCause::PolicyFailed,
        }
    }

    pub(crate) const fn error(&self) -> &StoreError {
        match self {
            Self::Store(error) | Self::Owners(error) | Self::Policy(error) => error,
        }
    }
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "the token store failed",
            Self::Owners(_) => "the owner directory failed",
            Self::Policy(_) => "the issue policy could not be told",
        })
    }
}

impl<T: TokenStore + 'static> ErasedStore for T {
    fn find(self: Arc<Self>, id: TokenId) -> BoxFuture<'static, FindResult> {
        Box::pin(async move { T::find(&self, &id).await.map_err(FindError::Store) })
    }
}

/// [`TokenRegistry`], object-safe.
pub(crate) trait ErasedRegistry: Send + Sync {
    fn find<'a>(&'a self, id: &'a TokenId) -> BoxFuture<'a, Result<Option<TokenRecord>, StoreError>>;
    fn insert(&self, record: TokenRecord) -> BoxFuture<'_, Result<(), InsertError>>;
    fn update<'a>(
        &'a self,
        id: &'a TokenId,
        expected: Revision,
        change: Change,
    ) -> BoxFuture<'a, Result<TokenRecord, UpdateError>>;
    fn list<'a>(
        &'a self,
        filter: &'a TokenFilter,
        cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<TokenPage, StoreError>>;
    fn touch<'a>(&'a self, uses: &'a [(TokenId, LastUsed)]) -> BoxFuture<'a, Result<(), StoreError>>;
    fn bar_owner<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<(), StoreError>>;
    fn lift_owner<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<(), StoreError>>;
    fn prune(&self, time: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;
    fn durability(&self) -> Durability;
}

impl<T: TokenRegistry> ErasedRegistry for T {
    fn find<'a>(&'a self, id: &'a TokenId) -> BoxFuture<'a, Result<Option<TokenRecord>, StoreError>> {
        Box::pin(TokenStore::find(self, id))
    }

    fn insert(&self, record: TokenRecord) -> BoxFuture<'_, Result<(), InsertError>> {
        Box::pin(TokenRegistry::insert(self, record))
    }

    fn update<'a>(
        &'a self,
        id: &'a TokenId,
        expected: Revision,
        change: Change,
    ) -> BoxFuture<'a, Result<TokenRecord, UpdateError>> {
        Box::pin(TokenRegistry::update(self, id, expected, change))
    }

    fn list<'a>(
        &'a self,
        filter: &'a TokenFilter,
        cursor: Option<&'a Cursor>,
    ) -> BoxFuture<'a, Result<TokenPage, StoreError>> {
        Box::pin(TokenRegistry::list(self, filter, cursor))
    }

    fn touch<'a>(&'a self, uses: &'a [(TokenId, LastUsed)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(TokenRegistry::touch(self, uses))
    }

    fn bar_owner<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(TokenRegistry::bar_owner(self, owner))
    }

    fn lift_owner<'a>(&'a self, owner: &'a OwnerId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(TokenRegistry::lift_owner(self, owner))
    }

    fn prune(&self, time: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(TokenRegistry::prune(self, time))
    }

    fn durability(&self) -> Durability {
        TokenRegistry::durability(self)
    }
}
