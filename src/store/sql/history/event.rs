//! An event as the columns of a row, and back.

use std::borrow::Cow;
use std::net::IpAddr;

use sqlx::{ColumnIndex, Decode, Row, Type};

use super::words;
use crate::audit::{AuditEvent, Edit, Repeated, RequestFacts, Subject};
use crate::decision::{AuthenticatedToken, Remembered, StoreError};
use crate::store::sql::row::{Cause, Columns, millis, read, read_time};
use crate::store::sql::statement::Value;
use crate::token::CreatedBy;

/// What is stored of an event, in the order of [`values`].
pub(super) const COLUMNS: [&str; 28] = [
    "version",
    "at",
    "first_at",
    "count",
    "action",
    "outcome",
    "reason",
    "refusal",
    "subject",
    "anonymous",
    "token",
    "owner",
    "label",
    "scope",
    "issued_scope",
    "expires_at",
    "retires_at",
    "secret",
    "access",
    "method",
    "path",
    "route",
    "user_agent",
    "client_address",
    "request_id",
    "actor",
    "edit_before",
    "edit_after",
];

/// What stands in [`COLUMNS`].
pub(super) fn values(event: &AuditEvent<'_>) -> [Value; COLUMNS.len()] {
    let text = |text: Option<&str>| Value::Text(text.map(str::to_owned));
    let (proved, repeated) = (event.proved(), event.repeated);
    let issued = proved.filter(|token| token.issued_scope() != token.scope()).map(AuthenticatedToken::issued_scope);
    [
        Value::Number(Some(i64::from(AuditEvent::VERSION))),
        Value::time(event.at()),
        Value::Number(repeated.map(|of| millis(of.first_at))),
        Value::Number(repeated.map(|of| number(of.count))),
        text(Some(event.action().as_str())),
        text(Some(event.outcome().as_str())),
        text(event.reason().map(|reason| reason.as_str())),
        Value::Text(event.reason().and_then(words::refusal)),
        text(Some(subject_word(&event.subject))),
        Value::Flag(event.is_anonymous()),
        Value::Text(event.token_id().or_else(|| event.claimed_id()).map(|id| id.to_string())),
        text(event.owner().map(|owner| owner.as_str())),
        text(event.label().map(|label| label.as_str())),
        text(event.scope().map(|scope| scope.as_str())),
        text(issued.map(|scope| scope.as_str())),
        Value::Number(proved.and_then(AuthenticatedToken::expires_at).map(millis)),
        Value::Number(proved.and_then(AuthenticatedToken::retires_at).map(millis)),
        text(event.secret_slot().map(|slot| slot.as_str())),
        text(event.access().map(|access| access.as_str())),
        text(event.method()),
        text(event.path()),
        text(event.route()),
        text(event.user_agent()),
        Value::Text(event.client_address().map(|address| address.to_string())),
        text(event.request_id()),
        Value::Text(event.actor().map(ToString::to_string)),
        text(event.before()),
        text(event.after()),
    ]
}

/// As a number of SQL, which has one bit less.
pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const fn subject_word(subject: &Subject<'_>) -> &'static str {
    match subject {
        Subject::Nobody => "nobody",
        Subject::Claimed(_) => "claimed",
        Subject::Proved(_) => "proved",
        Subject::Handled { .. } => "handled",
    }
}

/// An event and where it stands.
pub(in crate::store::sql) struct Stored {
    pub(super) at: i64,
    pub(super) seq: i64,
    pub(super) event: Result<AuditEvent<'static>, StoreError>,
}

/// What is read of rows, whichever database they are of.
pub(in crate::store::sql) fn stored<R: Row>(row: &R) -> Result<Stored, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let (at, seq) = {
        let row = Columns::of_event(row, None);
        (row.required("at", Ok::<i64, Cause>)?, row.required("seq", Ok::<i64, Cause>)?)
    };
    Ok(Stored { at, seq, event: event(&Columns::of_event(row, Some(seq))) })
}

fn event<R: Row>(row: &Columns<'_, R>) -> Result<AuditEvent<'static>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    row.required("version", version)?;
    let refusal = row.optional("refusal", text)?;
    let reason = |word: String| known(words::reason(&word, refusal.as_deref()));
    Ok(AuditEvent {
        at: row.required("at", read_time)?,
        repeated: repeated(row)?,
        action: row.required("action", |word: String| known(words::action(&word)))?,
        outcome: row.required("outcome", |word: String| known(words::outcome(&word)))?,
        reason: row.optional("reason", reason)?,
        subject: subject(row)?,
        access: row.optional("access", |word: String| known(words::access(&word)))?,
        request: request(row)?,
        actor: row.optional("actor", read::<CreatedBy>)?.map(Cow::Owned),
        edit: edit(row)?,
    })
}

fn known<T>(word: Option<T>) -> Result<T, Cause> {
    word.ok_or_else(|| "a word that this release does not know".into())
}

/// Fields of a later version may mean something else.
fn version(number: i64) -> Result<(), Cause> {
    let known = (1..=i64::from(AuditEvent::VERSION)).contains(&number);
    if known { Ok(()) } else { Err("a version that this release does not know".into()) }
}

fn text(text: String) -> Result<String, Cause> {
    Ok(text)
}

fn count(number: i64) -> Result<u64, Cause> {
    Ok(u64::try_from(number)?)
}

fn repeated<R: Row>(row: &Columns<'_, R>) -> Result<Option<Repeated>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let Some(count) = row.optional("count", count)? else { return Ok(None) };
    Ok(Some(Repeated { count, first_at: row.required("first_at", read_time)? }))
}

fn subject<R: Row>(row: &Columns<'_, R>) -> Result<Subject<'static>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let word = row.required("subject", text)?;
    Ok(match &*word {
        "nobody" => Subject::Nobody,
        "claimed" => Subject::Claimed(row.required("token", read)?),
        "proved" => Subject::Proved(Cow::Owned(proved(row)?)),
        "handled" => Subject::Handled {
            id: row.optional("token", read)?,
            owner: row.optional("owner", read)?.map(Cow::Owned),
            label: row.optional("label", read)?.map(Cow::Owned),
            scope: row.optional("scope", read)?,
        },
        _ => row.required("subject", |_: String| known(None))?,
    })
}

fn proved<R: Row>(row: &Columns<'_, R>) -> Result<AuthenticatedToken, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let (scope, issued) = (row.required("scope", read)?, row.optional("issued_scope", read)?);
    Ok(AuthenticatedToken::remembered(Remembered {
        id: row.required("token", read)?,
        owner: row.required("owner", read)?,
        label: row.required("label", read)?,
        scope: issued.unwrap_or(scope),
        narrowed: issued.is_some(),
        expires_at: row.optional("expires_at", read_time)?,
        retires_at: row.optional("retires_at", read_time)?,
        slot: row.required("secret", |word: String| known(words::slot(&word)))?,
    }))
}

fn request<R: Row>(row: &Columns<'_, R>) -> Result<Option<RequestFacts<'static>>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let Some(method) = row.optional("method", text)? else { return Ok(None) };
    let owned = |column| row.optional(column, text).map(|text| text.map(Cow::Owned));
    Ok(Some(RequestFacts {
        method: Cow::Owned(method),
        path: Cow::Owned(row.required("path", text)?),
        route: owned("route")?,
        user_agent: owned("user_agent")?,
        client_address: row.optional("client_address", read::<IpAddr>)?,
        request_id: owned("request_id")?,
    }))
}

fn edit<R: Row>(row: &Columns<'_, R>) -> Result<Option<Edit>, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let Some(before) = row.optional("edit_before", text)? else { return Ok(None) };
    Ok(Some(Edit { before: Cow::Owned(before), after: Cow::Owned(row.required("edit_after", text)?) }))
}
