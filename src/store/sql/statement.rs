//! SQL text and what is bound to it.

use std::sync::Arc;

use super::names::Names;
use super::row::{CHANGING, USE, millis, use_values, values};
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{Cursor, TokenFilter};
use crate::token::{Revision, TokenRecord};

/// A value for a placeholder. Not `Debug`: it may be a hash.
pub(super) enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Flag(bool),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }

    pub(super) fn time(time: Timestamp) -> Self {
        Self::Number(Some(millis(time)))
    }
}

/// SQL with placeholders `$1`, `$2` … and a value for each.
pub(super) struct Statement {
    pub(super) sql: Arc<str>,
    pub(super) values: Vec<Value>,
}

/// What both databases are asked, in words that both understand.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) find: Arc<str>,
    insert: Arc<str>,
    update: Arc<str>,
    /// What a listing begins with.
    select: Box<str>,
    bar: Arc<str>,
    lift: Arc<str>,
    prune: Arc<str>,
    /// Merges last uses with those that are known, as `LastUsed::merged`; each database has its own way.
    pub(super) touch: Arc<str>,
}

impl Statements {
    pub(super) fn new(names: &Names, touch: &str) -> Self {
        let columns = ["id"].into_iter().chain(CHANGING).chain(USE);
        let select = format!(
            "SELECT {}, EXISTS (SELECT 1 FROM public.tta_barred_owners b WHERE b.owner = t.owner) AS owner_barred \
             FROM public.tta_tokens t WHERE ",
            columns.clone().collect::<Vec<_>>().join(", ")
        );
        let places: Vec<_> = (1..).zip(columns.clone()).map(|(at, _)| format!("${at}")).collect();
        let insert = format!(
            "INSERT INTO public.tta_tokens ({}) VALUES ({}) ON CONFLICT (id) DO NOTHING",
            columns.collect::<Vec<_>>().join(", "),
            places.join(", ")
        );
        let settings: Vec<_> = (3..).zip(CHANGING).map(|(at, column)| format!("{column} = ${at}")).collect();
        let update = format!("UPDATE public.tta_tokens SET {} WHERE id = $1 AND revision = $2", settings.join(", "));
        let named = |sql: &str| names.rename(sql);
        Self {
            find: named(&format!("{select}id = $1")).into(),
            insert: named(&insert).into(),
            update: named(&update).into(),
            select: named(&select).into(),
            bar: named("INSERT INTO public.tta_barred_owners (owner) VALUES ($1) ON CONFLICT (owner) DO NOTHING")
                .into(),
            lift: named("DELETE FROM public.tta_barred_owners WHERE owner = $1").into(),
            touch: named(touch).into(),
            // As `TokenRecord::was_dead_before`.
            prune: named(
                "DELETE FROM public.tta_tokens WHERE expires_at < $1 OR (state = 'revoked' AND revoked_at < $1)",
            )
            .into(),
        }
    }

    pub(super) fn find(&self, id: &TokenId) -> Statement {
        Statement { sql: self.find.clone(), values: vec![Value::text(id.as_str())] }
    }

    pub(super) fn insert(&self, record: &TokenRecord) -> Result<Statement, StoreError> {
        let id = [Value::text(record.id().as_str())];
        let values = id.into_iter().chain(values(record)?).chain(use_values(record.last_used())).collect();
        Ok(Statement { sql: self.insert.clone(), values })
    }

    /// Puts a record in the place of its revision `expected`. When it was last used is left alone.
    pub(super) fn update(&self, record: &TokenRecord, expected: Revision) -> Result<Statement, StoreError> {
        let expected = i64::try_from(expected.number()).map_err(StoreError::new)?;
        let key = [Value::text(record.id().as_str()), Value::Number(Some(expected))];
        Ok(Statement { sql: self.update.clone(), values: key.into_iter().chain(values(record)?).collect() })
    }

    /// A page and one record more, by id. As `TokenFilter::matches`.
    pub(super) fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<Statement, StoreError> {
        let after = match cursor {
            Some(cursor) => cursor.as_str().parse::<TokenId>().map_err(StoreError::new)?.to_string(),
            // Every id is greater.
            None => String::new(),
        };
        let mut list = Conditions::new(&self.select);
        list.and("id > ", Some(Value::text(after)));
        let text = |text: &str| Value::text(text);
        list.and(" AND owner = ", filter.owner.as_ref().map(|owner| text(owner.as_str())));
        list.and(" AND scope = ", filter.scope.map(|scope| text(scope.as_str())));
        list.and(" AND state = ", filter.state.map(|state| text(state.as_str())));
        list.and(" AND created_by = ", filter.created_by.as_ref().map(|by| Value::text(by.to_string())));
        list.and(" AND created_at < ", filter.created_before.map(Value::time));
        list.and(" AND expires_at < ", filter.expires_before.map(Value::time));
        list.and(" AND created_at < ", filter.unused_since.map(Value::time));
        list.and(" AND coalesce(used_at, 0) < ", filter.unused_since.map(Value::time));
        if filter.live_at.is_some() {
            list.push(" AND state <> 'revoked'");
        }
        list.and(&format!(" AND coalesce(expires_at, {AFTER_ALL}) > "), filter.live_at.map(Value::time));
        if filter.never_wrote {
            list.push(" AND wrote_at IS NULL");
        }
        let limit = i64::try_from(filter.page_size.max(1).saturating_add(1)).unwrap_or(i64::MAX);
        list.and(" ORDER BY id LIMIT ", Some(Value::Number(Some(limit))));
        Ok(Statement { sql: list.sql.into(), values: list.values })
    }

    pub(super) fn bar(&self, owner: &OwnerId) -> Statement {
        Statement { sql: self.bar.clone(), values: vec![Value::text(owner.as_str())] }
    }

    pub(super) fn lift(&self, owner: &OwnerId) -> Statement {
        Statement { sql: self.lift.clone(), values: vec![Value::text(owner.as_str())] }
    }

    pub(super) fn prune(&self, time: Timestamp) -> Statement {
        Statement { sql: self.prune.clone(), values: vec![Value::time(time)] }
    }
}

/// Later than every timestamp, in milliseconds: when a token ends that does not.
const AFTER_ALL: u64 = Timestamp::MAX.unix_millis() + 1;

/// A statement that grows by a condition at a time.
pub(super) struct Conditions {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Conditions {
    pub(super) fn new(select: &str) -> Self {
        Self { sql: select.to_owned(), values: Vec::new() }
    }

    pub(super) fn and(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.values.push(value);
            self.sql.push_str(&format!("{condition}${}", self.values.len()));
        }
    }

    pub(super) fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }
}
