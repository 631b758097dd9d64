//! What to ask a history for, and what it answers.

use std::error::Error as StdError;
use std::fmt;

use crate::audit::{Action, AuditEvent, Outcome};
use crate::clock::Timestamp;
use crate::decision::{Reason, StoreError};
use crate::id::{OwnerId, TokenId};

/// Which events to look for. Lets everything through, unless narrowed.
///
/// # Example
/// ```
/// use tower_token_auth::{HistoryFilter, Outcome, OwnerId};
///
/// let filter = HistoryFilter::all().owner(OwnerId::new("alice")?).outcome(Outcome::Refused).page_size(20);
/// # Ok::<(), tower_token_auth::TextError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HistoryFilter {
    /// Only events about this token: proved, handled at the desk, or claimed.
    pub token: Option<TokenId>,
    /// Only events about tokens that were proved or handled, of this owner. A claim has no owner: it is found by its
    /// token.
    pub owner: Option<OwnerId>,
    /// Only events with this outcome.
    pub outcome: Option<Outcome>,
    /// Only events of this action.
    pub action: Option<Action>,
    /// Only events with this reason.
    pub reason: Option<Reason>,
    /// Only events at this instant or after it.
    pub since: Option<Timestamp>,
    /// Only events before this instant.
    pub before: Option<Timestamp>,
    /// The greatest number of events on a page, at least 1.
    pub page_size: usize,
}

impl HistoryFilter {
    /// Lets everything through, 100 events a page.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            token: None,
            owner: None,
            outcome: None,
            action: None,
            reason: None,
            since: None,
            before: None,
            page_size: 100,
        }
    }

    /// Only events about this token: proved, handled at the desk, or claimed.
    #[must_use]
    pub fn token(self, token: TokenId) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Only events about tokens that were proved or handled, of this owner.
    #[must_use]
    pub fn owner(self, owner: OwnerId) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Only events with this outcome.
    #[must_use]
    pub fn outcome(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    /// Only events of this action.
    #[must_use]
    pub fn action(self, action: Action) -> Self {
        Self { action: Some(action), ..self }
    }

    /// Only events with this reason.
    #[must_use]
    pub fn reason(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// Only events at this instant or after it.
    #[must_use]
    pub fn since(self, time: Timestamp) -> Self {
        Self { since: Some(time), ..self }
    }

    /// Only events before this instant.
    #[must_use]
    pub fn before(self, time: Timestamp) -> Self {
        Self { before: Some(time), ..self }
    }

    /// At most this many events a page; 0 counts as 1.
    #[must_use]
    pub fn page_size(self, page_size: usize) -> Self {
        Self { page_size: page_size.max(1), ..self }
    }

    /// Whether an event is let through, for histories that filter by hand.
    #[must_use]
    pub fn matches(&self, event: &AuditEvent<'_>) -> bool {
        let about = |token| event.token_id() == Some(token) || event.claimed_id() == Some(token);
        self.token.is_none_or(about)
            && self.owner.as_ref().is_none_or(|owner| event.owner() == Some(owner))
            && self.outcome.is_none_or(|outcome| outcome == event.outcome())
            && self.action.is_none_or(|action| action == event.action())
            && self.reason.as_ref().is_none_or(|reason| event.reason().as_ref() == Some(reason))
            && self.since.is_none_or(|since| since <= event.at())
            && self.before.is_none_or(|before| event.at() < before)
    }
}

impl Default for HistoryFilter {
    fn default() -> Self {
        Self::all()
    }
}

/// Where a listing goes on. One of events can be read only by the history that made it; its text may travel through a
/// client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryCursor(String);

impl HistoryCursor {
    /// A cursor with a history's own text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The history's own text: ASCII letters, digits and hyphens.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of events, the newest first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HistoryPage {
    /// The events, at most [`HistoryFilter::page_size`].
    pub events: Vec<AuditEvent<'static>>,
    /// Where the listing goes on, `None` at its end.
    pub next: Option<HistoryCursor>,
    /// How many events have their place on this page and cannot be shown: a later release wrote them into the database, in
    /// words that this one does not know. None, of a history in memory.
    pub unreadable: u64,
}

impl HistoryPage {
    /// A page and where the listing goes on.
    #[must_use]
    pub const fn new(events: Vec<AuditEvent<'static>>, next: Option<HistoryCursor>) -> Self {
        Self { events, next, unreadable: 0 }
    }

    /// The page, with so many events that cannot be shown.
    #[must_use]
    pub fn with_unreadable(self, unreadable: u64) -> Self {
        Self { unreadable, ..self }
    }
}

/// A history cannot answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum HistoryError {
    /// The cursor is not one of this history's: it was changed, or, of a history in memory, the process has started anew
    /// since.
    Cursor,
    /// The database cannot answer. Never of a history in memory.
    Store(StoreError),
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cursor => f.write_str("the cursor is not one of this history's"),
            Self::Store(_) => f.write_str("the history cannot be read"),
        }
    }
}

impl StdError for HistoryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Cursor => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for HistoryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
