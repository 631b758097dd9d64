//! Tokens in Redis, shared by many processes.
//!
//! | key, after the prefix | what it is |
//! |---|---|
//! | `token:<id>` | a hash: one token, every field as text |
//! | `ids` | a sorted set: all ids, in the order of their text |
//! | `owner:<owner>` | a sorted set: the ids of one owner's tokens |
//! | `barred` | a set: the barred owners |
//! | `changes`, `changes:count` | a stream: what changed, for the feed; and how many changes there ever were |

mod check;
mod feed;
mod keys;
mod record;
mod registry;
mod scripts;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::ConnectionManager;

pub use self::feed::RedisFeed;
pub use self::keys::KeyPrefixError;
use self::keys::Keys;
use super::Durability;
use crate::decision::StoreError;

/// Tokens in Redis 5 or newer, or Valkey. A clone is another handle to the same tokens.
///
/// The application makes the connection, with the addresses, credentials, TLS and time limits that it wants; every
/// process that is given the same server and key prefix shares the tokens. What one process changes reaches the caches of
/// the others through [`feed`](Self::feed).
///
/// # Example
/// ```no_run
/// use tower_token_auth::{Durability, RedisStore, TokenAuthLayer};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = redis::Client::open("redis://tokens.internal")?;
/// let store = RedisStore::new(client.get_connection_manager().await?).with_key_prefix("shop:tokens:")?;
/// if store.check().await? < Durability::Durable {
///     eprintln!("a crash of Redis may revive revoked tokens");
/// }
/// let auth = TokenAuthLayer::new(store.clone());
/// tokio::spawn(auth.handle().follow(store.feed(client)));
/// # Ok(())
/// # }
/// ```
///
/// # What Redis has to be told
/// By its defaults Redis forgets the last minutes in a crash, and with them who was revoked. [`check`](Self::check) looks
/// and warns:
///
/// ```text
/// appendonly                yes
/// appendfsync               always
/// no-appendfsync-on-rewrite no
/// maxmemory-policy          noeviction
/// ```
///
/// With `appendfsync everysec` a crash takes up to two seconds of acknowledged changes. With an eviction policy that
/// begins with `allkeys`, Redis drops tokens and *the set of barred owners* when its memory is full.
///
/// # Security
/// **A failover can revive revoked tokens.** Replication is asynchronous: a replica that takes over may lack the changes of
/// the last moments, and there a token that was revoked works again, and a barred owner is not. Nobody is told. `WAIT` and
/// `min-replicas-to-write` narrow the gap and do not close it. After a failover, revoke again what was revoked shortly
/// before; where that is not good enough, keep the tokens in PostgreSQL. Reading from replicas is as stale as they are.
///
/// Whoever can write to this Redis can make tokens. It belongs behind credentials, and its keys to this application.
///
/// # Not with Redis Cluster
/// A change touches several keys at once, which a cluster spreads over its servers; nor does the connection manager follow
/// a cluster or a sentinel. A token is about 1 KB: a million fit into one server.
///
/// # Cost
/// One round trip a look-up, two a change, one for each 5,000 uses of a batch. A listing takes one for each 200 tokens
/// that it looks at, of one owner or of all; after 10,000 it answers with what it found, which may be less than a page.
/// To prune, all tokens are looked at. No key is ever searched for.
///
/// # When things fail
/// An error is "unknown", not "no": a change whose answer was lost may have been made. The connection manager limits the
/// time of an answer, to 500 ms unless it was told otherwise, and connects again by itself at the next call; its waits
/// double from 100 ms on unless `ConnectionManagerConfig::set_max_delay` bounds them.
#[derive(Clone)]
pub struct RedisStore {
    connection: ConnectionManager,
    keys: Keys,
    durable: Arc<AtomicBool>,
}

impl RedisStore {
    /// The tokens of the application, whose keys begin with `tta:`.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection, keys: Keys::default(), durable: Arc::default() }
    }

    /// The tokens whose keys begin with `prefix`: the same for all processes that share them, another for each
    /// application beside. No prefix may be the beginning of another.
    ///
    /// # Errors
    /// [`KeyPrefixError`] unless it is 1 to 64 letters, digits and `:`, `.`, `_` or `-`.
    pub fn with_key_prefix(self, prefix: &str) -> Result<Self, KeyPrefixError> {
        Ok(Self { keys: Keys::new(prefix)?, ..self })
    }

    /// Looks whether what Redis acknowledges is durable, and warns where it is not, and where it evicts keys: for the
    /// start of a server. [`durability`](crate::TokenRegistry::durability) answers from then on what this did.
    ///
    /// Where Redis does not let its configuration be read, as some hosts do not, it is warned of that, and nothing is
    /// promised.
    ///
    /// # Errors
    /// [`StoreError`] when Redis cannot be reached.
    pub async fn check(&self) -> Result<Durability, StoreError> {
        let durability = check::durability(&mut self.connection.clone()).await?;
        self.durable.store(durability == Durability::Durable, Ordering::Relaxed);
        Ok(durability)
    }

    /// Tells of the changes that any process makes. It makes a connection of its own, as it waits there.
    #[must_use]
    pub fn feed(&self, client: redis::Client) -> RedisFeed {
        RedisFeed::new(client, self.keys.clone())
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("keys", &self.keys).field("durable", &self.durable).finish_non_exhaustive()
    }
}
