//! What all benchmarks share: complete tower services, and rounds that interleave them.
//!
//! A machine is noisy and shared, so nothing here is compared across runs. Every round measures every contender once,
//! in turn; what is told is the median over the rounds, and ratios within the run.
//!
//! Without the feature `peers` there is only what `paths` needs, which counts instructions.

mod service;

#[cfg(feature = "peers")]
pub mod arguments;
#[cfg(feature = "peers")]
pub mod ours;
#[cfg(feature = "peers")]
pub mod peers;
#[cfg(feature = "peers")]
pub mod raw;
#[cfg(feature = "peers")]
pub mod rounds;
#[cfg(feature = "peers")]
pub mod tokens;

pub use service::{Bare, Body, Template, call};
