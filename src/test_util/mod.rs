//! Test doubles and short cuts, for this crate's tests and for yours.
//!
//! Time that is turned by hand, hashes that cost nothing, a store and a sink that misbehave on request, tokens in one
//! line, and the one assertion every guarded application should make. Nothing here assumes an async runtime.
//! Behind the feature `test-util`, which belongs under `[dev-dependencies]`.
//!
//! | double | of | what it adds |
//! |---|---|---|
//! | [`ManualClock`] | [`Clock`](crate::Clock) | stands still until it is turned |
//! | [`CheapHasher`] | [`SecretHasher`](crate::SecretHasher) | counts, fails, panics, waits |
//! | [`ScriptedStore`] | [`TokenRegistry`](crate::TokenRegistry) | counts look-ups; delays, fails, hangs, panics, answers nonsense |
//! | [`RecordingSink`] | [`AuditSink`](crate::AuditSink) | keeps the events; fails, panics |
//!
//! [`conformance`] checks a [`TokenRegistry`](crate::TokenRegistry) of yours by the rules that all stores here keep.
//!
//! A clone of any of them is another handle to the same thing: give one to the gate and keep one.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use tower_token_auth::test_util::{ManualClock, ScriptedStore, mint};
//! use tower_token_auth::{AuthenticatedToken, Clock, MemoryStore, Scope, TokenStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A token in one line, in a store that fails when told to.
//! let store = ScriptedStore::new(MemoryStore::new());
//! let token = mint(&store, "alice", Scope::ReadOnly).await?;
//! assert!(store.find(&token.id()).await?.is_some());
//! store.fail();
//! assert!(store.find(&token.id()).await.is_err());
//! assert_eq!(store.finds(), 2);
//!
//! // An hour in no time.
//! let clock = ManualClock::default();
//! let timer = clock.sleep(Duration::from_secs(3600));
//! clock.advance(Duration::from_secs(3600));
//! timer.await;
//!
//! // What a handler gets, without a gate.
//! let alice = AuthenticatedToken::builder("alice", "laptop", Scope::ReadOnly).build()?;
//! assert_eq!(alice.owner().as_str(), "alice");
//! # Ok(())
//! # }
//! ```

mod anonymous;
mod authenticated;
mod clock;
pub mod conformance;
mod hasher;
mod mint;
mod sink;
mod store;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use anonymous::assert_refuses_anonymous;
pub use authenticated::AuthenticatedTokenBuilder;
pub use clock::ManualClock;
pub use hasher::{CheapHasher, Held};
pub use mint::{MintError, draft, draft_with, mint};
pub use sink::{RecordedEvent, RecordingSink};
pub use store::ScriptedStore;

/// Locks a double's state. No code of a caller runs while it is locked, so a poisoned lock is as good as another.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::panic, reason = "panicking on request is what these doubles are for")]
fn panic_as_told(who: &str) -> ! {
    panic!("the {who} was told to panic")
}
