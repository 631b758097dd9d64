//! A record as the columns of a row, and back.

use std::error::Error as StdError;
use std::str::FromStr;

use sqlx::{ColumnIndex, Decode, Row, Type};

use super::error::{Of, Unreadable};
use super::statement::Value;
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{Label, OwnerId, TokenId};
use crate::secret::SecretHash;
use crate::text;
use crate::token::{Attributes, LastUsed, RetiringSecret, Revision, TokenRecord};

pub(super) type Cause = Box<dyn StdError + Send + Sync>;

/// The columns that a change may change, in the order of [`values`].
pub(super) const CHANGING: [&str; 15] = [
    "owner",
    "created_by",
    "created_at",
    "on_behalf_right",
    "label",
    "scope",
    "expires_at",
    "state",
    "revoked_at",
    "revision",
    "secret",
    "retiring_secret",
    "retiring_until",
    "successor_used",
    "attributes",
];

/// The columns that tell of the last use, in the order of [`use_values`].
pub(super) const USE: [&str; 4] = ["used_at", "used_from", "used_agent", "wrote_at"];

/// What stands in [`CHANGING`].
pub(super) fn values(record: &TokenRecord) -> Result<[Value; CHANGING.len()], StoreError> {
    let retiring = record.retiring();
    let revision = i64::try_from(record.revision().number()).map_err(StoreError::new)?;
    Ok([
        Value::text(record.owner().as_str()),
        Value::text(record.created_by().to_string()),
        Value::time(record.created_at()),
        Value::Flag(record.made_on_behalf_right()),
        Value::text(record.label().as_str()),
        Value::text(record.scope().as_str()),
        Value::Number(record.expires_at().map(millis)),
        Value::text(record.state().as_str()),
        Value::Number(record.revoked_at().map(millis)),
        Value::Number(Some(revision)),
        Value::text(record.secret().to_text()),
        Value::Text(retiring.map(|old| old.secret().to_text())),
        Value::Number(retiring.map(|old| millis(old.until()))),
        Value::Flag(retiring.is_some_and(RetiringSecret::successor_used)),
        Value::text(written(record.attributes())),
    ])
}

/// What stands in [`USE`].
pub(super) fn use_values(used: Option<&LastUsed>) -> [Value; USE.len()] {
    [
        Value::Number(used.map(|used| millis(used.at))),
        Value::Text(used.and_then(address)),
        Value::Text(used.and_then(agent)),
        Value::Number(used.and_then(|used| used.last_write).map(millis)),
    ]
}

/// The address as text.
pub(super) fn address(used: &LastUsed) -> Option<String> {
    used.client_address.map(|address| address.to_string())
}

/// The user agent, cleaned: one NUL in it, and PostgreSQL would refuse the whole batch.
pub(super) fn agent(used: &LastUsed) -> Option<String> {
    let clean = |agent: &String| text::clean(agent.as_bytes(), AuditEvent::MAX_USER_AGENT_LEN).into_owned();
    used.user_agent.as_ref().map(clean)
}

/// Milliseconds since 1970. They always fit: the last timestamp has 48 bits.
pub(super) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.unix_millis()).unwrap_or(i64::MAX)
}

/// One `name<TAB>value` a line: neither may hold a control character.
fn written(attributes: &Attributes) -> String {
    let lines: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}\t{value}")).collect();
    lines.join("\n")
}

fn read_attributes(text: &str) -> Result<Attributes, Cause> {
    let lines: Option<Vec<_>> = text.split_terminator('\n').map(|line| line.split_once('\t')).collect();
    Ok(Attributes::new(lines.ok_or("a line without a tab")?)?)
}

pub(super) fn read_time(number: i64) -> Result<Timestamp, Cause> {
    let millis = u64::try_from(number)?;
    let time = Timestamp::from_unix_millis(millis);
    if time.unix_millis() == millis { Ok(time) } else { Err("a time after the year 9999".into()) }
}

fn read_hash(text: String) -> Result<SecretHash, Cause> {
    Ok(SecretHash::parse(&text)?)
}

pub(super) fn read<T: FromStr<Err: Into<Cause>>>(text: String) -> Result<T, Cause> {
    text.parse().map_err(Into::into)
}

/// A row whose columns are read by name. What is not there, of another type or of unknown meaning is an error, never
/// a guess.
pub(super) struct Columns<'a, R> {
    row: &'a R,
    of: Of,
}

impl<'a, R> Columns<'a, R> {
    pub(super) const fn of_token(row: &'a R, id: Option<TokenId>) -> Self {
        Self { row, of: Of::Token(id) }
    }

    pub(super) const fn of_event(row: &'a R, seq: Option<i64>) -> Self {
        Self { row, of: Of::Event(seq) }
    }
}

impl<R: Row> Columns<'_, R>
where
    for<'a> &'a str: ColumnIndex<R>,
{
    pub(super) fn required<'r, S: Decode<'r, R::Database> + Type<R::Database>, T>(
        &'r self,
        column: &'static str,
        read: impl FnOnce(S) -> Result<T, Cause>,
    ) -> Result<T, StoreError> {
        let null = || self.unreadable(column, "nothing is stored".into());
        self.optional(column, read)?.ok_or_else(null)
    }

    pub(super) fn optional<'r, S: Decode<'r, R::Database> + Type<R::Database>, T>(
        &'r self,
        column: &'static str,
        read: impl FnOnce(S) -> Result<T, Cause>,
    ) -> Result<Option<T>, StoreError> {
        // Always as an `Option`: without, the driver of SQLite reads NULL as 0 or as an empty text.
        let stored = self.row.try_get::<Option<S>, _>(column).map_err(Cause::from);
        stored.and_then(|stored| stored.map(read).transpose()).map_err(|cause| self.unreadable(column, cause))
    }

    fn unreadable(&self, column: &'static str, cause: Cause) -> StoreError {
        StoreError::new(Unreadable { of: self.of, column, cause })
    }
}

/// The record in a row.
pub(super) fn record<R: Row>(row: &R) -> Result<TokenRecord, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
{
    let id = Columns::of_token(row, None).required("id", read::<TokenId>)?;
    let row = Columns::of_token(row, Some(id));
    let record = TokenRecord::new(
        id,
        row.required("owner", read::<OwnerId>)?,
        row.required("label", read::<Label>)?,
        row.required("scope", read)?,
        row.required("secret", read_hash)?,
        row.required("created_at", read_time)?,
    );
    Ok(record
        .with_created_by(row.required("created_by", read)?)
        .with_made_on_behalf_right(row.required("on_behalf_right", Ok)?)
        .with_expiry(row.optional("expires_at", read_time)?)
        .with_state(row.required("state", read)?)
        .with_revoked_at(row.optional("revoked_at", read_time)?)
        .with_owner_barred(row.required("owner_barred", Ok)?)
        .with_revision(row.required("revision", |number: i64| Ok(Revision::new(u64::try_from(number)?)))?)
        .with_retiring(retiring(&row)?)
        .with_attributes(row.required("attributes", |text: String| read_attributes(&text))?)
        .with_last_used(last_used(&row)?))
}

fn retiring<R: Row>(row: &Columns<'_, R>) -> Result<Option<RetiringSecret>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
{
    let Some(secret) = row.optional("retiring_secret", read_hash)? else { return Ok(None) };
    let until = row.required("retiring_until", read_time)?;
    let successor_used = row.required("successor_used", Ok)?;
    Ok(Some(RetiringSecret::new(secret, until).with_successor_used(successor_used)))
}

fn last_used<R: Row>(row: &Columns<'_, R>) -> Result<Option<LastUsed>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let Some(at) = row.optional("used_at", read_time)? else { return Ok(None) };
    Ok(Some(
        LastUsed::new(at)
            .with_client_address(row.optional("used_from", read)?)
            .with_user_agent(row.optional("used_agent", Ok)?)
            .with_last_write(row.optional("wrote_at", read_time)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_a_round_trip() {
        let full: Vec<_> = (0..16).map(|at| (format!("{at}={}", "n".repeat(60)), "v\"'\\=é".repeat(32))).collect();
        for attributes in
            [Attributes::default(), Attributes::new([("a", "b")]).unwrap(), Attributes::new(full).unwrap()]
        {
            assert_eq!(read_attributes(&written(&attributes)).unwrap(), attributes);
        }
        for wrong in ["a", "a\tb\nc", "a\tb\na\tc", "\tb", "a\t", "a\tb\n\n"] {
            assert!(read_attributes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_never_guessed() {
        assert_eq!(read_time(millis(Timestamp::MAX)).unwrap(), Timestamp::MAX);
        assert!(read_time(millis(Timestamp::MAX) + 1).is_err());
        assert!(read_time(-1).is_err());
    }

    #[test]
    fn a_hostile_user_agent_is_cleaned() {
        let used = LastUsed::new(Timestamp::MAX).with_user_agent(Some("a\0b".repeat(1000)));
        let agent = agent(&used).unwrap();
        assert!(!agent.contains('\0') && agent.len() <= AuditEvent::MAX_USER_AGENT_LEN, "{agent:?}");
    }
}
