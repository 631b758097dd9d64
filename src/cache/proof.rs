//! Proofs: remembering that a secret was right without remembering the secret.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::base62::{self, RandomError};
use crate::secret::{SecretHash, TokenSecret};
use crate::token::{SecretSlot, TokenRecord};

/// A gate's own random key, under which secrets are tagged.
pub(crate) struct TagKey(Zeroizing<[u8; 16]>);

impl TagKey {
    pub(crate) fn generate() -> Result<Self, RandomError> {
        let mut key = Zeroizing::new([0; 16]);
        base62::random_bytes(&mut *key)?;
        Ok(Self(key))
    }

    /// SHA-256 over the key and the secret, both of fixed length. One-way even for whoever has the key (G11): a dump
    /// of the process gives tags, not secrets.
    pub(crate) fn tag(&self, secret: &TokenSecret) -> Tag {
        Tag(Sha256::new().chain_update(*self.0).chain_update(secret.expose()).finalize().into())
    }
}

/// What a gate remembers of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tag([u8; 32]);

impl Tag {
    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[tag]")
    }
}

/// Which of a record's secrets have been proved, and by what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Proofs([Option<Tag>; 2]);

impl Proofs {
    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.0, [None, None])
    }

    pub(crate) fn of(&self, slot: SecretSlot) -> Option<&Tag> {
        let [current, retiring] = &self.0;
        match slot {
            SecretSlot::Current => current.as_ref(),
            SecretSlot::Retiring => retiring.as_ref(),
        }
    }

    pub(crate) fn matches(&self, slot: SecretSlot, tag: &Tag) -> bool {
        self.of(slot).is_some_and(|proof| proof.is(tag))
    }

    /// Notes that `tag` is the secret of every slot that holds `hash`.
    pub(crate) fn note(&mut self, record: &TokenRecord, hash: &SecretHash, tag: Tag) {
        for slot in SecretSlot::ALL {
            if hash_of(record, slot) == Some(hash) {
                self.set(slot, Some(tag));
            }
        }
    }

    /// The proofs that still hold for a changed record: those of hashes that it kept, wherever they stand now.
    pub(crate) fn carried(&self, from: &TokenRecord, to: &TokenRecord) -> Self {
        let mut carried = Self::default();
        for slot in SecretSlot::ALL {
            if let (Some(tag), Some(hash)) = (self.of(slot), hash_of(from, slot)) {
                carried.note(to, hash, *tag);
            }
        }
        carried
    }

    fn set(&mut self, slot: SecretSlot, tag: Option<Tag>) {
        let [current, retiring] = &mut self.0;
        match slot {
            SecretSlot::Current => *current = tag,
            SecretSlot::Retiring => *retiring = tag,
        }
    }
}

fn hash_of(record: &TokenRecord, slot: SecretSlot) -> Option<&SecretHash> {
    match slot {
        SecretSlot::Current => Some(record.secret()),
        SecretSlot::Retiring => record.retiring().map(crate::token::RetiringSecret::secret),
    }
}
