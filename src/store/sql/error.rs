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

/// Whether the database objects to what it was given, and will do so again.
pub(super) fn is_of_data(error: &StoreError) -> bool {
    let said = error.source().and_then(|cause| cause.downcast_ref::<Said>());
    said.and_then(|said| said.code.as_deref()).is_some_and(is_code_of_data)
}

/// Of PostgreSQL data exceptions and broken constraints, five characters; of SQLite, which has numbers of fewer digits and
/// its kinds in the higher bytes, what is too big, breaks a constraint or is of another type.
fn is_code_of_data(code: &str) -> bool {
    if code.len() == 5 {
        return code.starts_with("22") || code.starts_with("23");
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_data_is_told_from_what_is_wrong_with_a_server() {
        let said = |code: &str| StoreError::new(Said { code: Some(code.to_owned()), message: String::new() });
        for of_data in ["22P05", "22001", "23505", "23514", "18", "19", "20", "275", "2067", "3091"] {
            assert!(is_of_data(&said(of_data)), "{of_data}");
        }
        for of_server in ["", "08006", "40001", "53100", "57P01", "42501", "5", "8", "13", "261", "778"] {
            assert!(!is_of_data(&said(of_server)), "{of_server}");
        }
        assert!(!is_of_data(&failed(sqlx::Error::PoolTimedOut)));
    }
}
