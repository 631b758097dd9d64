//! The desk: issuing tokens under a policy, and their life after that.
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
//! Who may do what, and what today's policy has a say in. *Visible* tokens are the actor's own, and with the permission
//! *on behalf* all of them; others look absent. The application itself ([`Actor::system`](crate::Actor::system)) has every
//! permission.
//!
//! | act | on which tokens | takes | judged by today's policy | the gate at the next request |
//! |---|---|---|---|---|
//! | [`issue`](TokenIssuer::issue), [`ensure`](TokenIssuer::ensure) | | *create* for oneself, *on behalf* for another | yes | admits it |
//! | [`rotate`](TokenIssuer::rotate) | visible, neither revoked nor expired | as to issue it | yes, but for the number of tokens | admits the new secret, and the old one until its deadline |
//! | [`resume`](TokenIssuer::resume) | visible, paused | as to issue it | yes | admits it |
//! | [`revoke`](TokenIssuer::revoke), [`revoke_matching`](TokenIssuer::revoke_matching), [`pause`](TokenIssuer::pause), [`expire_at`](TokenIssuer::expire_at), [`narrow`](TokenIssuer::narrow) | visible | nothing more | no: they only take away | refuses it, or what it may do no more |
//! | [`rename`](TokenIssuer::rename) | visible | nothing more | no | tells handlers the new label |
//! | [`find`](TokenIssuer::find), [`list`](TokenIssuer::list), [`expiring`](TokenIssuer::expiring), [`unused`](TokenIssuer::unused), [`only_reading`](TokenIssuer::only_reading) | visible | nothing more | no | |
//! | [`bar_owner`](TokenIssuer::bar_owner), [`lift_owner`](TokenIssuer::lift_owner) | all of an owner | *administer* | no | refuses all, or asks the store again |
//! | [`change_policy`](TokenIssuer::change_policy) | | *administer* | no | asks the store and the policy again |
//! | [`prune`](TokenIssuer::prune) | dead for long | *administer* | no | |
//!
//! [`IssuePolicy`] has what it judges as a table. The first rule that fails is the refusal
//! ([`IssueRefusal`](crate::IssueRefusal)), which says what would be allowed.
//!
//! No act widens a scope, moves an expiry to a later time, or makes a revoked token work.
//!
//! # What is on record
//! Every act, whatever became of it, is one audit event: who, which token, and what a change replaced by what. Looking is
//! not. An act that its caller gave up half-way is `abandoned`.
//!
//! # When things fail
//! | what | answer |
//! |---|---|
//! | the policy cannot be told, or a rule of it panics | nothing is issued, rotated or resumed |
//! | the store cannot answer | nothing is done, as far as is known; the gate asks it again |
//! | somebody else changes the token at the same time | the act is judged anew and tried again, four times |
//! | the caller leaves | what the store has taken stands; the gate asks it again |
//! | the event cannot be recorded, and has to be | an issued token is revoked again; everything else stands |

mod act;
mod builder;
mod draw;
mod error;
mod govern;
mod issuer;
mod manage;
mod new_token;
mod policy;
mod provider;
mod report;
mod rotate;
mod rule;
mod sweep;
#[cfg(test)]
mod tests;
mod wish;

pub use builder::TokenIssuerBuilder;
pub use error::{IssueError, ListError, ManageError};
pub(crate) use issuer::DeskParts;
pub use issuer::TokenIssuer;
pub use new_token::{Ensured, IssuedToken, NewToken, SummaryPage, TokenSummary};
pub use policy::IssuePolicy;
pub(crate) use provider::ErasedPolicy;
pub use provider::{PolicyProvider, SharedPolicy};
pub use rule::Proposal;
pub use sweep::RevokeReport;
