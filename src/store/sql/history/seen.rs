//! Which applications use which token: what a batch adds, and what is read back.

use std::collections::BTreeMap;

use sqlx::{ColumnIndex, Decode, Row, Type};

use crate::audit::{ApplicationSeen, AuditEvent, Outcome, TokenApplications, UserAgent};
use crate::clock::Timestamp;
use crate::decision::{AuthenticatedToken, StoreError};
use crate::id::{Label, OwnerId, TokenId};
use crate::store::sql::row::{Cause, Columns, read, read_time};

/// The place of all others.
const OTHERS: i64 = TokenApplications::MAX_AGENTS as i64;

/// What a batch tells of tokens.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) tokens: BTreeMap<TokenId, Token>,
    /// How often a token was only claimed.
    pub(super) claims: BTreeMap<TokenId, u64>,
}

pub(super) struct Token {
    pub(super) owner: OwnerId,
    pub(super) label: Label,
    pub(super) last_at: Timestamp,
    /// In the order in which they came.
    applications: Vec<ApplicationSeen>,
}

/// What stands in which place of a token.
pub(super) type Placed = (i64, ApplicationSeen);

/// A place that is taken, and by which agent.
pub(in crate::store::sql) struct Place {
    token: TokenId,
    place: i64,
    agent: Option<String>,
}

impl Seen {
    pub(super) fn of<'e>(events: impl IntoIterator<Item = &'e AuditEvent<'e>>) -> Self {
        let mut seen = Self::default();
        for event in events {
            if let Some(token) = event.proved() {
                let new = || Token::new(token, event.at());
                seen.tokens.entry(token.id()).or_insert_with(new).saw(token, event);
            } else if event.outcome() == Outcome::Refused && !event.action().is_report() {
                let claimed = event.claimed_id().map(|id| seen.claims.entry(id).or_default());
                claimed.into_iter().for_each(|count| *count += event.count());
            }
        }
        seen
    }

    /// Where each application stands: where it stood before, or in the first place that is free, or with all others.
    pub(super) fn placed(self, taken: Vec<Place>) -> Vec<(TokenId, Placed)> {
        let mut known = BTreeMap::<TokenId, Vec<(i64, Option<String>)>>::new();
        for Place { token, place, agent } in taken {
            known.entry(token).or_default().push((place, agent));
        }
        let place = |(id, token): (TokenId, Token)| {
            let placed = token.placed(known.remove(&id).unwrap_or_default());
            placed.into_values().map(move |placed| (id, placed))
        };
        self.tokens.into_iter().flat_map(place).collect()
    }
}

impl Token {
    fn new(token: &AuthenticatedToken, at: Timestamp) -> Self {
        let (owner, label) = (token.owner().clone(), token.label().clone());
        Self { owner, label, last_at: at, applications: Vec::new() }
    }

    fn saw(&mut self, token: &AuthenticatedToken, event: &AuditEvent<'_>) {
        if event.at() >= self.last_at {
            self.last_at = event.at();
            self.label = token.label().clone();
        }
        let known = self.applications.iter_mut().find(|known| known.user_agent.is(event.user_agent()));
        match known {
            Some(known) => known.count(event),
            None => {
                let mut new = ApplicationSeen::new(UserAgent::new(event.user_agent()), event.at());
                new.count(event);
                self.applications.push(new);
            }
        }
    }

    fn placed(self, mut taken: Vec<(i64, Option<String>)>) -> BTreeMap<i64, Placed> {
        let mut placed = BTreeMap::<i64, Placed>::new();
        for application in self.applications {
            let agent = agent(&application.user_agent);
            let known =
                taken.iter().find(|(place, known)| *place != OTHERS && *known == agent).map(|(place, _)| *place);
            let free = || (0..OTHERS).find(|free| taken.iter().all(|(place, _)| place != free));
            let place = known.or_else(free).unwrap_or(OTHERS);
            if known.is_none() && place != OTHERS {
                taken.push((place, agent));
            }
            match placed.get_mut(&place) {
                Some((_, others)) => others.merge(&application),
                None => drop(placed.insert(place, (place, application))),
            }
        }
        placed
    }
}

/// What is stored of a name.
pub(super) fn agent(agent: &UserAgent) -> Option<String> {
    match agent {
        UserAgent::Named(name) => Some(name.clone()),
        UserAgent::Unnamed | UserAgent::Other => None,
    }
}

fn count(number: i64) -> Result<u64, Cause> {
    Ok(u64::try_from(number)?)
}

pub(in crate::store::sql) fn place<R: Row>(row: &R) -> Result<Place, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let token = Columns::of_token(row, None).required("token", read::<TokenId>)?;
    let row = Columns::of_token(row, Some(token));
    Ok(Place { token, place: row.required("place", Ok)?, agent: row.optional("agent", Ok)? })
}

/// A token, and one of its applications.
pub(in crate::store::sql) struct SeenRow {
    token: TokenApplications,
    application: Option<ApplicationSeen>,
}

pub(in crate::store::sql) fn seen_row<R: Row>(row: &R) -> Result<SeenRow, StoreError>
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let id = Columns::of_token(row, None).required("token", read::<TokenId>)?;
    let row = Columns::of_token(row, Some(id));
    let mut token = TokenApplications::new(id, row.required("owner", read)?, row.required("label", read)?);
    token.unproved = row.required("unproved", count)?;
    let Some(place) = row.optional("place", Ok::<i64, Cause>)? else { return Ok(SeenRow { token, application: None }) };
    let agent = row.optional("agent", Ok::<String, Cause>)?;
    let agent = if place == OTHERS { UserAgent::Other } else { UserAgent::new(agent.as_deref()) };
    let mut application = ApplicationSeen::new(agent, row.required("first_at", read_time)?);
    application.last_at = row.required("last_at", read_time)?;
    application.allowed = row.required("allowed", count)?;
    application.forbidden = row.required("forbidden", count)?;
    application.would_forbid = row.required("would_forbid", count)?;
    Ok(SeenRow { token, application: Some(application) })
}

/// The tokens of rows that are in their order.
pub(super) fn grouped(rows: Vec<SeenRow>) -> Vec<TokenApplications> {
    let mut tokens = Vec::<TokenApplications>::new();
    for SeenRow { token, application } in rows {
        if tokens.last().is_none_or(|last| last.token != token.token) {
            tokens.push(token);
        }
        if let Some(last) = tokens.last_mut() {
            last.applications.extend(application);
        }
    }
    tokens
}
