//! What may be told of a failed database.

use std::error::Error as StdError;
use std::fmt;

use crate::decision::StoreError;
use crate::id::TokenId;

/// What a database said: its code and its primary message.
///
/// Not the driver's own error: PostgreSQL puts whole rows into the details of some, and with them hashes.
#[derive(Debug)]
struct Said {
    code: Option<String>,
    message: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "the database said {code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl StdError for Said {}

/// A driver's error as the crate's own.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Io(error) => StoreError::new(error),
        sqlx::Error::Database(error) => {
            StoreError::new(Said { code: error.code().map(Into::into), message: error.message().to_owned() })
        }
        other => StoreError::new(Said { code: None, message: other.to_string() }),
    }
}

/// A stored value that cannot be read. Its text is not told: it may be a misplaced hash.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) of: Of,
    pub(super) column: &'static str,
    pub(super) cause: Box<dyn StdError + Send + Sync>,
}

/// Of what it is stored; `None` where just that cannot be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Token(Option<TokenId>),
    Event(Option<i64>),
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(Some(id)) => write!(f, "token {id}"),
            Self::Token(None) => f.write_str("a token"),
            Self::Event(Some(seq)) => write!(f, "event {seq}"),
            Self::Event(None) => f.write_str("an event"),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} stored of {} cannot be read", self.column, self.of)
    }
}

impl StdError for Unreadable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}
