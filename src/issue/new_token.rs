//! What is asked of the desk, and what it answers.

use std::borrow::Cow;
use std::time::Duration;

use crate::audit::Subject;
use crate::clock::Timestamp;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::store::Cursor;
use crate::text::TextError;
use crate::token::{
    Attributes, CreatedBy, LastUsed, PlaintextToken, RetiringSecret, Revision, TokenRecord, TokenState,
};

/// A wish for a token: whose, what for, and what it may do. The scope has no default.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{NewToken, Scope};
///
/// let wish = NewToken::new("alice", "nightly export", Scope::ReadOnly)
///     .expires_in(Duration::from_secs(90 * 24 * 3600));
/// ```
#[derive(Debug, Clone)]
pub struct NewToken {
    pub(super) owner: Result<OwnerId, TextError>,
    pub(super) label: Result<Label, TextError>,
    pub(super) scope: Scope,
    pub(super) expiry: Expiry,
    pub(super) attributes: Attributes,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Expiry {
    Never,
    At(Timestamp),
    In(Duration),
}

impl Expiry {
    pub(super) fn at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(end) => Some(end),
            Self::In(lifetime) => Some(now + lifetime),
        }
    }
}

impl NewToken {
    /// A token of `owner`, called `label`, that may do `scope` and does not expire.
    ///
    /// A text that can be neither is refused by the desk, not here.
    pub fn new<O, L>(owner: O, label: L, scope: Scope) -> Self
    where
        O: TryInto<OwnerId, Error: Into<TextError>>,
        L: TryInto<Label, Error: Into<TextError>>,
    {
        Self {
            owner: owner.try_into().map_err(Into::into),
            label: label.try_into().map_err(Into::into),
            scope,
            expiry: Expiry::Never,
            attributes: Attributes::default(),
        }
    }

    pub(super) fn subject(&self) -> Subject<'static> {
        Subject::Handled {
            id: None,
            owner: self.owner.clone().ok().map(Cow::Owned),
            label: self.label.clone().ok().map(Cow::Owned),
            scope: Some(self.scope),
        }
    }

    /// Sets the first instant at which it no longer works.
    #[must_use]
    pub fn expires_at(self, end: Timestamp) -> Self {
        Self { expiry: Expiry::At(end), ..self }
    }

    /// Sets how long it works, from when it is issued.
    #[must_use]
    pub fn expires_in(self, lifetime: Duration) -> Self {
        Self { expiry: Expiry::In(lifetime), ..self }
    }

    /// Sets facts for handlers.
    #[must_use]
    pub fn attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }
}

/// A token that was just issued: the one time its text can be shown. `Debug` does not show it.
#[derive(Debug)]
pub struct IssuedToken {
    pub(super) plaintext: PlaintextToken,
    pub(super) summary: TokenSummary,
}

impl IssuedToken {
    /// The token itself, for its holder.
    #[must_use]
    pub const fn plaintext(&self) -> &PlaintextToken {
        &self.plaintext
    }

    /// What may be shown of it later, too.
    #[must_use]
    pub const fn summary(&self) -> &TokenSummary {
        &self.summary
    }

    /// The token itself, for whoever hands it on. What is left behind can be listed again.
    #[must_use]
    pub fn into_plaintext(self) -> PlaintextToken {
        self.plaintext
    }
}

/// What [`TokenIssuer::ensure`](super::TokenIssuer::ensure) found or made.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a token is there or is made")]
pub enum Ensured {
    /// It was made now; its text can be shown this once.
    Created(IssuedToken),
    /// It was there, in whatever state.
    Exists(TokenSummary),
}

/// What may be shown of a token: its record without hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenSummary {
    /// Its public id.
    pub id: TokenId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Who made it.
    pub created_by: CreatedBy,
    /// When it was made.
    pub created_at: Timestamp,
    /// What people call it.
    pub label: Label,
    /// What it may do.
    pub scope: Scope,
    /// The first instant at which it no longer works; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// Its state, apart from expiry.
    pub state: TokenState,
    /// When it was revoked, where that is known.
    pub revoked_at: Option<Timestamp>,
    /// The first instant at which the old secret of the latest rotation no longer works; `None` where there is none.
    pub retiring_until: Option<Timestamp>,
    /// Whether its owner is barred.
    pub owner_barred: bool,
    /// How often it has changed.
    pub revision: Revision,
    /// The application's attributes.
    pub attributes: Attributes,
    /// When and from where it was last used, as far as the store has been told.
    pub last_used: Option<LastUsed>,
}

impl From<&TokenRecord> for TokenSummary {
    fn from(record: &TokenRecord) -> Self {
        Self {
            id: record.id(),
            owner: record.owner().clone(),
            created_by: record.created_by().clone(),
            created_at: record.created_at(),
            label: record.label().clone(),
            scope: record.scope(),
            expires_at: record.expires_at(),
            state: record.state(),
            revoked_at: record.revoked_at(),
            retiring_until: record.retiring().map(RetiringSecret::until),
            owner_barred: record.owner_barred(),
            revision: record.revision(),
            attributes: record.attributes().clone(),
            last_used: record.last_used().cloned(),
        }
    }
}

/// One page of a listing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SummaryPage {
    /// The tokens.
    pub tokens: Vec<TokenSummary>,
    /// Where the listing goes on, `None` at its end.
    pub next: Option<Cursor>,
}
