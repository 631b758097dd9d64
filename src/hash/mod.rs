//! Hashing secrets: the port, the default (argon2id) and the fast one (SHA-256).
//!
//! # Which one?
//! Secrets made here carry more than 190 bits of randomness. NIST SP 800-63B §5.1.2.2 asks for a slow hash only below
//! 112 bits, so [`Sha256Hasher`] is sound for them, and a cold token then costs microseconds.
//! [`Argon2Hasher`] is the default because it also holds where secrets were brought along from elsewhere and may be
//! weak, and because a leaked table of argon2id hashes is an easy conversation with an auditor. Its price is paid once
//! per token, process and cache lifetime, on a worker thread: some 20 ms and 19 MiB.

mod argon2id;
mod sha256;

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

pub use argon2id::{Argon2Cost, Argon2Hasher};
pub use sha256::Sha256Hasher;

use crate::base62::RandomError;
use crate::secret::{SecretHash, TokenSecret};

/// Turns secrets into hashes and back into verdicts.
///
/// An implementor *must* compare in constant time, *must* cap cost parameters that it reads from a stored hash before
/// obeying them, and *may* block: an [`Offload`](HashCost::Offload) hasher only ever runs on a worker thread. A panic
/// is an error for those who wait, nothing worse.
pub trait SecretHasher: Send + Sync + 'static {
    /// Whether this hasher made, or can verify, a stored hash. Several hashers can serve one gate; the first that
    /// recognises a hash verifies it.
    fn recognises(&self, hash: &SecretHash) -> bool;

    /// Whether a verification is cheap enough for the request's own thread.
    fn cost(&self) -> HashCost;

    /// Hashes a new secret.
    ///
    /// # Errors
    /// [`HashError`] when there is no randomness for a salt, or the algorithm fails.
    fn hash(&self, secret: &TokenSecret, scratch: &mut Scratch) -> Result<SecretHash, HashError>;

    /// Whether `secret` is the one that `hash` was made of.
    ///
    /// # Errors
    /// [`HashError`] when the stored hash is malformed, too costly, or asks for a pepper that is not configured.
    fn verify(&self, secret: &TokenSecret, hash: &SecretHash, scratch: &mut Scratch) -> Result<bool, HashError>;

    /// Whether a hash is as good as this hasher would make it today; `false` asks for a re-hash. Of two processes that are
    /// configured differently no more than one should say so of the other's hashes: each would undo what the other did,
    /// once for each secret.
    fn is_current(&self, hash: &SecretHash) -> bool;
}

/// Where a hasher's work may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "work runs here or elsewhere")]
pub enum HashCost {
    /// Microseconds: on the thread that handles the request.
    Inline,
    /// Milliseconds or megabytes: on a worker of the hash crew.
    Offload,
}

/// Memory that a worker keeps between hashes, so that a costly block is allocated once per worker.
///
/// A hasher takes out a value of a type of its own and puts it back when it is done; nobody else sees it.
#[derive(Default)]
pub struct Scratch(Vec<Box<dyn Any + Send>>);

impl Scratch {
    /// An empty scratch. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out the kept `T`, or a new one.
    pub fn take<T: Any + Send + Default>(&mut self) -> T {
        let kept = self.0.iter().position(|kept| kept.is::<T>()).map(|at| self.0.swap_remove(at));
        kept.and_then(|kept| kept.downcast().ok()).map(|kept| *kept).unwrap_or_default()
    }

    /// Keeps `value` for the next hash.
    pub fn put<T: Any + Send>(&mut self, value: T) {
        self.0.push(Box::new(value));
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// Why a hasher could not answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum HashError {
    /// No configured hasher knows the stored hash's scheme.
    Unrecognised,
    /// The stored hash does not parse.
    Malformed,
    /// The stored hash asks for more memory or time than the hasher may spend.
    TooCostly,
    /// The stored hash names a pepper that is not configured.
    UnknownPepper,
    /// There are no random bytes for a salt.
    Random(RandomError),
    /// The algorithm itself failed.
    Failed(Box<dyn StdError + Send + Sync>),
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unrecognised => "no hasher recognises the stored hash",
            Self::Malformed => "the stored hash is malformed",
            Self::TooCostly => "the stored hash asks for more memory or time than the hasher may spend",
            Self::UnknownPepper => "the stored hash names a pepper that is not configured",
            Self::Random(_) => "no random salt could be drawn",
            Self::Failed(_) => "the hash algorithm failed",
        })
    }
}

impl StdError for HashError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Random(error) => Some(error),
            Self::Failed(error) => Some(&**error),
            Self::Unrecognised | Self::Malformed | Self::TooCostly | Self::UnknownPepper => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_keeps_one_value_per_type() {
        let mut scratch = Scratch::new();
        scratch.put(vec![1_u8]);
        scratch.put(String::from("kept"));
        assert_eq!(scratch.take::<Vec<u8>>(), [1]);
        assert!(scratch.take::<Vec<u8>>().is_empty(), "taken once");
        assert_eq!(scratch.take::<String>(), "kept");
    }
}
