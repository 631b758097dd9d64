//! What a handler gets, without a gate.

use crate::clock::Timestamp;
use crate::decision::{AuthenticatedToken, GateId};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::text::TextError;
use crate::token::{Attributes, TokenRecord};

use super::ManualClock;

impl AuthenticatedToken {
    /// A token that no gate has admitted, to test a handler with. Only with the feature `test-util`.
    ///
    /// # Example
    /// ```
    /// use tower_token_auth::{Access, AuthenticatedToken, Scope};
    ///
    /// let token = AuthenticatedToken::builder("alice", "laptop", Scope::ReadOnly).build()?;
    /// assert!(!token.permits(Access::Write));
    /// let mut request = http::Request::new(());
    /// request.extensions_mut().insert(token);
    /// # Ok::<(), tower_token_auth::TextError>(())
    /// ```
    pub fn builder<O, L>(owner: O, label: L, scope: Scope) -> AuthenticatedTokenBuilder
    where
        O: TryInto<OwnerId, Error: Into<TextError>>,
        L: TryInto<Label, Error: Into<TextError>>,
    {
        AuthenticatedTokenBuilder {
            id: TokenId::from_digest(&[0; 32]),
            owner: owner.try_into().map_err(Into::into),
            label: label.try_into().map_err(Into::into),
            scope,
            expires_at: None,
            attributes: Attributes::default(),
        }
    }
}

/// Makes an [`AuthenticatedToken`] for a test; see [`AuthenticatedToken::builder`].
#[derive(Debug, Clone)]
#[must_use = "`build` makes the token"]
pub struct AuthenticatedTokenBuilder {
    id: TokenId,
    owner: Result<OwnerId, TextError>,
    label: Result<Label, TextError>,
    scope: Scope,
    expires_at: Option<Timestamp>,
    attributes: Attributes,
}

impl AuthenticatedTokenBuilder {
    /// Sets the public id; all zeros by default.
    pub fn id(self, id: TokenId) -> Self {
        Self { id, ..self }
    }

    /// Sets the first instant at which the token no longer works; never by default.
    pub fn expires_at(self, expires_at: Timestamp) -> Self {
        Self { expires_at: Some(expires_at), ..self }
    }

    /// Sets the application's attributes; none by default.
    pub fn attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// The token.
    ///
    /// # Errors
    /// [`TextError`] when the owner or the label is not acceptable.
    pub fn build(self) -> Result<AuthenticatedToken, TextError> {
        // The hash is a constant that parses, so its error is never taken.
        let no_secret = SecretHash::parse("$none$").map_err(|_| TextError::Empty)?;
        let record = TokenRecord::new(self.id, self.owner?, self.label?, self.scope, no_secret, ManualClock::START)
            .with_expiry(self.expires_at)
            .with_attributes(self.attributes);
        Ok(AuthenticatedToken::of_record(GateId::NONE, &record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_arrives() {
        let (id, end) = (TokenId::generate().unwrap(), Timestamp::from_unix_seconds(9));
        let attributes = Attributes::new([("tenant", "acme")]).unwrap();
        let token = AuthenticatedToken::builder(42_u64, "laptop", Scope::ReadWrite)
            .id(id)
            .expires_at(end)
            .attributes(attributes.clone())
            .build()
            .unwrap();
        assert_eq!((token.id(), token.owner().as_str(), token.label().as_str()), (id, "42", "laptop"));
        assert_eq!((token.scope(), token.expires_at(), token.attributes()), (Scope::ReadWrite, Some(end), &attributes));
    }

    #[test]
    fn a_bad_name_is_an_error() {
        let built = |owner: &str, label: &str| AuthenticatedToken::builder(owner, label, Scope::ReadOnly).build();
        assert!(built("alice", "laptop").is_ok());
        assert_eq!(built("", "laptop").unwrap_err(), TextError::Empty);
        assert_eq!(built("alice", "\n").unwrap_err(), TextError::Unprintable);
    }
}
