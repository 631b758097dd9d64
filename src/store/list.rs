//! Listing: filters, pages and cursors.

use crate::id::OwnerId;
use crate::scope::Scope;
use crate::token::{TokenRecord, TokenState};

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
    /// The greatest number of records on a page, at least 1.
    pub page_size: usize,
}

impl TokenFilter {
    /// Lets everything through, 100 records a page.
    #[must_use]
    pub const fn all() -> Self {
        Self { owner: None, scope: None, state: None, page_size: 100 }
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
    }
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
