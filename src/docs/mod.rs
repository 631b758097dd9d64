//! Guides: longer than an item's documentation, each of them compiled.

#[doc = include_str!("choosing_a_policy.md")]
pub mod choosing_a_policy {}

#[doc = include_str!("rotating_a_token.md")]
pub mod rotating_a_token {}

#[doc = include_str!("what_to_log.md")]
pub mod what_to_log {}
