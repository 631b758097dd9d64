//! Proofs: remembering that a secret was right without remembering the secret.

use std::ops::Range;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::base62::{self, RandomError};
use crate::secret::{SecretHash, TokenSecret};
use crate::token::{CHECKSUM_LEN, SEALED_LEN, Tag};

/// A gate's own random key, 16 bytes, in the blocks that are hashed under it.
pub(crate) struct TagKey {
    secret: Block,
    text: Block,
    /// Which of a text's last sixteen bytes are its checksum. Data, because a constant would be taken apart: into stores
    /// of single bytes, for which the compression has to wait.
    mask: [u8; Self::LEN],
}

impl TagKey {
    const LEN: usize = 16;
    /// Where a secret stands in a block, behind the key.
    const SECRET: Range<usize> = Self::LEN..Self::LEN + TokenSecret::LEN;
    /// Where the checksum stands in the block of a text: at the end of sixteen bytes, as it ends the last sixteen of the
    /// text, so that it goes there in one piece. Of the key, what would stand in its place follows the secret.
    const CHECKSUM: Range<usize> = Self::LEN - CHECKSUM_LEN..Self::LEN;

    const MASK: [u8; Self::LEN] = *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff";

    pub(crate) fn generate() -> Result<Self, RandomError> {
        let mut key = Zeroizing::new([0; Self::LEN]);
        base62::random_bytes(&mut *key)?;
        let (first, last) = key.split_at(Self::CHECKSUM.start);
        let end = Self::SECRET.end + CHECKSUM_LEN;
        Ok(Self {
            secret: Block::padded(Self::SECRET.end).with(0..Self::LEN, &*key),
            text: Block::padded(end).with(0..first.len(), first).with(Self::SECRET.end..end, last),
            mask: std::hint::black_box(Self::MASK),
        })
    }

    /// SHA-256 over the key and the secret, both of fixed length. One-way even for whoever has the key (G11): a dump
    /// of the process gives tags, not secrets.
    pub(crate) fn tag(&self, secret: &[u8; TokenSecret::LEN]) -> Tag {
        self.secret.clone().with(Self::SECRET, secret).hash()
    }

    /// The same over all of a token's text but its prefix and its id, which are no secrets. The message is longer, so no
    /// tag of a secret is one of a text.
    #[inline(always)]
    pub(crate) fn tag_text(&self, sealed: &[u8; SEALED_LEN]) -> Tag {
        let (secret, _) = sealed.split_at(TokenSecret::LEN);
        self.text.clone().with(Self::SECRET, secret).with_checksum(sealed, &self.mask).hash()
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

    #[inline(always)]
    fn with(mut self, place: Range<usize>, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(place).filter(|place| place.len() == bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    /// Puts in the checksum that a text ends with.
    #[inline(always)]
    fn with_checksum(mut self, sealed: &[u8; SEALED_LEN], mask: &[u8; TagKey::LEN]) -> Self {
        let (first, last) = (self.0.iter_mut(), sealed.iter().skip(SEALED_LEN - TagKey::LEN));
        first.zip(last.zip(mask)).for_each(|(place, (byte, mask))| *place |= byte & mask);
        self
    }

    #[inline(always)]
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
        let (key, secret) = (TagKey::generate().unwrap(), TokenSecret::generate().unwrap());
        let bytes = &key.secret.0[..TagKey::LEN];
        assert_digest(key.tag(secret.as_bytes()), &[bytes, secret.as_bytes()]);
        let sealed = [&secret.as_bytes()[..], b"0Zz9aA"].concat().try_into().unwrap();
        assert_digest(key.tag_text(&sealed), &[&bytes[..10], b"0Zz9aA", secret.as_bytes(), &bytes[10..]]);
    }
}
