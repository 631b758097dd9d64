//! The names of all keys.

use std::fmt;
use std::sync::Arc;

/// What all keys begin with.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<str>);

impl Default for Keys {
    fn default() -> Self {
        Self("tta:".into())
    }
}

impl Keys {
    const MAX_LEN: usize = 64;

    pub(super) fn new(prefix: &str) -> Result<Self, KeyPrefixError> {
        // Braces would be a cluster's hash tag, `*`, `?` and `[` a pattern in an access list.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
        let acceptable = (1..=Self::MAX_LEN).contains(&prefix.len()) && prefix.bytes().all(plain);
        if acceptable { Ok(Self(prefix.into())) } else { Err(KeyPrefixError(())) }
    }

    /// The key of a token; of no id, what those keys begin with.
    pub(super) fn token(&self, id: &str) -> String {
        format!("{}token:{id}", self.0)
    }

    pub(super) fn ids(&self) -> String {
        format!("{}ids", self.0)
    }

    /// The key of an owner's ids; of no owner, what those keys begin with.
    pub(super) fn owner(&self, owner: &str) -> String {
        format!("{}owner:{owner}", self.0)
    }

    pub(super) fn barred(&self) -> String {
        format!("{}barred", self.0)
    }

    pub(super) fn changes(&self) -> String {
        format!("{}changes", self.0)
    }

    pub(super) fn change_count(&self) -> String {
        format!("{}changes:count", self.0)
    }
}

/// A text is no prefix of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPrefixError(());

impl fmt::Display for KeyPrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key prefix is 1 to 64 letters, digits and \":\", \".\", \"_\" or \"-\"")
    }
}

impl std::error::Error for KeyPrefixError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_text_is_a_prefix() {
        let longest = "x".repeat(64);
        for right in ["a", "shop:tokens:", "v1.2_x-", &longest] {
            assert_eq!(Keys::new(right).unwrap().ids(), format!("{right}ids"));
        }
        let too_long = "x".repeat(65);
        for wrong in ["", " ", "a b", "{tag}:", "a*", "a?", "ä", "a\n", &too_long] {
            assert_eq!(Keys::new(wrong).unwrap_err(), KeyPrefixError(()), "{wrong:?}");
        }
    }
}
