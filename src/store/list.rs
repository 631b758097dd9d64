//! Listing: filters, pages and cursors.

use crate::clock::Timestamp;
use crate::id::OwnerId;
use crate::scope::Scope;
use crate::token::{CreatedBy, TokenRecord, TokenState};

/// Which tokens to list. Lets everything through, unless narrowed.
///
/// # Example
/// ```
/// use tower_token_auth::{OwnerId, Scope, TokenFilter};
///
/// let filter = TokenFilter::all().owner(OwnerId::new("alice")?).scope(Scope::ReadWrite);
/// # Ok::<(), tower_token_auth::TextError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenFilter {
    /// Only tokens of this owner.
    pub owner: Option<OwnerId>,
    /// Only tokens of this scope.
    pub scope: Option<Scope>,
    /// Only tokens in this state.
    pub state: Option<TokenState>,
    /// Only tokens that this user, token or system made.
    pub created_by: Option<CreatedBy>,
    /// Only tokens made before this instant.
    pub created_before: Option<Timestamp>,
    /// Only tokens that expire, and before this instant; those that have expired count.
    pub expires_before: Option<Timestamp>,
    /// Only tokens neither made nor used at this instant or after it.
    pub unused_since: Option<Timestamp>,
    /// Only tokens of which no write is known.
    pub never_wrote: bool,
    /// Only tokens that were neither revoked nor expired at this instant: those that work, or could if they were resumed or
    /// their owner lifted.
    pub live_at: Option<Timestamp>,
    /// The greatest number of records on a page; 0 counts as 1.
    pub page_size: usize,
}

impl TokenFilter {
    /// Lets everything through, 100 records a page.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            owner: None,
            scope: None,
            state: None,
            created_by: None,
            created_before: None,
            expires_before: None,
            unused_since: None,
            never_wrote: false,
            live_at: None,
            page_size: 100,
        }
    }

    /// Only tokens of this owner.
    #[must_use]
    pub fn owner(self, owner: OwnerId) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Only tokens of this scope.
    #[must_use]
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Only tokens in this state.
    #[must_use]
    pub fn state(self, state: TokenState) -> Self {
        Self { state: Some(state), ..self }
    }

    /// Only tokens that this user, token or system made.
    #[must_use]
    pub fn created_by(self, creator: CreatedBy) -> Self {
        Self { created_by: Some(creator), ..self }
    }

    /// Only tokens made before this instant.
    #[must_use]
    pub fn created_before(self, time: Timestamp) -> Self {
        Self { created_before: Some(time), ..self }
    }

    /// Only tokens that expire, and before this instant; those that have expired count.
    #[must_use]
    pub fn expires_before(self, time: Timestamp) -> Self {
        Self { expires_before: Some(time), ..self }
    }

    /// Only tokens neither made nor used at this instant or after it, as far as the store has been told.
    #[must_use]
    pub fn unused_since(self, time: Timestamp) -> Self {
        Self { unused_since: Some(time), ..self }
    }

    /// Only tokens of which no write is known.
    #[must_use]
    pub fn never_wrote(self) -> Self {
        Self { never_wrote: true, ..self }
    }

    /// Only tokens neither revoked nor expired at this instant: those that work, or could if they were resumed or their
    /// owner lifted.
    #[must_use]
    pub fn live_at(self, time: Timestamp) -> Self {
        Self { live_at: Some(time), ..self }
    }

    /// At most this many records a page; 0 counts as 1.
    #[must_use]
    pub fn page_size(self, page_size: usize) -> Self {
        Self { page_size: page_size.max(1), ..self }
    }

    /// Whether a record is let through, for stores that filter by hand.
    #[must_use]
    pub fn matches(&self, record: &TokenRecord) -> bool {
        self.owner.as_ref().is_none_or(|owner| owner == record.owner())
            && self.scope.is_none_or(|scope| scope == record.scope())
            && self.state.is_none_or(|state| state == record.state())
            && self.created_by.as_ref().is_none_or(|creator| creator == record.created_by())
            && self.created_before.is_none_or(|time| record.created_at() < time)
            && self.expires_before.is_none_or(|time| record.expires_at().is_some_and(|end| end < time))
            && self.unused_since.is_none_or(|time| last_seen(record) < time)
            && self.live_at.is_none_or(|time| can_work(record, time))
            && !(self.never_wrote && record.last_used().is_some_and(|used| used.last_write.is_some()))
    }
}

/// Whether it works, or would if it were resumed or its owner lifted.
pub(crate) fn can_work(record: &TokenRecord, now: Timestamp) -> bool {
    record.state() != TokenState::Revoked && record.expires_at().is_none_or(|end| now < end)
}

/// When a token last did anything: was used, or was made.
fn last_seen(record: &TokenRecord) -> Timestamp {
    record.last_used().map_or(record.created_at(), |used| used.at.max(record.created_at()))
}

impl Default for TokenFilter {
    fn default() -> Self {
        Self::all()
    }
}

/// Where a listing goes on. Only the store that made it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// A cursor with a store's own text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The store's own text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of a listing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenPage {
    /// The records, at most [`TokenFilter::page_size`].
    pub records: Vec<TokenRecord>,
    /// Where the listing goes on, `None` at its end.
    pub next: Option<Cursor>,
}

impl TokenPage {
    /// A page and where the listing goes on.
    #[must_use]
    pub const fn new(records: Vec<TokenRecord>, next: Option<Cursor>) -> Self {
        Self { records, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Label;
    use crate::secret::SecretHash;
    use crate::token::LastUsed;

    const T: fn(u64) -> Timestamp = Timestamp::from_unix_seconds;

    fn record() -> TokenRecord {
        let secret = SecretHash::parse("$a$b").unwrap();
        let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("l").unwrap());
        TokenRecord::new("0123456789abcdef".parse().unwrap(), owner, label, Scope::ReadOnly, secret, T(100))
    }

    #[test]
    fn each_filter_lets_through_what_it_names_and_nothing_else() {
        let made_by = |who: &str| who.parse::<CreatedBy>().unwrap();
        let (used, wrote) = (LastUsed::new(T(200)), LastUsed::new(T(200)).with_last_write(Some(T(150))));
        let expiring = record().with_expiry(Some(T(300)));
        let all = TokenFilter::all;
        for (filter, inside, outside) in [
            (all().owner(OwnerId::new("alice").unwrap()), record(), None),
            (all().owner(OwnerId::new("bob").unwrap()).owner(OwnerId::new("alice").unwrap()), record(), None),
            (all().scope(Scope::ReadOnly), record(), Some(record().with_scope(Scope::ReadWrite))),
            (all().state(TokenState::Active), record(), Some(record().with_state(TokenState::Paused))),
            (all().created_by(made_by("user:alice")), record(), Some(record().with_created_by(made_by("system:x")))),
            (all().created_before(T(101)), record(), None),
            (all().live_at(T(100)), record(), Some(record().with_state(TokenState::Revoked))),
            (all().live_at(T(299)), expiring.clone().with_state(TokenState::Paused), None),
            (all().live_at(T(299)), expiring.clone().with_owner_barred(true), Some(record().with_expiry(Some(T(299))))),
            (all().expires_before(T(301)), expiring.clone(), Some(record())),
            (all().unused_since(T(101)), record(), Some(record().with_last_used(Some(used.clone())))),
            (all().unused_since(T(201)), record().with_last_used(Some(used.clone())), None),
            (all().never_wrote(), record().with_last_used(Some(used)), Some(record().with_last_used(Some(wrote)))),
        ] {
            assert!(filter.matches(&inside), "{filter:?}");
            assert!(outside.is_none_or(|outside| !filter.matches(&outside)), "{filter:?}");
        }
        assert!(!all().owner(OwnerId::new("bob").unwrap()).matches(&record()));
        for (filter, record) in [
            (all().created_before(T(100)), record()),
            (all().expires_before(T(300)), expiring),
            (all().unused_since(T(100)), record()),
        ] {
            assert!(!filter.matches(&record), "the instant itself is not before it: {filter:?}");
        }
    }
}
