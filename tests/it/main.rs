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
mod configuration;
mod conformance;
mod desk;
mod extractors;
mod identities;
mod imports;
mod metrics;
pub mod oracles;
mod pass_modes;
#[cfg(feature = "postgres")]
mod postgres;
mod properties;
mod queued_sink;
mod refusals;
mod secrecy;
mod servers;
mod siege;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod tower_contract;
mod vectors;
