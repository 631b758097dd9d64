//! Whether Redis is told to keep what it acknowledges.

use redis::aio::ConnectionManager;
use redis::{ErrorKind, RedisError};

use crate::decision::StoreError;
use crate::store::Durability;

/// What the configuration promises. Warns where that is too little.
pub(super) async fn durability(connection: &mut ConnectionManager) -> Result<Durability, StoreError> {
    match Configuration::read(connection).await {
        Ok(configuration) => Ok(configuration.judge()),
        Err(error) if is_an_answer(&error) => {
            tracing::warn!(%error, "Redis does not tell its configuration: it has to be durable, and must not evict keys");
            Ok(Durability::Volatile)
        }
        Err(error) => Err(StoreError::new(error)),
    }
}

/// Whether Redis is there, and will not tell.
fn is_an_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

#[derive(Debug)]
struct Configuration {
    append_only: String,
    append_fsync: String,
    no_fsync_on_rewrite: String,
    max_memory: String,
    policy: String,
}

impl Configuration {
    async fn read(connection: &mut ConnectionManager) -> Result<Self, RedisError> {
        Ok(Self {
            append_only: setting(connection, "appendonly").await?,
            append_fsync: setting(connection, "appendfsync").await?,
            no_fsync_on_rewrite: setting(connection, "no-appendfsync-on-rewrite").await?,
            max_memory: setting(connection, "maxmemory").await?,
            policy: setting(connection, "maxmemory-policy").await?,
        })
    }

    fn judge(&self) -> Durability {
        let (kept, evicts) = (self.keeps(), self.evicts());
        if !kept {
            tracing::warn!(
                appendonly = self.append_only,
                appendfsync = self.append_fsync,
                no_appendfsync_on_rewrite = self.no_fsync_on_rewrite,
                "a crash of Redis may revive revoked tokens: set appendonly yes, appendfsync always and \
                 no-appendfsync-on-rewrite no"
            );
        }
        if evicts {
            tracing::warn!(
                maxmemory_policy = self.policy,
                "Redis may drop tokens and barred owners when its memory is full: set maxmemory-policy noeviction"
            );
        }
        if kept && !evicts { Durability::Durable } else { Durability::Volatile }
    }

    fn keeps(&self) -> bool {
        self.append_only == "yes" && self.append_fsync == "always" && self.no_fsync_on_rewrite == "no"
    }

    /// The `volatile-…` policies drop keys that expire, and none of ours does.
    fn evicts(&self) -> bool {
        self.max_memory != "0" && !self.policy.starts_with("volatile-") && self.policy != "noeviction"
    }
}

async fn setting(connection: &mut ConnectionManager, name: &str) -> Result<String, RedisError> {
    let (_, value): (String, String) = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(settings: [&str; 5]) -> Durability {
        let [append_only, append_fsync, no_fsync_on_rewrite, max_memory, policy] = settings.map(str::to_owned);
        Configuration { append_only, append_fsync, no_fsync_on_rewrite, max_memory, policy }.judge()
    }

    #[test]
    fn only_a_synced_log_without_eviction_is_durable() {
        for (settings, durability) in [
            (["yes", "always", "no", "0", "noeviction"], Durability::Durable),
            (["yes", "always", "no", "0", "allkeys-lru"], Durability::Durable),
            (["yes", "always", "no", "1000", "noeviction"], Durability::Durable),
            (["yes", "always", "no", "1000", "volatile-lru"], Durability::Durable),
            (["yes", "always", "no", "1000", "allkeys-lru"], Durability::Volatile),
            (["yes", "always", "yes", "0", "noeviction"], Durability::Volatile),
            (["yes", "everysec", "no", "0", "noeviction"], Durability::Volatile),
            (["yes", "no", "no", "0", "noeviction"], Durability::Volatile),
            (["no", "always", "no", "0", "noeviction"], Durability::Volatile),
        ] {
            assert_eq!(judged(settings), durability, "{settings:?}");
        }
    }
}
