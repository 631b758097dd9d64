//! Secrets: the part of a token that proves it, and the hash a store keeps of it.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::base62::{self, RandomError};
use crate::id::TokenId;

/// The secret part of a token's text: 32 base62 digits, more than 190 bits.
///
/// Wiped when dropped, shown by `Debug` as `[redacted]`, compared by nobody. [`expose`](Self::expose) is the one way
/// to its text.
#[derive(Clone)]
pub struct TokenSecret([u8; Self::LEN]);

impl TokenSecret {
    /// Length in bytes, which are all ASCII.
    pub const LEN: usize = 32;

    /// A new secret from the operating system's CSPRNG.
    ///
    /// # Errors
    /// [`RandomError`] when the system has no random bytes to give.
    pub fn generate() -> Result<Self, RandomError> {
        base62::random().map(Self)
    }

    /// Reads 32 base62 digits; `None` for anything else.
    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        base62::is_base62(bytes).then(|| Self(*bytes))
    }

    /// The secret's text.
    ///
    /// # Security
    /// Whoever has this and the token's id has the token. Hash it; do not store, log or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        // Every constructor admits base62 only, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TokenSecret {
    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl Drop for TokenSecret {
    fn drop(&mut self) {
        // Not byte by byte, as `zeroize` of an array does it: this is on every request's way.
        zeroize::zeroize_bytes(&mut self.0);
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What a store keeps of a secret: a hash in PHC form, with a 32-bit precheck where the secret was generated here.
///
/// The text form, which fits one column, is `$tta$<8 hex digits>$argon2id$v=19$…`; a PHC string without the first
/// two fields is accepted as a hash that has no precheck. The hash does not reveal the secret, but belongs in no log:
/// `Debug` hides it.
///
/// # How the precheck works
/// It is the first 32 bits of a domain-separated SHA-256 over the token's id and secret. A wrong secret is refused by
/// it, all but once in 2³², before any slow hash runs: guesses cost an attacker the same and the server nothing.
/// It tells 32 of the secret's 190 bits to whoever reads the store, which leaves 158.
///
/// # Example
/// ```
/// use tower_token_auth::SecretHash;
///
/// let stored = SecretHash::parse("$tta$1a2b3c4d$sha256$v=1$AAAA")?;
/// assert_eq!(stored.phc(), "$sha256$v=1$AAAA");
/// assert_eq!(stored.to_text(), "$tta$1a2b3c4d$sha256$v=1$AAAA");
/// # Ok::<(), tower_token_auth::SecretHashError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    phc: Box<str>,
    precheck: Option<u32>,
}

const PRECHECK_MARK: &str = "$tta$";
const PRECHECK_DOMAIN: &[u8] = b"tower-token-auth precheck v1\0";

impl SecretHash {
    /// The greatest length of the text form, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Reads the text form, as a store has kept it.
    ///
    /// Only the outer shape is judged here; whether a hasher knows the scheme shows when a secret is verified.
    ///
    /// # Errors
    /// [`SecretHashError`] when the text is no PHC string, has a broken precheck, or is longer than
    /// [`MAX_LEN`](Self::MAX_LEN).
    pub fn parse(text: &str) -> Result<Self, SecretHashError> {
        if text.len() > Self::MAX_LEN {
            return Err(SecretHashError(()));
        }
        let Some(marked) = text.strip_prefix(PRECHECK_MARK) else {
            return Self::from_phc(text, None);
        };
        let (digits, phc) = marked.split_at_checked(8).ok_or(SecretHashError(()))?;
        if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(SecretHashError(()));
        }
        let precheck = u32::from_str_radix(digits, 16).map_err(|_| SecretHashError(()))?;
        Self::from_phc(phc, Some(precheck))
    }

    fn from_phc(phc: &str, precheck: Option<u32>) -> Result<Self, SecretHashError> {
        let scheme = phc.strip_prefix('$').and_then(|rest| rest.split('$').next());
        let well_formed = scheme.is_some_and(|scheme| !scheme.is_empty() && scheme != "tta")
            && phc.bytes().all(|byte| byte.is_ascii_graphic());
        if !well_formed {
            return Err(SecretHashError(()));
        }
        Ok(Self { phc: phc.into(), precheck })
    }

    /// The text form, to be stored.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self.precheck {
            Some(precheck) => format!("{PRECHECK_MARK}{precheck:08x}{}", self.phc),
            None => self.phc.to_string(),
        }
    }

    /// The hasher's own part, without the precheck.
    #[must_use]
    pub fn phc(&self) -> &str {
        &self.phc
    }

    /// The hasher's own name in the PHC string, such as `argon2id`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.phc.split('$').nth(1).unwrap_or_default()
    }

    /// The same hash with the precheck of this id and secret.
    #[must_use]
    pub fn with_precheck(self, id: &TokenId, secret: &TokenSecret) -> Self {
        Self { precheck: Some(precheck(id, secret)), ..self }
    }

    /// Whether a wrong secret can be refused without the hash.
    pub(crate) const fn has_precheck(&self) -> bool {
        self.precheck.is_some()
    }

    /// Whether the precheck rules the secret out. Without a precheck nothing is ruled out.
    pub(crate) fn rules_out(&self, id: &TokenId, secret: &TokenSecret) -> bool {
        self.precheck.is_some_and(|stored| stored != precheck(id, secret))
    }
}

fn precheck(id: &TokenId, secret: &TokenSecret) -> u32 {
    let digest = Sha256::new()
        .chain_update(PRECHECK_DOMAIN)
        .chain_update(id.as_bytes())
        .chain_update(secret.expose())
        .finalize();
    digest.iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({}, [redacted])", self.scheme())
    }
}

/// A stored text is not a [`SecretHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretHashError(());

impl fmt::Display for SecretHashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stored secret hash is not a PHC string of at most 512 bytes")
    }
}

impl std::error::Error for SecretHashError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> TokenSecret {
        TokenSecret::from_bytes(text.as_bytes().try_into().unwrap()).unwrap()
    }

    const SECRET: &str = "0123456789abcdef0123456789ABCDEF";

    #[test]
    fn debug_shows_neither_secret_nor_hash() {
        assert_eq!(format!("{:?}", secret(SECRET)), "[redacted]");
        let hash = SecretHash::parse("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g").unwrap();
        assert_eq!(format!("{hash:?}"), "SecretHash(argon2id, [redacted])");
    }

    #[test]
    fn the_text_form_survives_a_round_trip() {
        for text in ["$argon2id$v=19$m=8$c2FsdA$aGFzaA", "$tta$00000001$sha256$v=1$AAAA"] {
            assert_eq!(SecretHash::parse(text).unwrap().to_text(), text);
        }
    }

    #[test]
    fn text_that_is_no_hash_is_refused() {
        let long = format!("$a${}", "x".repeat(SecretHash::MAX_LEN));
        for wrong in [
            "",
            "plain",
            "$",
            "$$x",
            "$tta$",
            "$tta$1234",
            "$tta$1234567G$a$b",
            "$tta$12345678",
            "$tta$1A345678$a$b",
            "$tta$12345678$tta$12345678$a",
            "$a$\n",
            "$a$ü",
            "$tta$1234567é$a",
            &long,
        ] {
            assert_eq!(SecretHash::parse(wrong), Err(SecretHashError(())), "{wrong:?}");
        }
    }

    #[test]
    fn the_precheck_covers_every_byte_of_id_and_secret() {
        let id: TokenId = "0123456789abcdef".parse().unwrap();
        let hash = SecretHash::parse("$a$b").unwrap();
        assert!(!hash.rules_out(&id, &secret(SECRET)), "nothing is ruled out without a precheck");
        let hash = hash.with_precheck(&id, &secret(SECRET));
        assert!(!hash.rules_out(&id, &secret(SECRET)));
        for at in 0..TokenSecret::LEN {
            let mut other = SECRET.as_bytes().to_vec();
            other[at] = b'z';
            let other = String::from_utf8(other).unwrap();
            assert!(hash.rules_out(&id, &secret(&other)), "byte {at} is not covered");
        }
        let other: TokenId = "1123456789abcdef".parse().unwrap();
        assert!(hash.rules_out(&other, &secret(SECRET)));
    }
}
