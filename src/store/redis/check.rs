//! Whether Redis is told to keep what it acknowledges.

use redis::RedisError;
use redis::aio::ConnectionManager;

use crate::decision::StoreError;
use crate::store::Durability;

/// What the configuration promises. Warns where that is too little.
pub(super) async fn durability(connection: &mut ConnectionManager) -> Result<Durability, StoreError> {
    match Configuration::read(connection).await {
        Ok(configuration) => Ok(configuration.judge()),
        // It answered, and will not tell.
        Err(error) if error.kind_is_answer() => {
            tracing::warn!(%error, "Redis does not tell its configuration: it has to be durable, and must not evict keys");
            Ok(Durability::Volatile)
        }
        Err(error) => Err(StoreError::new(error)),
    }
}

trait Answered {
    fn kind_is_answer(&self) -> bool;
}

impl Answered for RedisError {
    fn kind_is_answer(&self) -> bool {
        matches!(self.kind(), redis::ErrorKind::Server(_) | redis::ErrorKind::Extension)
    }
}

#[derive(Debug)]
struct Configuration {
    append_only: String,
    append_fsync: String,
    max_memory: String,
    policy: String,
}

impl Configuration {
    async fn read(connection: &mut ConnectionManager) -> Result<Self, RedisError> {
        Ok(Self {
            append_only: setting(connection, "appendonly").await?,
            append_fsync: setting(connection, "appendfsync").await?,
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
                "a crash of Redis may revive revoked tokens: set appendonly yes and appendfsync always"
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
        self.append_only == "yes" && self.append_fsync == "always"
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

    fn judged(append_only: &str, append_fsync: &str, max_memory: &str, policy: &str) -> Durability {
        let [append_only, append_fsync, max_memory, policy] =
            [append_only, append_fsync, max_memory, policy].map(str::to_owned);
        Configuration { append_only, append_fsync, max_memory, policy }.judge()
    }

    #[test]
    fn only_a_synced_log_without_eviction_is_durable() {
        for (append_only, append_fsync, max_memory, policy, durability) in [
            ("yes", "always", "0", "noeviction", Durability::Durable),
            ("yes", "always", "0", "allkeys-lru", Durability::Durable),
            ("yes", "always", "1000", "noeviction", Durability::Durable),
            ("yes", "always", "1000", "volatile-lru", Durability::Durable),
            ("yes", "always", "1000", "allkeys-lru", Durability::Volatile),
            ("yes", "everysec", "0", "noeviction", Durability::Volatile),
            ("yes", "no", "0", "noeviction", Durability::Volatile),
            ("no", "always", "0", "noeviction", Durability::Volatile),
        ] {
            let judged = judged(append_only, append_fsync, max_memory, policy);
            assert_eq!(judged, durability, "{append_only} {append_fsync} {max_memory} {policy}");
        }
    }
}
