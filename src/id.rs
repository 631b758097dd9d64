//! Names: which token, whose token, and what people call it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::base62::{self, RandomError};
use crate::text::{self, TextError};

/// A token's public, random name: 16 base62 digits.
///
/// It is part of the token's text, is the key a store looks records up by, and may be logged: knowing it gives
/// no access.
///
/// # Example
/// ```
/// use tower_token_auth::TokenId;
///
/// let id: TokenId = "0123456789abcdef".parse()?;
/// assert_eq!(id.as_str(), "0123456789abcdef");
/// assert!("too-short".parse::<TokenId>().is_err());
/// # Ok::<(), tower_token_auth::IdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; Self::LEN]);

impl TokenId {
    /// Length in bytes, which are all ASCII.
    pub const LEN: usize = 16;

    /// A new id from the operating system's CSPRNG: 62¹⁶ possibilities, some 95 bits.
    ///
    /// # Errors
    /// [`RandomError`] when the system has no random bytes to give.
    pub fn generate() -> Result<Self, RandomError> {
        base62::random().map(Self)
    }

    /// Reads 16 base62 digits; `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        base62::is_base62(bytes).then_some(Self(*bytes))
    }

    /// The id derived from a digest; used where two processes must arrive at the same one.
    pub(crate) fn from_digest(digest: &[u8; 32]) -> Self {
        Self(base62::from_digest(digest))
    }

    /// The 16 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Every constructor admits base62 only, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes().try_into().map_err(|_| IdError(()))?;
        Self::from_bytes(bytes).ok_or(IdError(()))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text is not a [`TokenId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdError(());

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token id is 16 characters of 0-9, A-Z and a-z")
    }
}

impl std::error::Error for IdError {}

/// Whose token it is: the application's own name for a user, service or tenant.
///
/// Printable text of 1 to 256 bytes, compared byte by byte. Cheap to clone.
///
/// # Example
/// ```
/// use tower_token_auth::OwnerId;
///
/// let by_name = OwnerId::new("alice")?;
/// let by_number = OwnerId::from(42_u64);
/// let by_uuid = OwnerId::from_uuid_text("67E55044-10B1-426F-9247-BB680E5FE0C8")?;
/// assert_eq!(by_number.as_str(), "42");
/// assert_eq!(by_uuid.as_str(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
/// # Ok::<(), tower_token_auth::TextError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(Arc<str>);

impl OwnerId {
    /// The greatest length, in bytes of UTF-8.
    pub const MAX_LEN: usize = 256;

    /// An owner named `text`.
    ///
    /// # Errors
    /// [`TextError`] when the text is empty, too long, or holds control or bidi characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TextError> {
        let text = text.as_ref();
        text::check(text, Self::MAX_LEN)?;
        Ok(Self(text.into()))
    }

    /// An owner named by a hyphenated UUID (RFC 9562 §4); its letters are lower-cased, so that both spellings
    /// name the same owner.
    ///
    /// # Errors
    /// [`TextError::NotAUuid`] when the text is not 8-4-4-4-12 hexadecimal digits.
    pub fn from_uuid_text(text: &str) -> Result<Self, TextError> {
        let hyphens = [8, 13, 18, 23];
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match hyphens.contains(&at) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            });
        if !well_formed {
            return Err(TextError::NotAUuid);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The owner's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What people call a token: printable text of 1 to 128 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Short);

impl Label {
    /// The greatest length, in bytes of UTF-8.
    pub const MAX_LEN: usize = 128;

    /// The label `text`.
    ///
    /// # Errors
    /// [`TextError`] when the text is empty, too long, or holds control or bidi characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TextError> {
        let text = text.as_ref();
        text::check(text, Self::MAX_LEN)?;
        Ok(Self(Short::new(text)))
    }

    /// The label's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A text that is in place where it is short: no memory of its own, nor a count of references.
#[derive(Clone)]
enum Short {
    Here(u8, [u8; Self::ROOM]),
    Shared(Arc<str>),
}

impl Short {
    const ROOM: usize = 22;

    fn new(text: &str) -> Self {
        let mut here = [0; Self::ROOM];
        match (here.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Here(len, here)
            }
            _ => Self::Shared(text.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            // It was a text when it came, so neither fallback is ever taken.
            Self::Here(len, here) => {
                std::str::from_utf8(here.get(..usize::from(*len)).unwrap_or_default()).unwrap_or_default()
            }
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Short {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

macro_rules! checked_text {
    ($name:ident) => {
        impl TryFrom<&str> for $name {
            type Error = TextError;

            fn try_from(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = TextError;

            fn try_from(text: &String) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl From<&$name> for $name {
            fn from(text: &$name) -> Self {
                text.clone()
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

checked_text!(OwnerId);
checked_text!(Label);

macro_rules! owner_from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for OwnerId {
            fn from(number: $integer) -> Self {
                Self(number.to_string().into())
            }
        }
    )*};
}

owner_from_integer!(i32, i64, u32, u64, u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_differ_and_parse_back() {
        let (one, two) = (TokenId::generate().unwrap(), TokenId::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.as_str().parse(), Ok(one));
    }

    #[test]
    fn only_sixteen_base62_digits_are_an_id() {
        assert!("0123456789abcdeF".parse::<TokenId>().is_ok());
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcde-", "0123456789abcdé"] {
            assert_eq!(wrong.parse::<TokenId>(), Err(IdError(())), "{wrong:?}");
        }
    }

    #[test]
    fn owners_come_from_text_integers_and_uuids() {
        assert_eq!(OwnerId::from(-7_i64).as_str(), "-7");
        assert_eq!(OwnerId::from(u128::MAX).as_str(), "340282366920938463463374607431768211455");
        assert_eq!(OwnerId::new("a\nb"), Err(TextError::Unprintable));
        let upper = OwnerId::from_uuid_text("67E55044-10B1-426F-9247-BB680E5FE0C8").unwrap();
        assert_eq!(upper, OwnerId::from_uuid_text("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap());
        for wrong in ["67e5504410b1426f9247bb680e5fe0c8", "67e55044-10b1-426f-9247-bb680e5fe0cg", "é"] {
            assert_eq!(OwnerId::from_uuid_text(wrong), Err(TextError::NotAUuid), "{wrong:?}");
        }
    }

    #[test]
    fn labels_of_every_length_are_the_text_they_were() {
        for len in 1..=Label::MAX_LEN {
            for text in ["x".repeat(len), "é".repeat(len / 2)].iter().filter(|text| !text.is_empty()) {
                let label = Label::new(text).unwrap();
                assert_eq!((label.as_str(), label.to_string()), (text.as_str(), text.clone()));
                let longer = Label::new(format!("{}z", &text[..text.len().min(127) / 2 * 2])).unwrap();
                assert_eq!(label.cmp(&longer), text.as_str().cmp(longer.as_str()));
                assert_eq!(label == longer, text == longer.as_str());
            }
        }
    }

    #[test]
    fn labels_are_capped_and_printable() {
        assert!(Label::new("nightly export ✓").is_ok());
        assert_eq!(Label::new("x".repeat(129)), Err(TextError::TooLong { max: 128 }));
        assert_eq!(Label::new("evil\u{202E}"), Err(TextError::Unprintable));
    }
}
