//! What the ports ask for.

use std::sync::atomic::Ordering;

use redis::RedisError;

use super::RedisStore;
use super::record::{Fields, decode, encode, encode_use};
use super::scripts;
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{
    Change, Cursor, Durability, InsertError, TokenFilter, TokenPage, TokenRegistry, TokenStore, UpdateError,
};
use crate::token::{LastUsed, Revision, TokenRecord};

/// Changes that the stream keeps, more or less: a feed that is further behind has a gap.
const CHANGES_KEPT: usize = 10_000;
/// Records that one script reads: a script stops the whole server for as long as it runs.
const READ_AT_ONCE: usize = 200;
/// Reads that one page may take, where a filter lets few records through.
const READS_A_PAGE: usize = 50;
/// Uses that one script notes.
const NOTED_AT_ONCE: usize = 500;
/// Uses that one answer may take: it has to come in time.
const NOTED_A_TRIP: usize = 10 * NOTED_AT_ONCE;

impl TokenStore for RedisStore {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let mut script = scripts::FIND.key(self.keys.token(id.as_str()));
        let (barred, fields): (bool, Fields) =
            script.key(self.keys.barred()).invoke_async(&mut self.connection.clone()).await.map_err(StoreError::new)?;
        if fields.is_empty() { Ok(None) } else { decode(*id, fields, barred).map(Some) }
    }
}

impl TokenRegistry for RedisStore {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        let mut script = scripts::INSERT.key(self.keys.token(record.id().as_str()));
        script
            .key(self.keys.ids())
            .key(self.keys.owner(record.owner().as_str()))
            .key(self.keys.changes())
            .key(self.keys.change_count())
            .arg(record.id().as_str())
            .arg(CHANGES_KEPT)
            .arg(record.revision().number());
        let last_use = record.last_used().map(encode_use).unwrap_or_default();
        for (field, text) in encode(&record).into_iter().chain(last_use) {
            if let Some(text) = text {
                script.arg(field).arg(text);
            }
        }
        let inserted: bool = script.invoke_async(&mut self.connection.clone()).await.map_err(StoreError::new)?;
        if inserted { Ok(()) } else { Err(InsertError::Taken) }
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        let record = self.find(id).await?.ok_or(UpdateError::Missing)?;
        if record.revision() != expected {
            return Err(UpdateError::Conflict);
        }
        let before = encode(&record);
        let changed = change.apply(record).map_err(UpdateError::Rejected)?;
        // Nothing but what changes: the record may have been forgotten meanwhile, and its id taken anew.
        let differing = encode(&changed).into_iter().zip(before).filter_map(|(new, old)| (new != old).then_some(new));
        let (kept, gone): (Vec<_>, Vec<_>) = differing.partition(|(_, text)| text.is_some());
        let mut script = scripts::UPDATE.key(self.keys.token(id.as_str()));
        script
            .key(self.keys.barred())
            .key(self.keys.changes())
            .key(self.keys.change_count())
            .arg(id.as_str())
            .arg(CHANGES_KEPT)
            .arg(expected.number())
            .arg(changed.revision().number())
            .arg(kept.len() * 2);
        for (field, text) in kept {
            script.arg(field).arg(text);
        }
        script.arg(gone.into_iter().map(|(field, _)| field).collect::<Vec<_>>());
        let outcome: String = script.invoke_async(&mut self.connection.clone()).await.map_err(StoreError::new)?;
        match &*outcome {
            "changed" => Ok(changed.with_owner_barred(false)),
            "barred" => Ok(changed.with_owner_barred(true)),
            "missing" => Err(UpdateError::Missing),
            _ => Err(UpdateError::Conflict),
        }
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        let parsed = cursor.map(|cursor| cursor.as_str().parse::<TokenId>()).transpose();
        let mut last = parsed.map_err(StoreError::new)?;
        let (page_size, mut records) = (filter.page_size.max(1), Vec::new());
        for _ in 0..READS_A_PAGE {
            let rows = self.read_on(filter.owner.as_ref(), last).await?;
            let exhausted = rows.len() < READ_AT_ONCE;
            for (id, record) in rows {
                let matching = record.filter(|record| filter.matches(record));
                if matching.is_some() && records.len() == page_size {
                    return Ok(page(records, last));
                }
                records.extend(matching);
                last = Some(id);
            }
            if exhausted {
                return Ok(page(records, None));
            }
        }
        Ok(page(records, last))
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        for some in uses.chunks(NOTED_A_TRIP) {
            self.note(some).await.map_err(StoreError::new)?;
        }
        Ok(())
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.set_bar(owner, "SADD").await.map_err(StoreError::new)
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.set_bar(owner, "SREM").await.map_err(StoreError::new)
    }

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        let (mut forgotten, mut last) = (0, None);
        loop {
            let rows = self.read_on(None, last).await?;
            let exhausted = rows.len() < READ_AT_ONCE;
            last = rows.last().map(|(id, _)| *id);
            let records = rows.into_iter().filter_map(|(_, record)| record);
            let dead: Vec<_> = records.filter(|record| record.was_dead_before(time)).collect();
            forgotten += self.forget(&dead).await.map_err(StoreError::new)?;
            if exhausted {
                return Ok(forgotten);
            }
        }
    }

    fn durability(&self) -> Durability {
        if self.durable.load(Ordering::Relaxed) { Durability::Durable } else { Durability::Volatile }
    }
}

fn page(records: Vec<TokenRecord>, last: Option<TokenId>) -> TokenPage {
    TokenPage::new(records, last.map(|id| Cursor::new(id.as_str())))
}

/// As [`scripts::TOUCH`] takes them.
fn use_arguments(used: &LastUsed) -> Vec<String> {
    let time = |time: Timestamp| time.unix_millis().to_string();
    let address = used.client_address.map(|address| address.to_string());
    let agent = used.user_agent.as_ref().map(|agent| format!("+{agent}"));
    vec![
        time(used.at),
        address.unwrap_or_default(),
        agent.unwrap_or_default(),
        used.last_write.map(time).unwrap_or_default(),
    ]
}

impl RedisStore {
    /// The next rows of an owner's index, or that of all; an index may name a token that Redis has dropped.
    async fn read_on(
        &self,
        owner: Option<&OwnerId>,
        last: Option<TokenId>,
    ) -> Result<Vec<(TokenId, Option<TokenRecord>)>, StoreError> {
        let index = owner.map_or_else(|| self.keys.ids(), |owner| self.keys.owner(owner.as_str()));
        let after = last.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let mut script = scripts::LIST.key(index);
        script.key(self.keys.barred()).arg(self.keys.token("")).arg(after).arg(READ_AT_ONCE);
        let rows: Vec<(String, bool, Fields)> =
            script.invoke_async(&mut self.connection.clone()).await.map_err(StoreError::new)?;
        rows.into_iter().map(|(id, barred, fields)| read_row(&id, barred, fields)).collect()
    }

    async fn note(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        // Whether the server has the script is not asked: to send it costs less.
        pipeline.cmd("SCRIPT").arg("LOAD").arg(scripts::TOUCH).ignore();
        for some in uses.chunks(NOTED_AT_ONCE) {
            let command = pipeline.cmd("EVALSHA").arg(&*scripts::TOUCH_HASH).arg(some.len());
            command.arg(some.iter().map(|(id, _)| self.keys.token(id.as_str())).collect::<Vec<_>>());
            command.arg(some.iter().flat_map(|(_, used)| use_arguments(used)).collect::<Vec<_>>()).ignore();
        }
        pipeline.exec_async(&mut self.connection.clone()).await
    }

    async fn set_bar(&self, owner: &OwnerId, command: &str) -> Result<(), RedisError> {
        let mut script = scripts::BAR.key(self.keys.barred());
        script.key(self.keys.changes()).key(self.keys.change_count());
        script.arg(owner.as_str()).arg(CHANGES_KEPT).arg(command);
        script.invoke_async(&mut self.connection.clone()).await
    }

    /// Forgets records that did not change since they were read.
    async fn forget(&self, records: &[TokenRecord]) -> Result<u64, RedisError> {
        let mut script = scripts::FORGET.key(self.keys.ids());
        script.arg(self.keys.token("")).arg(self.keys.owner(""));
        for record in records {
            script.arg(record.id().as_str()).arg(record.revision().number());
        }
        if records.is_empty() { Ok(0) } else { script.invoke_async(&mut self.connection.clone()).await }
    }
}

fn read_row(id: &str, barred: bool, fields: Fields) -> Result<(TokenId, Option<TokenRecord>), StoreError> {
    let id = id.parse().map_err(StoreError::new)?;
    if fields.is_empty() {
        tracing::warn!(%id, "a token is listed and not there: has Redis evicted keys?");
        return Ok((id, None));
    }
    decode(id, fields, barred).map(|record| (id, Some(record)))
}
