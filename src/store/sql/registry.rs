//! The registry, in terms of what a database must do.

use std::collections::BTreeMap;
use std::future::Future;

use super::statement::{Statement, Statements};
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{Change, Cursor, Durability, InsertError, TokenFilter, TokenPage, UpdateError};
use crate::token::{LastUsed, Revision, TokenRecord};

/// The last uses of a batch, one a token, by id.
pub(super) type Uses = BTreeMap<TokenId, LastUsed>;

/// A database: runs statements, each of which is atomic.
pub(super) trait Database: Sync {
    fn statements(&self) -> &Statements;

    fn durability(&self) -> Durability;

    /// The records that a statement selects.
    fn read(&self, statement: Statement) -> impl Future<Output = Result<Vec<TokenRecord>, StoreError>> + Send;

    /// How many rows a statement has changed.
    fn write(&self, statement: Statement) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Merges last uses with those that are known, all or none.
    fn write_uses(&self, uses: Uses) -> impl Future<Output = Result<(), StoreError>> + Send;
}

pub(super) async fn find(database: &impl Database, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
    Ok(database.read(database.statements().find(id)).await?.pop())
}

pub(super) async fn insert(database: &impl Database, record: TokenRecord) -> Result<(), InsertError> {
    match database.write(database.statements().insert(&record)?).await? {
        0 => Err(InsertError::Taken),
        _ => Ok(()),
    }
}

/// The statement that writes compares the revision once more, so that of two at the same time one is in conflict: no
/// transaction is held open between reading and writing.
pub(super) async fn update(
    database: &impl Database,
    id: &TokenId,
    expected: Revision,
    change: Change,
) -> Result<TokenRecord, UpdateError> {
    let record = find(database, id).await?.ok_or(UpdateError::Missing)?;
    if record.revision() != expected {
        return Err(UpdateError::Conflict);
    }
    let changed = change.apply(record).map_err(UpdateError::Rejected)?;
    match database.write(database.statements().update(&changed, expected)?).await? {
        0 => Err(UpdateError::Conflict),
        _ => Ok(changed),
    }
}

pub(super) async fn list(
    database: &impl Database,
    filter: &TokenFilter,
    cursor: Option<&Cursor>,
) -> Result<TokenPage, StoreError> {
    let size = filter.page_size.max(1);
    let mut records = database.read(database.statements().list(filter, cursor)?).await?;
    let more = records.len() > size;
    records.truncate(size);
    let next = records.last().filter(|_| more).map(|last| Cursor::new(last.id().as_str()));
    Ok(TokenPage::new(records, next))
}

pub(super) async fn touch(database: &impl Database, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
    let mut merged = Uses::new();
    for (id, used) in uses {
        let known = merged.remove(id);
        merged.insert(*id, known.map_or_else(|| used.clone(), |known| known.merged(used)));
    }
    if merged.is_empty() { Ok(()) } else { database.write_uses(merged).await }
}

pub(super) async fn bar_owner(database: &impl Database, owner: &OwnerId) -> Result<(), StoreError> {
    database.write(database.statements().bar(owner)).await.map(drop)
}

pub(super) async fn lift_owner(database: &impl Database, owner: &OwnerId) -> Result<(), StoreError> {
    database.write(database.statements().lift(owner)).await.map(drop)
}

pub(super) async fn prune(database: &impl Database, time: Timestamp) -> Result<u64, StoreError> {
    database.write(database.statements().prune(time)).await
}

/// Makes a [`Database`] a registry.
macro_rules! registry {
    ($store:ty) => {
        impl crate::store::TokenStore for $store {
            async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
                registry::find(self, id).await
            }
        }

        impl crate::store::TokenRegistry for $store {
            async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
                registry::insert(self, record).await
            }

            async fn update(
                &self,
                id: &TokenId,
                expected: Revision,
                change: Change,
            ) -> Result<TokenRecord, UpdateError> {
                registry::update(self, id, expected, change).await
            }

            async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
                registry::list(self, filter, cursor).await
            }

            async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
                registry::touch(self, uses).await
            }

            async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
                registry::bar_owner(self, owner).await
            }

            async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
                registry::lift_owner(self, owner).await
            }

            async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
                registry::prune(self, time).await
            }

            /// What survives, as the database's settings were when [`migrate`](Self::migrate) looked at them; before
            /// that nothing is promised.
            fn durability(&self) -> Durability {
                Database::durability(self)
            }
        }
    };
}

pub(super) use registry;
