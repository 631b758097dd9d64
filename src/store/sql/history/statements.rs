//! What a history asks a database, in words that both understand.

use super::event::{COLUMNS, number, values};
use super::seen::{Placed, Seen, Token, agent};
use super::words;
use crate::audit::{Action, ApplicationFilter, AuditEvent, HistoryCursor, HistoryError, HistoryFilter, Outcome};
use crate::clock::Timestamp;
use crate::id::TokenId;
use crate::store::sql::names::Names;
use crate::store::sql::row::millis;
use crate::store::sql::statement::{Conditions, Statement, Value};

/// How many rows a statement writes at most. Statements are of a power of two, so that few have to be prepared.
const ROWS: usize = 32;
/// How many rows are forgotten at once: others write in between.
pub(super) const CHUNK: u64 = 5_000;

const SEEN: [&str; 5] = ["token", "owner", "label", "last_at", "unproved"];
const APPLICATIONS: [&str; 8] =
    ["token", "place", "agent", "first_at", "last_at", "allowed", "forbidden", "would_forbid"];

/// Counters are merged with what others have counted meanwhile, and never set.
const MERGE_SEEN: &str = " ON CONFLICT (token) DO UPDATE SET
    owner = CASE WHEN excluded.last_at >= t.last_at THEN excluded.owner ELSE t.owner END,
    label = CASE WHEN excluded.last_at >= t.last_at THEN excluded.label ELSE t.label END,
    last_at = CASE WHEN excluded.last_at >= t.last_at THEN excluded.last_at ELSE t.last_at END,
    unproved = t.unproved + excluded.unproved";
const MERGE_APPLICATIONS: &str = " ON CONFLICT (token, place) DO UPDATE SET
    first_at = CASE WHEN excluded.first_at < t.first_at THEN excluded.first_at ELSE t.first_at END,
    last_at = CASE WHEN excluded.last_at > t.last_at THEN excluded.last_at ELSE t.last_at END,
    allowed = t.allowed + excluded.allowed,
    forbidden = t.forbidden + excluded.forbidden,
    would_forbid = t.would_forbid + excluded.would_forbid";

/// Does nothing where the batch was written before: its answer was lost then.
const BEGIN_BATCH: &str = "INSERT INTO public.tta_history_writers AS t (writer, batch, written_at) VALUES ($1, $2, $3)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
    WHERE t.batch < excluded.batch";

/// What callers cause: requests, and what sinks report of them.
const NO_ACTS: &str = "('authenticate', 'report_threshold', 'report_loss')";

/// Which batch of which writer.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::sql) struct BatchKey {
    pub(super) writer: TokenId,
    pub(super) number: u64,
    pub(super) at: Timestamp,
}

/// What to forget.
#[derive(Debug, Clone, Copy)]
pub(super) enum Forget {
    Noise,
    Requests,
    Acts,
    Applications,
    Tokens,
    Writers,
}

#[derive(Debug)]
pub(in crate::store::sql) struct HistoryStatements(Names);

impl HistoryStatements {
    pub(in crate::store::sql) const fn new(names: Names) -> Self {
        Self(names)
    }

    fn statement(&self, sql: &str, values: Vec<Value>) -> Statement {
        Statement { sql: self.0.rename(sql).into(), values }
    }

    pub(super) fn begin(&self, key: BatchKey) -> Statement {
        let values =
            vec![Value::text(key.writer.as_str()), Value::Number(Some(number(key.number))), Value::time(key.at)];
        self.statement(BEGIN_BATCH, values)
    }

    pub(super) fn events<'e>(&self, events: impl IntoIterator<Item = &'e AuditEvent<'e>>) -> Vec<Statement> {
        let rows = events.into_iter().map(|event| values(event).into()).collect();
        self.insert("events", &COLUMNS, rows, "")
    }

    pub(super) fn tokens(&self, seen: &Seen) -> Vec<Statement> {
        let row = |(id, token): (&TokenId, &Token)| {
            vec![
                Value::text(id.as_str()),
                Value::text(token.owner.as_str()),
                Value::text(token.label.as_str()),
                Value::time(token.last_at),
                Value::Number(Some(0)),
            ]
        };
        self.insert("seen_tokens", &SEEN, seen.tokens.iter().map(row).collect(), MERGE_SEEN)
    }

    /// The places that these tokens' applications have.
    pub(super) fn places(&self, seen: &Seen) -> Vec<Statement> {
        let ids: Vec<_> = seen.tokens.keys().collect();
        let select = |ids: &[&TokenId]| {
            let sql = format!(
                "SELECT token, place, agent FROM public.tta_seen_applications WHERE token IN ({})",
                placeholders(0, ids.len())
            );
            self.statement(&sql, ids.iter().map(|id| Value::text(id.as_str())).collect())
        };
        split(ids).iter().map(|ids| select(ids)).collect()
    }

    pub(super) fn applications(&self, placed: Vec<(TokenId, Placed)>) -> Vec<Statement> {
        let row = |(id, (place, application)): (TokenId, Placed)| {
            vec![
                Value::text(id.as_str()),
                Value::Number(Some(place)),
                Value::Text(agent(&application.user_agent)),
                Value::time(application.first_at),
                Value::time(application.last_at),
                Value::Number(Some(number(application.allowed))),
                Value::Number(Some(number(application.forbidden))),
                Value::Number(Some(number(application.would_forbid))),
            ]
        };
        let rows = placed.into_iter().map(row).collect();
        self.insert("seen_applications", &APPLICATIONS, rows, MERGE_APPLICATIONS)
    }

    /// Counts what was only claimed, of tokens that were proved.
    pub(super) fn claims(&self, seen: &Seen) -> Vec<Statement> {
        let claims: Vec<_> = seen.claims.iter().collect();
        let update = |claims: &[(&TokenId, &u64)]| {
            let sql = format!(
                "UPDATE public.tta_seen_tokens SET unproved = unproved + v.column2 FROM (VALUES {}) AS v \
                 WHERE token = v.column1",
                rows(2, claims.len())
            );
            let values =
                claims.iter().flat_map(|(id, count)| [Value::text(id.as_str()), Value::Number(Some(number(**count)))]);
            self.statement(&sql, values.collect())
        };
        split(claims).iter().map(|claims| update(claims)).collect()
    }

    fn insert(&self, table: &str, columns: &[&str], values: Vec<Vec<Value>>, merge: &str) -> Vec<Statement> {
        let statement = |values: Vec<Vec<Value>>| {
            let sql = format!(
                "INSERT INTO public.tta_{table} AS t ({}) VALUES {}{merge}",
                columns.join(", "),
                rows(columns.len(), values.len())
            );
            self.statement(&sql, values.into_iter().flatten().collect())
        };
        split(values).into_iter().map(statement).collect()
    }

    /// A page and one event more, the newest first. As `HistoryFilter::matches`.
    pub(super) fn list(
        &self,
        filter: &HistoryFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<Statement, HistoryError> {
        let mut list =
            Conditions::new(&format!("SELECT seq, {} FROM public.tta_events WHERE TRUE", COLUMNS.join(", ")));
        if let Some(cursor) = cursor {
            let (at, seq) = position(cursor)?;
            list.and(" AND (at, seq) < (", Some(Value::Number(Some(at))));
            list.and(", ", Some(Value::Number(Some(seq))));
            list.push(")");
        }
        let text = |text: &str| Value::text(text);
        list.and(" AND token = ", filter.token.map(|token| text(token.as_str())));
        list.and(" AND owner = ", filter.owner.as_ref().map(|owner| text(owner.as_str())));
        list.and(" AND outcome = ", filter.outcome.map(|outcome| text(outcome.as_str())));
        list.and(" AND action = ", filter.action.map(|action| text(action.as_str())));
        list.and(" AND reason = ", filter.reason.map(|reason| text(reason.as_str())));
        list.and(" AND at >= ", filter.since.map(Value::time));
        list.and(" AND at < ", filter.before.map(Value::time));
        match filter.reason.map(words::refusal) {
            Some(Some(refusal)) => list.and(" AND refusal = ", Some(Value::text(refusal))),
            Some(None) => list.push(" AND refusal IS NULL"),
            None => {}
        }
        // For the indexes that leave out what most events are.
        if filter.outcome.is_some_and(|outcome| outcome != Outcome::Allowed) {
            list.push(" AND outcome <> 'allowed'");
        }
        if filter.action.is_some_and(|action| action != Action::Authenticate) {
            list.push(" AND action <> 'authenticate'");
        }
        list.push(" ORDER BY at DESC, seq DESC");
        list.and(" LIMIT ", Some(one_more_than(filter.page_size)));
        Ok(self.statement(&list.sql, list.values))
    }

    /// The applications of a page of tokens, and of one token more. As `ApplicationFilter::matches`.
    pub(super) fn seen(
        &self,
        filter: &ApplicationFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<Statement, HistoryError> {
        let after = cursor.map(|cursor| cursor.as_str().parse::<TokenId>());
        let after = after.transpose().map_err(|_| HistoryError::Cursor)?;
        let mut page = Conditions::new("SELECT * FROM public.tta_seen_tokens WHERE TRUE");
        page.and(" AND token > ", after.map(|after| Value::text(after.as_str())));
        page.and(" AND owner = ", filter.owner.as_ref().map(|owner| Value::text(owner.as_str())));
        page.and(" ORDER BY token LIMIT ", Some(one_more_than(filter.page_size)));
        Ok(self.with_applications(page))
    }

    pub(super) fn seen_of(&self, token: &TokenId) -> Statement {
        let mut one = Conditions::new("SELECT * FROM public.tta_seen_tokens WHERE TRUE");
        one.and(" AND token = ", Some(Value::text(token.as_str())));
        self.with_applications(one)
    }

    fn with_applications(&self, tokens: Conditions) -> Statement {
        let sql = format!(
            "SELECT t.token, t.owner, t.label, t.unproved, a.place, a.agent, a.first_at, a.last_at, a.allowed, \
             a.forbidden, a.would_forbid FROM ({}) t LEFT JOIN public.tta_seen_applications a ON a.token = t.token \
             ORDER BY t.token, a.place",
            tokens.sql
        );
        self.statement(&sql, tokens.values)
    }

    /// Forgets a chunk of what is older than this.
    pub(super) fn forget(&self, what: Forget, time: Timestamp) -> Statement {
        let events = |of: &str| {
            format!(
                "DELETE FROM public.tta_events WHERE seq IN \
                 (SELECT seq FROM public.tta_events WHERE {of} AND at < $1 ORDER BY at LIMIT {CHUNK})"
            )
        };
        let sql = match what {
            Forget::Noise => events("anonymous"),
            Forget::Requests => events(&format!("action IN {NO_ACTS}")),
            Forget::Acts => events(&format!("action NOT IN {NO_ACTS}")),
            Forget::Applications => format!(
                "DELETE FROM public.tta_seen_applications WHERE token IN \
                 (SELECT token FROM public.tta_seen_tokens WHERE last_at < $1 ORDER BY token LIMIT {CHUNK})"
            ),
            // One that has come back meanwhile has applications again.
            Forget::Tokens => "DELETE FROM public.tta_seen_tokens WHERE last_at < $1 AND NOT EXISTS \
                 (SELECT 1 FROM public.tta_seen_applications a WHERE a.token = tta_seen_tokens.token)"
                .to_owned(),
            Forget::Writers => "DELETE FROM public.tta_history_writers WHERE written_at < $1".to_owned(),
        };
        self.statement(&sql, vec![Value::Number(Some(millis(time)))])
    }
}

pub(super) fn cursor(at: i64, seq: i64) -> HistoryCursor {
    HistoryCursor::new(format!("at-{at}-{seq}"))
}

fn position(cursor: &HistoryCursor) -> Result<(i64, i64), HistoryError> {
    let numbers = cursor.as_str().strip_prefix("at-").and_then(|rest| rest.split_once('-'));
    let position = numbers.and_then(|(at, seq)| Some((at.parse().ok()?, seq.parse().ok()?)));
    position.filter(|(at, seq)| *cursor == self::cursor(*at, *seq)).ok_or(HistoryError::Cursor)
}

fn one_more_than(page_size: usize) -> Value {
    Value::Number(Some(i64::try_from(page_size.max(1).saturating_add(1)).unwrap_or(i64::MAX)))
}

/// Into parts of so many as a statement takes, each a power of two.
fn split<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    while !all.is_empty() {
        let largest = 1 << all.len().ilog2();
        let rest = all.split_off(largest.min(ROWS));
        parts.push(std::mem::replace(&mut all, rest));
    }
    parts
}

/// `($1, $2), ($3, $4)`
fn rows(columns: usize, rows: usize) -> String {
    let row = |row: usize| format!("({})", placeholders(row * columns, columns));
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `$3, $4`
fn placeholders(after: usize, count: usize) -> String {
    let places: Vec<_> = (after + 1..=after + count).map(|place| format!("${place}")).collect();
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_of_few_sizes() {
        for (all, parts) in [(0, vec![]), (1, vec![1]), (7, vec![4, 2, 1]), (104, vec![32, 32, 32, 8])] {
            let split = split((0..all).collect());
            assert_eq!(split.iter().map(Vec::len).collect::<Vec<_>>(), parts);
            assert_eq!(split.concat(), (0..all).collect::<Vec<_>>(), "in order");
        }
    }

    #[test]
    fn every_value_has_its_place() {
        assert_eq!(rows(2, 3), "($1, $2), ($3, $4), ($5, $6)");
    }

    #[test]
    fn only_own_cursors_are_read() {
        assert_eq!(position(&cursor(7, 9)).unwrap(), (7, 9));
        for wrong in ["", "at-", "at-7", "at-7-", "at-+7-9", "at-07-9", "at-7-9-1", "at-7-x", "0000000f-3", "at-7-9 "] {
            assert!(position(&HistoryCursor::new(wrong)).is_err(), "{wrong:?}");
        }
    }
}
