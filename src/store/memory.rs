//! A store in memory, for tests, examples and services whose tokens come from their configuration.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Change, Cursor, InsertError, TokenFilter, TokenPage, TokenRegistry, TokenStore, UpdateError};
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::token::{LastUsed, Revision, TokenRecord};

/// Tokens in memory. A clone is another handle to the same tokens; a restart forgets them all.
///
/// # Cost
/// One read lock and one clone of the record a look-up.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<RwLock<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    records: BTreeMap<TokenId, TokenRecord>,
    barred: HashSet<OwnerId>,
}

impl Shelf {
    fn present(&self, record: &TokenRecord) -> TokenRecord {
        record.clone().with_owner_barred(self.barred.contains(record.owner()))
    }
}

impl MemoryStore {
    /// A store without tokens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // A panic while the lock is held cannot leave a record half-written, so a poisoned lock is as good as another.
    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for MemoryStore {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let shelf = self.read();
        Ok(shelf.records.get(id).map(|record| shelf.present(record)))
    }
}

impl TokenRegistry for MemoryStore {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        use std::collections::btree_map::Entry;
        match self.write().records.entry(record.id()) {
            Entry::Occupied(_) => Err(InsertError::Taken),
            Entry::Vacant(vacant) => {
                vacant.insert(record);
                Ok(())
            }
        }
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        let mut shelf = self.write();
        let record = shelf.records.get_mut(id).ok_or(UpdateError::Missing)?;
        if record.revision() != expected {
            return Err(UpdateError::Conflict);
        }
        *record = change.apply(record.clone()).map_err(UpdateError::Rejected)?;
        let changed = record.clone();
        Ok(shelf.present(&changed))
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        let after = match cursor {
            Some(cursor) => Bound::Excluded(cursor.as_str().parse::<TokenId>().map_err(StoreError::new)?),
            None => Bound::Unbounded,
        };
        let (shelf, size) = (self.read(), filter.page_size.max(1));
        let matching = shelf.records.range((after, Bound::Unbounded)).map(|(_, record)| shelf.present(record));
        // One more than the page tells whether there is another.
        let mut records: Vec<_> =
            matching.filter(|record| filter.matches(record)).take(size.saturating_add(1)).collect();
        let more = records.len() > size;
        records.truncate(size);
        let next = records.last().filter(|_| more).map(|last| Cursor::new(last.id().as_str()));
        Ok(TokenPage::new(records, next))
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        let mut shelf = self.write();
        for (id, used) in uses {
            if let Some(record) = shelf.records.get_mut(id) {
                let merged = record.last_used().map_or_else(|| used.clone(), |known| known.clone().merged(used));
                *record = record.clone().with_last_used(Some(merged));
            }
        }
        Ok(())
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.write().barred.insert(owner.clone());
        Ok(())
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.write().barred.remove(owner);
        Ok(())
    }

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        let mut shelf = self.write();
        let before = shelf.records.len();
        shelf.records.retain(|_, record| !record.was_dead_before(time));
        Ok((before - shelf.records.len()) as u64)
    }
}
