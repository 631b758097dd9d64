//! What the tables are called, and how a name gets into SQL.

use std::error::Error as StdError;
use std::fmt;

/// The names of a store's tables: all begin with a prefix, and stand in a schema where the database has such.
///
/// SQL in this crate is written with the names of default, `public.tta_…` or `tta_…`, and [`rename`](Self::rename)d.
/// A name is spliced into SQL, so its grammar is the guard: lower-case letters, digits and `_`, none that needs quoting
/// but the schema, which is quoted.
#[derive(Debug, Clone)]
pub(super) struct Names {
    schema: Option<Box<str>>,
    prefix: Box<str>,
}

const PREFIX: &str = "tta_";
const SCHEMA: &str = "public";
/// With a schema and `.changes` it makes the name of a channel, for which PostgreSQL has 63 bytes.
const MAX_PREFIX: usize = 24;
#[cfg(feature = "postgres")]
const MAX_SCHEMA: usize = 31;

impl Names {
    /// The names in a database without schemas.
    #[cfg(feature = "sqlite")]
    pub(super) fn flat() -> Self {
        Self { schema: None, prefix: PREFIX.into() }
    }

    /// The names in the schema `public`.
    #[cfg(feature = "postgres")]
    pub(super) fn in_public() -> Self {
        Self { schema: Some(SCHEMA.into()), prefix: PREFIX.into() }
    }

    #[cfg(feature = "postgres")]
    pub(super) fn with_schema(self, schema: &str) -> Result<Self, SqlNameError> {
        check(schema, MAX_SCHEMA)?;
        Ok(Self { schema: Some(schema.into()), ..self })
    }

    pub(super) fn with_prefix(self, prefix: &str) -> Result<Self, SqlNameError> {
        check(prefix, MAX_PREFIX)?;
        Ok(Self { prefix: prefix.into(), ..self })
    }

    /// SQL that was written with the names of default, with these names.
    pub(super) fn rename(&self, sql: &str) -> String {
        let qualifier = self.schema.as_ref().map(|schema| format!("\"{schema}\".")).unwrap_or_default();
        // In one pass, so that a name that holds another's default is not renamed twice.
        let qualified = format!("{SCHEMA}.{PREFIX}");
        let pieces: Vec<_> = sql.split(&qualified).map(|piece| piece.replace(PREFIX, &self.prefix)).collect();
        pieces.join(&format!("{qualifier}{}", self.prefix))
    }

    #[cfg(feature = "postgres")]
    pub(super) fn schema(&self) -> &str {
        self.schema.as_deref().unwrap_or_default()
    }

    /// The channel on which changes are told.
    #[cfg(feature = "postgres")]
    pub(super) fn channel(&self) -> String {
        format!("{}.{}changes", self.schema(), self.prefix)
    }
}

fn check(name: &str, max: usize) -> Result<(), SqlNameError> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !starts_well || !name.bytes().all(is_word) {
        return Err(SqlNameError::Grammar);
    }
    if name.len() > max {
        return Err(SqlNameError::TooLong { max });
    }
    Ok(())
}

/// Why a text is no name of a schema, or no prefix of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlNameError {
    /// It is empty, or holds something else than `a`–`z`, `0`–`9` and `_`, or begins with a digit.
    Grammar,
    /// It is longer than `max` bytes.
    TooLong {
        /// The greatest accepted length, in bytes.
        max: usize,
    },
}

impl fmt::Display for SqlNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grammar => f.write_str("a name in SQL is made of a-z, 0-9 and _, and does not begin with a digit"),
            Self::TooLong { max } => write!(f, "the name is longer than {max} bytes"),
        }
    }
}

impl StdError for SqlNameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(schema: Option<&str>, prefix: &str) -> Names {
        Names { schema: schema.map(Into::into), prefix: prefix.into() }
    }

    #[test]
    fn only_plain_words_are_names() {
        for good in ["a", "_", "acme_", "tta2_", &"x".repeat(MAX_PREFIX)] {
            assert_eq!(check(good, MAX_PREFIX), Ok(()), "{good:?}");
        }
        for bad in ["", "2a", "A", "a-b", "a.b", "a b", "a;", "a\"", "a'", "é", "a\0"] {
            assert_eq!(check(bad, MAX_PREFIX), Err(SqlNameError::Grammar), "{bad:?}");
        }
        assert_eq!(check(&"x".repeat(25), 24), Err(SqlNameError::TooLong { max: 24 }));
    }

    #[test]
    fn renaming_reaches_every_name_and_nothing_twice() {
        let sql = "SELECT 'tta_x' FROM public.tta_tokens";
        assert_eq!(named(None, "tta_").rename(sql), "SELECT 'tta_x' FROM tta_tokens");
        assert_eq!(named(Some("auth"), "a_").rename(sql), "SELECT 'a_x' FROM \"auth\".a_tokens");
        assert_eq!(named(Some("tta_"), "my_tta_").rename(sql), "SELECT 'my_tta_x' FROM \"tta_\".my_tta_tokens");
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn the_longest_channel_fits() {
        let names = Names::in_public().with_schema(&"s".repeat(31)).unwrap().with_prefix(&"p".repeat(24)).unwrap();
        assert_eq!(names.channel().len(), 63);
    }
}
