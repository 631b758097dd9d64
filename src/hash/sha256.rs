//! SHA-256: sound for random secrets, and three orders of magnitude cheaper than argon2id.

use base64ct::{Base64Unpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{HashCost, HashError, Scratch, SecretHasher};
use crate::secret::{SecretHash, TokenSecret};

const HEAD: &str = "$sha256$v=1$";
const DOMAIN: &[u8] = b"tower-token-auth sha256 v1\0";

/// SHA-256 over a fixed domain and the secret, without a salt: 190 random bits need none.
///
/// # Security
/// Only for secrets this crate generated. A secret that a person chose falls to a graphics card in seconds.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Sha256Hasher;

impl Sha256Hasher {
    /// The hasher; it has no options.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

fn digest(secret: &TokenSecret) -> [u8; 32] {
    Sha256::new().chain_update(DOMAIN).chain_update(secret.expose()).finalize().into()
}

impl SecretHasher for Sha256Hasher {
    fn recognises(&self, hash: &SecretHash) -> bool {
        hash.scheme() == "sha256"
    }

    fn cost(&self) -> HashCost {
        HashCost::Inline
    }

    fn hash(&self, secret: &TokenSecret, _: &mut Scratch) -> Result<SecretHash, HashError> {
        let text = format!("{HEAD}{}", Base64Unpadded::encode_string(&digest(secret)));
        SecretHash::parse(&text).map_err(|error| HashError::Failed(error.into()))
    }

    fn verify(&self, secret: &TokenSecret, hash: &SecretHash, _: &mut Scratch) -> Result<bool, HashError> {
        let mut expected = [0_u8; 32];
        let text = hash.phc().strip_prefix(HEAD).ok_or(HashError::Malformed)?;
        let decoded = Base64Unpadded::decode(text, &mut expected).map_err(|_| HashError::Malformed)?;
        if decoded.len() != 32 {
            return Err(HashError::Malformed);
        }
        Ok(digest(secret).ct_eq(&expected).into())
    }

    fn is_current(&self, hash: &SecretHash) -> bool {
        hash.phc().starts_with(HEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hashed_secret_verifies() {
        let (hasher, scratch) = (Sha256Hasher::new(), &mut Scratch::new());
        let (right, wrong) = (TokenSecret::generate().unwrap(), TokenSecret::generate().unwrap());
        let stored = hasher.hash(&right, scratch).unwrap();
        assert!(hasher.recognises(&stored) && hasher.is_current(&stored));
        assert!(hasher.verify(&right, &stored, scratch).unwrap());
        assert!(!hasher.verify(&wrong, &stored, scratch).unwrap());
    }

    #[test]
    fn the_stored_form_is_pinned() {
        let secret = TokenSecret::from_bytes(b"0123456789abcdef0123456789abcdef").unwrap();
        let stored = Sha256Hasher::new().hash(&secret, &mut Scratch::new()).unwrap();
        assert_eq!(stored.to_text(), "$sha256$v=1$ZCb5whn2Pu97vGfNjzJ26icH8wk/kF9oZ/ipewBPiRQ");
    }

    #[test]
    fn a_malformed_hash_is_an_error_not_a_mismatch() {
        let secret = TokenSecret::generate().unwrap();
        for text in ["$sha256$v=1$", "$sha256$v=1$AAAA", "$sha256$v=2$AAAA", "$sha256$v=1$!!!!"] {
            let answer = Sha256Hasher::new().verify(&secret, &SecretHash::parse(text).unwrap(), &mut Scratch::new());
            assert!(matches!(answer, Err(HashError::Malformed)), "{text}: {answer:?}");
        }
    }
}
