//! Guides: longer than an item's documentation, each of them compiled.

#[doc = include_str!("bringing_your_own_table.md")]
pub mod bringing_your_own_table {}

#[doc = include_str!("choosing_a_policy.md")]
pub mod choosing_a_policy {}

#[doc = include_str!("rotating_a_token.md")]
pub mod rotating_a_token {}

#[doc = include_str!("running_several_servers.md")]
pub mod running_several_servers {}

#[doc = include_str!("what_to_log.md")]
pub mod what_to_log {}
