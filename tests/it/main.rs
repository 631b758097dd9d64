//! The integration tests: one file per rule, one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics, and says where"
)]

mod access_matrix;
mod ahead;
mod allocations;
mod audit;
mod cache_model;
mod cache_rules;
mod columns;
mod configuration;
mod conformance;
mod desk;
mod desk_bounds;
mod desk_ensure;
mod desk_life;
mod desk_model;
mod desk_rotation;
mod desk_rules;
mod desk_seeing;
mod desk_table;
mod extractors;
mod history;
mod identities;
mod imports;
mod json_lines;
mod last_used;
mod metrics;
pub mod oracles;
mod owners;
mod pass_modes;
mod policy_at_use;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(all(unix, any(feature = "postgres", feature = "redis", feature = "sqlite")))]
mod processes;
mod properties;
mod queued_sink;
#[cfg(all(unix, feature = "redis"))]
mod redis_store;
mod refusals;
mod report_only;
mod sampling;
mod scripted;
mod secrecy;
#[cfg(unix)]
mod servers;
mod siege;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql_history;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod threshold;
mod token_headers;
mod tower_contract;
mod upkeep;
mod vectors;
mod who_am_i;
