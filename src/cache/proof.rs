//! Proofs: remembering that a secret was right without remembering the secret.

use std::ops::Range;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::base62::{self, RandomError};
use crate::secret::{SecretHash, TokenSecret};
use crate::token::{Seal, Tag};

/// A gate's own random key, 16 bytes, in the blocks that are hashed under it.
pub(crate) struct TagKey {
    secret: Block,
    text: Block,
}

impl TagKey {
    const LEN: usize = 16;
    /// Where a secret stands in a block.
    const SECRET: Range<usize> = Self::LEN..Self::LEN + TokenSecret::LEN;
    /// Where the checksum stands in the block of a text. A byte for the prefix follows.
    const CHECKSUM: Range<usize> = Self::SECRET.end..Self::SECRET.end + 6;

    pub(crate) fn generate() -> Result<Self, RandomError> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        base62::random_bytes(&mut *key)?;
        let block = |len| Block::padded(len).with(0..Self::LEN, &*key);
        Ok(Self { secret: block(Self::SECRET.end), text: block(Self::CHECKSUM.end + 1) })
    }

    /// SHA-256 over the key and the secret, both of fixed length. One-way even for whoever has the key (G11): a dump
    /// of the process gives tags, not secrets.
    pub(crate) fn tag(&self, secret: &[u8; TokenSecret::LEN]) -> Tag {
        self.secret.clone().with(Self::SECRET, secret).hash()
    }

    /// The same over all of a token's text but its id. The message is longer, so no tag of a secret is one of a text.
    pub(crate) fn tag_text(&self, secret: &[u8; TokenSecret::LEN], seal: Seal) -> Tag {
        self.text.clone().with(Self::SECRET, secret).with_last(seal).hash()
    }
}

/// Tells stored hashes apart without their text.
///
/// 64 bits under a key of the gate's own: nobody can look for two hashes that it takes for one, and of 2⁶⁴ changes of a
/// hash one would keep the proof of the hash before.
pub(super) struct Fingerprints(Zeroizing<[u8; 16]>);

impl Fingerprints {
    pub(super) fn generate() -> Result<Self, RandomError> {
        let mut key = Zeroizing::new([0; 16]);
        base62::random_bytes(&mut *key)?;
        Ok(Self(key))
    }

    pub(super) fn of(&self, hash: &SecretHash) -> u64 {
        let digest = Sha256::new().chain_update(*self.0).chain_update(hash.to_text()).finalize();
        digest.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
    }
}

/// The initial state of SHA-256 (FIPS 180-4, §5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The only block of a short message, wiped when dropped. It is copied as a whole, because the compression reads sixteen
/// bytes at a time and would wait for what is written in smaller pieces. One compression of it is all of SHA-256; the ordinary
/// interface takes twice as long for so little.
#[derive(Clone)]
struct Block([u8; 64]);

impl Block {
    /// The block of a message of `len` bytes, at most 55, apart from the message itself (FIPS 180-4, §5.1.1).
    #[expect(clippy::indexing_slicing, reason = "constant indices below 64; `len` is a constant below 56")]
    const fn padded(len: usize) -> Self {
        assert!(len < 56);
        let mut block = [0_u8; 64];
        block[len] = 0x80;
        let bits = (len as u64 * 8).to_be_bytes();
        block[62] = bits[6];
        block[63] = bits[7];
        Self(block)
    }

    fn with(mut self, place: Range<usize>, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(place).filter(|place| place.len() == bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    /// Puts a seal behind the secret, in one piece with what follows it.
    fn with_last(self, seal: Seal) -> Self {
        let [a, b, c, d, e, f] = seal.checksum;
        let sealed = u128::from_le_bytes([a, b, c, d, e, f, seal.prefix, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let last = self.0.last_chunk().map_or(0, |last| u128::from_le_bytes(*last));
        let last = (last | sealed).to_le_bytes();
        self.with(TagKey::SECRET.end..64, &last)
    }

    fn hash(self) -> Tag {
        let mut state = INITIAL;
        compress256(&mut state, std::slice::from_ref(&self.0));
        Tag::of_state(state)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        zeroize::zeroize_bytes(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_digest(tag: Tag, parts: &[&[u8]]) {
        let digest = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
        let words: Vec<u8> = tag.words().iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(words, digest[..16]);
    }

    #[test]
    fn a_tag_is_the_sha_256_of_the_key_and_what_is_tagged() {
        for prefix in [0, 1, u8::MAX] {
            let (key, secret) = (TagKey::generate().unwrap(), TokenSecret::generate().unwrap());
            let (seal, bytes) = (Seal { prefix, checksum: *b"0Zz9aA" }, &key.secret.0[..TagKey::LEN]);
            assert_eq!(bytes, &key.text.0[..TagKey::LEN]);
            assert_digest(key.tag(secret.as_bytes()), &[bytes, secret.as_bytes()]);
            let text = key.tag_text(secret.as_bytes(), seal);
            assert_digest(text, &[bytes, secret.as_bytes(), &seal.checksum, &[prefix]]);
        }
    }
}
