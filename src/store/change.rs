//! What can happen to a record.

use std::fmt;

use crate::clock::Timestamp;
use crate::id::Label;
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::token::{RetiringSecret, TokenRecord, TokenState};

/// One change of a record. [`apply`](Self::apply) carries it out; a store need not know the kinds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// Stop the token for a while.
    Pause,
    /// Let a paused token work again.
    Resume,
    /// Stop the token for good.
    Revoke {
        /// When.
        at: Timestamp,
    },
    /// Move the expiry.
    Expiry(Option<Timestamp>),
    /// Narrow the scope. It can not be widened.
    Scope(Scope),
    /// Rename.
    Label(Label),
    /// Replace the secret, and keep an old one for a while: rotation, and re-hashing.
    Secrets {
        /// The current secret's hash.
        secret: SecretHash,
        /// The old secret, where one shall still work.
        retiring: Option<RetiringSecret>,
    },
}

impl Change {
    /// The record after the change, in its next revision.
    ///
    /// # Errors
    /// [`ChangeError`] when the record is revoked, or its scope would be widened.
    pub fn apply(self, record: TokenRecord) -> Result<TokenRecord, ChangeError> {
        if record.state() == TokenState::Revoked {
            return Err(ChangeError::Revoked);
        }
        let revision = record.revision().next();
        let changed = match self {
            Self::Pause => record.with_state(TokenState::Paused),
            Self::Resume => record.with_state(TokenState::Active),
            Self::Revoke { at } => record.with_state(TokenState::Revoked).with_revoked_at(Some(at)),
            Self::Expiry(expires_at) => record.with_expiry(expires_at),
            Self::Scope(scope) if !record.scope().covers(scope) => return Err(ChangeError::Widens),
            Self::Scope(scope) => record.with_scope(scope),
            Self::Label(label) => record.with_label(label),
            Self::Secrets { secret, retiring } => record.with_secret(secret).with_retiring(retiring),
        };
        Ok(changed.with_revision(revision))
    }
}

/// Why a record does not allow a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError {
    /// It is revoked, which is final.
    Revoked,
    /// Its scope would be widened.
    Widens,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "a revoked token can not be changed",
            Self::Widens => "a token's scope can not be widened",
        })
    }
}

impl std::error::Error for ChangeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OwnerId;
    use crate::token::Revision;

    fn record(scope: Scope) -> TokenRecord {
        TokenRecord::new(
            "0123456789abcdef".parse().unwrap(),
            OwnerId::from(1_u32),
            Label::new("l").unwrap(),
            scope,
            SecretHash::parse("$a$b").unwrap(),
            Timestamp::from_unix_seconds(0),
        )
    }

    #[test]
    fn each_change_is_one_revision() {
        let paused = Change::Pause.apply(record(Scope::ReadOnly)).unwrap();
        assert_eq!((paused.state(), paused.revision()), (TokenState::Paused, Revision::new(2)));
        let resumed = Change::Resume.apply(paused).unwrap();
        assert_eq!((resumed.state(), resumed.revision()), (TokenState::Active, Revision::new(3)));
    }

    #[test]
    fn revoking_is_final() {
        let at = Timestamp::from_unix_seconds(7);
        let revoked = Change::Revoke { at }.apply(record(Scope::ReadOnly)).unwrap();
        assert_eq!((revoked.state(), revoked.revoked_at()), (TokenState::Revoked, Some(at)));
        for change in [Change::Resume, Change::Expiry(None), Change::Revoke { at: Timestamp::MAX }] {
            assert_eq!(change.apply(revoked.clone()), Err(ChangeError::Revoked));
        }
    }

    #[test]
    fn a_scope_narrows_and_never_widens() {
        assert!(Change::Scope(Scope::ReadOnly).apply(record(Scope::ReadWrite)).is_ok());
        assert_eq!(Change::Scope(Scope::ReadWrite).apply(record(Scope::ReadOnly)), Err(ChangeError::Widens));
    }
}
