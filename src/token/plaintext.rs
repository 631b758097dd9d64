//! Token text: `<prefix>_<id><…>_<secret><checksum>`.
//!
//! ```text
//! tta_0123456789abcdef_0123456789ABCDEFGHIJKLMNOPQRSTUV0a1B2c
//! └┬┘ └──────┬───────┘ └──────────────┬───────────────┘└─┬──┘
//! prefix     id: 16 base62            secret: 32 base62  CRC-32 of all before it, 6 base62
//! ```
//! The length is fixed for a prefix, so secret scanners find leaked tokens by one regular expression
//! ([`Prefix::scanner_regex`]), and the checksum lets a mistyped token be refused without asking the store.
//! The checksum is no defence: anybody can compute it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use crate::base62::{self, RandomError};
use crate::id::TokenId;
use crate::secret::TokenSecret;

pub(crate) const CHECKSUM_LEN: usize = 6;
/// What proves a token: its secret, and the checksum behind it.
pub(crate) const SEALED_LEN: usize = TokenSecret::LEN + CHECKSUM_LEN;
/// What follows the prefix: `_`, id, `_`, secret, checksum.
const TAIL_LEN: usize = 1 + TokenId::LEN + 1 + SEALED_LEN;

/// The fixed first part of a deployment's tokens, by which people and scanners know them.
///
/// 2 to 16 characters of `a-z`, `0-9` and `_`, beginning with a letter and not ending with `_`.
/// Changing it makes every token that was handed out before unknown; accept the old one beside it
/// ([`accept_prefix`](crate::TokenAuthBuilder::accept_prefix)) while they live.
///
/// # Example
/// ```
/// use tower_token_auth::Prefix;
///
/// let prefix: Prefix = "acme".parse()?;
/// assert_eq!(prefix.scanner_regex(), r"\bacme_[0-9A-Za-z]{16}_[0-9A-Za-z]{38}\b");
/// assert!("Acme!".parse::<Prefix>().is_err());
/// # Ok::<(), tower_token_auth::PrefixError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// The prefix's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A regular expression that matches this prefix's tokens and little else, for secret scanners.
    #[must_use]
    pub fn scanner_regex(&self) -> String {
        let (id, rest) = (TokenId::LEN, TokenSecret::LEN + CHECKSUM_LEN);
        format!(r"\b{self}_[0-9A-Za-z]{{{id}}}_[0-9A-Za-z]{{{rest}}}\b")
    }
}

impl Default for Prefix {
    /// `tta`.
    fn default() -> Self {
        Self("tta".into())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let legal = (2..=16).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('_')
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if legal { Ok(Self(text.into())) } else { Err(PrefixError(())) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is not a [`Prefix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixError(());

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prefix is 2 to 16 characters of a-z, 0-9 and _, beginning with a letter and not ending with _")
    }
}

impl std::error::Error for PrefixError {}

/// A whole token, as its holder gets it: once, when it is issued.
///
/// Wiped when dropped; `Debug` shows the prefix and the id. [`expose`](Self::expose) is the one way to its text.
pub struct PlaintextToken {
    prefix: Prefix,
    id: TokenId,
    secret: TokenSecret,
    text: Zeroizing<String>,
}

impl PlaintextToken {
    /// A new token with a random id and a random secret.
    ///
    /// # Errors
    /// [`RandomError`] when the system has no random bytes to give.
    pub fn generate(prefix: &Prefix) -> Result<Self, RandomError> {
        Ok(Self::assemble(prefix, TokenId::generate()?, TokenSecret::generate()?))
    }

    pub(crate) fn assemble(prefix: &Prefix, id: TokenId, secret: TokenSecret) -> Self {
        let length = prefix.as_str().len() + TAIL_LEN;
        // Room for all of it from the start: a buffer that grew would leave a copy of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(length));
        for part in [prefix.as_str(), "_", id.as_str(), "_", secret.expose()] {
            text.push_str(part);
        }
        let mut checksum = base62::encode_u32(crc32fast::hash(text.as_bytes()));
        text.extend(checksum.iter().copied().map(char::from));
        checksum.zeroize();
        Self { prefix: prefix.clone(), id, secret, text }
    }

    /// The token's public id.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The token's prefix.
    #[must_use]
    pub const fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The token's secret part.
    #[must_use]
    pub const fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// The token's whole text, to be handed to its holder.
    ///
    /// # Security
    /// Show it once, over an encrypted channel; nothing in this crate can show it again.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for PlaintextToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlaintextToken({}_{}_[redacted])", self.prefix, self.id)
    }
}

/// A text with the prefix and the length of our tokens, cut into its parts. What they say is not looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut<'a> {
    pub(crate) id: &'a [u8; TokenId::LEN],
    /// The secret and the checksum.
    pub(crate) sealed: &'a [u8; SEALED_LEN],
    /// All before the checksum, which is of this.
    body: &'a [u8],
    /// Which of the accepted prefixes.
    pub(crate) prefix: usize,
}

/// The parts of a token's text beside its id and its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Which of the accepted prefixes.
    pub(crate) prefix: usize,
    pub(crate) checksum: [u8; CHECKSUM_LEN],
}

/// What a gate needs of a token's text.
#[derive(Debug)]
pub(crate) struct ParsedToken {
    pub(crate) id: TokenId,
    pub(crate) secret: TokenSecret,
    pub(crate) seal: Seal,
}

/// Why a bearer token is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShapeError {
    /// It does not begin with an accepted prefix: somebody else's token, perhaps.
    Foreign,
    /// It begins like ours and is broken: length, alphabet or checksum.
    Broken,
}

impl<'a> Cut<'a> {
    /// How many prefixes are told apart: each request's token is compared with all of them.
    pub(crate) const MAX_PREFIXES: usize = 256;

    /// Compares prefixes as a whole, so `tta` does not claim `ttab_…`. At most one fits: all else has a fixed length.
    #[inline(always)]
    pub(crate) fn of<'p>(text: &'a [u8], accepted: impl IntoIterator<Item = &'p Prefix>) -> Result<Self, ShapeError> {
        let mut shape = ShapeError::Foreign;
        for (at, prefix) in accepted.into_iter().enumerate() {
            match strip(text, prefix.as_str().as_bytes()) {
                Some(tail) if tail.first() == Some(&b'_') => match Self::of_tail(text, tail, at) {
                    Some(cut) => return Ok(cut),
                    None => shape = ShapeError::Broken,
                },
                _ => {}
            }
        }
        Err(shape)
    }

    #[inline(always)]
    fn of_tail(text: &'a [u8], tail: &'a [u8], prefix: usize) -> Option<Self> {
        let tail: &[u8; TAIL_LEN] = tail.try_into().ok()?;
        let (id, tail) = tail.strip_prefix(b"_")?.split_first_chunk()?;
        let sealed = tail.strip_prefix(b"_")?.try_into().ok()?;
        let (body, _) = text.split_last_chunk::<CHECKSUM_LEN>()?;
        Some(Self { id, sealed, body, prefix })
    }

    /// Of a text that nobody has written.
    #[cfg(test)]
    pub(crate) const fn of_parts(id: &'a [u8; TokenId::LEN], sealed: &'a [u8; SEALED_LEN], prefix: usize) -> Self {
        Self { id, sealed, body: &[], prefix }
    }

    /// Whether all that differs between tokens is letters and digits, as it is in every one of ours.
    pub(crate) fn is_alphanumeric(&self) -> bool {
        base62::is_base62(self.id) & base62::is_base62(self.sealed)
    }

    pub(crate) fn read(&self) -> Option<ParsedToken> {
        let (secret, checksum) = self.sealed.split_first_chunk()?;
        let checksum = *checksum.first_chunk::<CHECKSUM_LEN>()?;
        if !base62::encodes_u32(&checksum, crc32fast::hash(self.body)) {
            return None;
        }
        let (id, secret) = (TokenId::from_bytes(self.id)?, TokenSecret::from_bytes(secret)?);
        Some(ParsedToken { id, secret, seal: Seal { prefix: self.prefix, checksum } })
    }
}

/// What follows a prefix. Of so few bytes it is a loop that is fast, not `memcmp`.
#[inline(always)]
fn strip<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, tail) = text.split_at_checked(prefix.len())?;
    start.iter().zip(prefix).all(|(one, two)| one == two).then_some(tail)
}

impl ParsedToken {
    /// Reads a token's text.
    pub(crate) fn parse<'p>(text: &[u8], accepted: impl IntoIterator<Item = &'p Prefix>) -> Result<Self, ShapeError> {
        Cut::of(text, accepted)?.read().ok_or(ShapeError::Broken)
    }

    /// Of a text that nobody has written.
    #[cfg(test)]
    pub(crate) const fn of_parts(id: TokenId, secret: TokenSecret) -> Self {
        Self { id, secret, seal: Seal { prefix: 0, checksum: [b'0'; CHECKSUM_LEN] } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[track_caller]
    fn parse(text: &str, accepted: &[Prefix]) -> Result<(TokenId, String), ShapeError> {
        ParsedToken::parse(text.as_bytes(), accepted).map(|token| (token.id, token.secret.expose().to_owned()))
    }

    #[test]
    fn a_generated_token_parses_back_and_has_the_fixed_length() {
        for text in ["tta", "github_pat", "a1"] {
            let token = PlaintextToken::generate(&prefix(text)).unwrap();
            assert_eq!(token.expose().len(), text.len() + TAIL_LEN);
            let parsed = parse(token.expose(), &[prefix(text)]);
            assert_eq!(parsed, Ok((token.id(), token.secret().expose().to_owned())));
        }
    }

    #[test]
    fn the_text_is_pinned() {
        // Every token ever handed out has this shape. If this test fails, they all stop working.
        let id = "0123456789abcdef".parse().unwrap();
        let secret = TokenSecret::from_bytes(b"0123456789ABCDEFGHIJKLMNOPQRSTUV").unwrap();
        let token = PlaintextToken::assemble(&Prefix::default(), id, secret);
        assert_eq!(token.expose(), "tta_0123456789abcdef_0123456789ABCDEFGHIJKLMNOPQRSTUV1rN9TJ");
        assert_eq!(format!("{token:?}"), "PlaintextToken(tta_0123456789abcdef_[redacted])");
    }

    #[test]
    fn any_one_byte_changed_is_refused() {
        let accepted = [Prefix::default()];
        let token = PlaintextToken::generate(&accepted[0]).unwrap();
        for at in 0..token.expose().len() {
            for byte in 0..=u8::MAX {
                let mut text = token.expose().as_bytes().to_vec();
                if text[at] == byte {
                    continue;
                }
                text[at] = byte;
                assert!(ParsedToken::parse(&text, &accepted).is_err(), "byte {at} as {byte:#04x}");
            }
        }
    }

    #[test]
    fn a_foreign_token_is_told_from_a_broken_one() {
        let accepted = [prefix("new"), prefix("old")];
        let old = PlaintextToken::generate(&accepted[1]).unwrap();
        assert!(parse(old.expose(), &accepted).is_ok(), "an accepted prefix beside the first");
        assert_eq!(parse(old.expose(), &accepted[..1]).unwrap_err(), ShapeError::Foreign);
        for foreign in ["", "n", "new", "newer_abc", "eyJhbGciOi.J9.abc", "NEW_abc"] {
            assert_eq!(parse(foreign, &accepted).unwrap_err(), ShapeError::Foreign, "{foreign:?}");
        }
        let longer = format!("{}0", old.expose());
        for broken in ["new_", "old_abc", &longer, &old.expose()[..old.expose().len() - 1]] {
            assert_eq!(parse(broken, &accepted).unwrap_err(), ShapeError::Broken, "{broken:?}");
        }
    }

    #[test]
    fn one_prefix_may_begin_another() {
        let accepted = [prefix("ac"), prefix("ac_me")];
        for issued in &accepted {
            let token = PlaintextToken::generate(issued).unwrap();
            assert!(parse(token.expose(), &accepted).is_ok(), "{issued}");
        }
    }

    #[test]
    fn prefixes_are_judged() {
        for legal in ["tta", "a1", "github_pat", "abcdefghijklmnop"] {
            assert!(legal.parse::<Prefix>().is_ok(), "{legal}");
        }
        for illegal in ["", "a", "1a", "_a", "a_", "Acme", "a-b", "a b", "é", "abcdefghijklmnopq"] {
            assert_eq!(illegal.parse::<Prefix>(), Err(PrefixError(())), "{illegal:?}");
        }
    }

    #[test]
    fn a_wrong_prefix_is_told_the_rule() {
        let rule = "a prefix is 2 to 16 characters of a-z, 0-9 and _, beginning with a letter and not ending with _";
        assert_eq!("Acme!".parse::<Prefix>().unwrap_err().to_string(), rule);
    }

    #[test]
    fn the_expression_for_scanners_spells_the_shape_out() {
        assert_eq!(prefix("acme").scanner_regex(), r"\bacme_[0-9A-Za-z]{16}_[0-9A-Za-z]{38}\b");
    }

    #[test]
    fn the_buffer_of_a_token_never_grew() {
        for text in ["tta", "github_pat", "a1"] {
            let token = PlaintextToken::generate(&prefix(text)).unwrap();
            assert_eq!(token.text.capacity(), String::with_capacity(token.text.len()).capacity(), "{text}");
        }
    }
}
