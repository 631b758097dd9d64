//! What a token may do: read only, or read and write.

use std::fmt;
use std::str::FromStr;

use crate::access::Access;

/// What a token may do. Chosen by its creator, never absent, never widened.
///
/// The text form (`read-only`, `read-write`) is stable: stores keep it and challenges carry it.
///
/// # Example
/// ```
/// use tower_token_auth::{Access, Scope};
///
/// assert!(Scope::ReadOnly.permits(Access::Read));
/// assert!(!Scope::ReadOnly.permits(Access::Write));
/// assert_eq!("read-write".parse(), Ok(Scope::ReadWrite));
/// assert!("admin".parse::<Scope>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Reading: GET, HEAD and OPTIONS, unless a route declares otherwise.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

impl Scope {
    /// Whether a token of this scope may make a request of this access.
    #[must_use]
    pub const fn permits(self, access: Access) -> bool {
        matches!((self, access), (Self::ReadWrite, _) | (Self::ReadOnly, Access::Read))
    }

    /// Whether this scope permits all that `other` permits.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        matches!((self, other), (Self::ReadWrite, _) | (_, Self::ReadOnly))
    }

    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text {
            "read-only" => Ok(Self::ReadOnly),
            "read-write" => Ok(Self::ReadWrite),
            _ => Err(ScopeError(())),
        }
    }
}

/// A text is not a [`Scope`]. A store that reads one refuses the record; it never guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeError(());

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scope is \"read-only\" or \"read-write\"")
    }
}

impl std::error::Error for ScopeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_table() {
        for (scope, access, permitted) in [
            (Scope::ReadOnly, Access::Read, true),
            (Scope::ReadOnly, Access::Write, false),
            (Scope::ReadWrite, Access::Read, true),
            (Scope::ReadWrite, Access::Write, true),
        ] {
            assert_eq!(scope.permits(access), permitted, "{scope} {access}");
        }
    }

    #[test]
    fn covering_is_reflexive_and_write_covers_read() {
        assert!(Scope::ReadOnly.covers(Scope::ReadOnly));
        assert!(Scope::ReadWrite.covers(Scope::ReadWrite));
        assert!(Scope::ReadWrite.covers(Scope::ReadOnly));
        assert!(!Scope::ReadOnly.covers(Scope::ReadWrite));
    }

    #[test]
    fn only_the_stable_text_is_a_scope() {
        for scope in [Scope::ReadOnly, Scope::ReadWrite] {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        for wrong in ["", "Read-Only", "read", "read-write ", "*"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_text_form_is_stable() {
        assert_eq!(Scope::ReadOnly.to_string(), "read-only");
        assert_eq!(Scope::ReadWrite.to_string(), "read-write");
    }

    #[test]
    fn a_wrong_text_is_told_what_is_right() {
        assert_eq!("admin".parse::<Scope>().unwrap_err().to_string(), r#"a scope is "read-only" or "read-write""#);
    }
}
