//! Small facts an application keeps with a token.

use std::fmt;
use std::sync::Arc;

use crate::text::{self, TextError};

/// Up to 16 named texts kept with a token, so that a handler needs no second look-up (a tenant, a plan, a region).
///
/// Names are 1 to 64 bytes, values 1 to 256, both printable. Cheap to clone; not secret: handlers and audit readers
/// may see them.
///
/// # Example
/// ```
/// use tower_token_auth::Attributes;
///
/// let attributes = Attributes::new([("tenant", "acme"), ("plan", "gold")])?;
/// assert_eq!(attributes.find("tenant"), Some("acme"));
/// assert_eq!(attributes.find("region"), None);
/// # Ok::<(), tower_token_auth::AttributeError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Option<Arc<[Pair]>>);

type Pair = (Box<str>, Box<str>);

impl Attributes {
    pub(crate) const NONE: Self = Self(None);

    /// The greatest number of attributes.
    pub const MAX_COUNT: usize = 16;
    /// The greatest length of a name, in bytes of UTF-8.
    pub const MAX_NAME_LEN: usize = 64;
    /// The greatest length of a value, in bytes of UTF-8.
    pub const MAX_VALUE_LEN: usize = 256;

    /// Attributes from names and values; the order is kept.
    ///
    /// # Errors
    /// [`AttributeError`] when there are too many, a name stands twice, or a text is not acceptable.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, AttributeError> {
        let mut kept: Vec<Pair> = Vec::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            text::check(name, Self::MAX_NAME_LEN).map_err(AttributeError::Name)?;
            text::check(value, Self::MAX_VALUE_LEN).map_err(AttributeError::Value)?;
            if kept.iter().any(|(taken, _)| &**taken == name) {
                return Err(AttributeError::Twice);
            }
            if kept.len() == Self::MAX_COUNT {
                return Err(AttributeError::TooMany);
            }
            kept.push((name.into(), value.into()));
        }
        Ok(Self((!kept.is_empty()).then(|| kept.into())))
    }

    /// The value of an attribute, where it has one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All names and values, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| pairs.iter()).map(|(name, value)| (&**name, &**value))
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Why attributes cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeError {
    /// There are more than [`Attributes::MAX_COUNT`].
    TooMany,
    /// A name stands twice.
    Twice,
    /// A name is not acceptable.
    Name(TextError),
    /// A value is not acceptable.
    Value(TextError),
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are more than {} attributes", Attributes::MAX_COUNT),
            Self::Twice => f.write_str("an attribute's name stands twice"),
            Self::Name(_) => f.write_str("an attribute's name is not acceptable"),
            Self::Value(_) => f.write_str("an attribute's value is not acceptable"),
        }
    }
}

impl std::error::Error for AttributeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Name(error) | Self::Value(error) => Some(error),
            Self::TooMany | Self::Twice => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold() {
        let many = |count: usize| Attributes::new((0..count).map(|at| (at.to_string(), "x")));
        assert!(many(16).is_ok());
        assert_eq!(many(17), Err(AttributeError::TooMany));
        assert_eq!(Attributes::new([("a", "1"), ("a", "2")]), Err(AttributeError::Twice));
        assert_eq!(Attributes::new([("", "1")]), Err(AttributeError::Name(TextError::Empty)));
        assert_eq!(Attributes::new([("a", "\n")]), Err(AttributeError::Value(TextError::Unprintable)));
    }

    #[test]
    fn none_is_the_default() {
        assert_eq!(Attributes::new::<&str, &str>([]), Ok(Attributes::default()));
    }
}
