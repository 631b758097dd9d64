//! The desk: issuing, listing and revoking tokens under a policy.
//!
//! # Example
//! ```
//! use tower_token_auth::{
//!     Actor, IssueError, IssuePolicy, IssueRefusal, MemoryStore, NewToken, Permissions, Scope, TokenIssuer,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = IssuePolicy::default().force_read_only(true);
//! let desk = TokenIssuer::builder(MemoryStore::new(), policy).build()?;
//! let alice = Actor::user("alice", Permissions::none().and_create());
//!
//! let issued = desk.issue(&alice, NewToken::new("alice", "dashboard", Scope::ReadOnly)).await?;
//! let shown_once = issued.plaintext().expose();
//! # assert!(shown_once.starts_with("tta_"));
//!
//! let refused = desk.issue(&alice, NewToken::new("alice", "importer", Scope::ReadWrite)).await;
//! assert!(matches!(refused, Err(IssueError::Refused(IssueRefusal::ReadOnlyEnforced))));
//! # Ok(())
//! # }
//! ```
//!
//! # How it decides
//! [`IssuePolicy`] has it as a table. First rule that fails is the refusal ([`IssueRefusal`](crate::IssueRefusal)); the application itself
//! ([`Actor::system`](crate::Actor::system)) has every permission.
//! 1. A token for oneself needs the permission *create*, one for another *on behalf*. Who has only *on behalf* may
//!    create for others only.
//! 2. More than read-only also needs the administrator's switch
//!    ([`force_read_only`](IssuePolicy::force_read_only)) off, or *on behalf*.
//! 3. A token that asks for a token gets none of greater scope or longer life than its own.
//! 4. The expiry lies in the future, and within [`max_lifetime`](IssuePolicy::max_lifetime) where there is one.
//!
//! Tokens of others are seen and revoked with *on behalf* only; without it they look absent.
//!
//! # When things fail
//! | what | answer |
//! |---|---|
//! | the policy cannot be told | nothing is issued |
//! | the store cannot answer | nothing is issued, or revoked, as far as is known; the gate asks it again |
//! | the event cannot be recorded, and has to be | an issued token is revoked again; a revocation stands |

mod builder;
mod error;
mod issuer;
mod new_token;
mod policy;
#[cfg(test)]
mod tests;
mod wish;

pub use builder::TokenIssuerBuilder;
pub use error::{IssueError, ListError, RevokeError};
pub(crate) use issuer::DeskParts;
pub use issuer::TokenIssuer;
pub use new_token::{Ensured, IssuedToken, NewToken, SummaryPage, TokenSummary};
pub(crate) use policy::ErasedPolicy;
pub use policy::{IssuePolicy, PolicyProvider};
