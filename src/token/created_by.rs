//! Who made a token.

use std::fmt;
use std::str::FromStr;

use crate::id::{IdError, Label, OwnerId, TokenId};
use crate::text::TextError;

/// Who made a token: a user, another token, or the application itself.
///
/// The text form (`user:alice`, `token:0123456789abcdef`, `system:bootstrap`) is stable, for stores and logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CreatedBy {
    /// A user of the application.
    User(OwnerId),
    /// A program that presented this token.
    Token(TokenId),
    /// The application itself, and why.
    System(Label),
}

impl fmt::Display for CreatedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(owner) => write!(f, "user:{owner}"),
            Self::Token(id) => write!(f, "token:{id}"),
            Self::System(why) => write!(f, "system:{why}"),
        }
    }
}

impl FromStr for CreatedBy {
    type Err = CreatedByError;

    fn from_str(text: &str) -> Result<Self, CreatedByError> {
        match text.split_once(':') {
            Some(("user", owner)) => Ok(Self::User(OwnerId::new(owner).map_err(CreatedByError::Text)?)),
            Some(("token", id)) => Ok(Self::Token(id.parse().map_err(CreatedByError::Id)?)),
            Some(("system", why)) => Ok(Self::System(Label::new(why).map_err(CreatedByError::Text)?)),
            _ => Err(CreatedByError::Kind),
        }
    }
}

/// A stored text does not name a creator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreatedByError {
    /// It does not begin with `user:`, `token:` or `system:`.
    Kind,
    /// The name after `user:` or `system:` is not acceptable.
    Text(TextError),
    /// What follows `token:` is no token id.
    Id(IdError),
}

impl fmt::Display for CreatedByError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a creator is \"user:…\", \"token:…\" or \"system:…\"")
    }
}

impl std::error::Error for CreatedByError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kind => None,
            Self::Text(error) => Some(error),
            Self::Id(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_survives_a_round_trip() {
        for text in ["user:alice", "user:a:b", "token:0123456789abcdef", "system:first start"] {
            assert_eq!(text.parse::<CreatedBy>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_stored_creator_is_an_error() {
        for text in ["", "alice", "robot:7", "user:", "token:short", "system:\n"] {
            assert!(text.parse::<CreatedBy>().is_err(), "{text:?}");
        }
    }
}
