//! What of an acknowledged change survives.

use std::fmt;

/// What a store still holds, after a disaster, of what it has acknowledged. Each survives what those before it survive.
///
/// It is said of one server. Where another takes over by failover, what had not reached it is gone as well, unless the
/// store waits for its replicas.
///
/// # Example
/// ```
/// use tower_token_auth::{Durability, MemoryStore, TokenRegistry};
///
/// assert_eq!(MemoryStore::new().durability(), Durability::Volatile);
/// assert!(Durability::Durable > Durability::CrashSafe);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing is promised. A restart may forget tokens, and revive revoked ones.
    Volatile,
    /// It survives a crash of the store's process, not of its machine.
    CrashSafe,
    /// It survives a loss of power: it was on the disk before it was acknowledged.
    Durable,
}

impl Durability {
    /// The text form, for logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::CrashSafe => "crash-safe",
            Self::Durable => "durable",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
