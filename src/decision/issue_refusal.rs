//! Why the desk says no.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::clock::{Span, Timestamp};
use crate::scope::Scope;

/// Which rule of the desk an act breaks, each with what would be allowed.
///
/// The text form ([`as_str`](Self::as_str)) is covered by semantic versioning.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::IssueRefusal;
///
/// let refusal = IssueRefusal::LifetimeTooLong { max: Duration::from_secs(90 * 24 * 3600) };
/// assert_eq!(refusal.as_str(), "lifetime_too_long");
/// assert_eq!(refusal.to_string(), "the token must expire within 90d");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IssueRefusal {
    /// The actor may not create tokens for itself.
    CreateNotPermitted,
    /// The actor may not create tokens for others.
    OnBehalfNotPermitted,
    /// The actor may not change the policy, bar or lift owners, or prune.
    AdministerNotPermitted,
    /// The policy limits the actor to read-only tokens.
    ReadOnlyEnforced,
    /// The token would do more than the token that asks for it.
    ExceedsOwnScope {
        /// What the asking token may do now.
        own: Scope,
    },
    /// The token would live longer than the token that asks for it.
    ExceedsOwnLifetime {
        /// Until when what the asking token has presented works.
        until: Timestamp,
    },
    /// The token would be born expired.
    AlreadyExpired,
    /// The token would never expire, and has to.
    ExpiryRequired,
    /// The token would live longer than the policy allows.
    LifetimeTooLong {
        /// How long a token of its scope may live from now.
        max: Duration,
    },
    /// The owner has as many live tokens as the policy allows.
    TooManyTokens {
        /// How many that is.
        max: usize,
    },
    /// A rule of the application's own forbids it, and says why.
    Rule(&'static str),
}

impl IssueRefusal {
    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateNotPermitted => "create_not_permitted",
            Self::OnBehalfNotPermitted => "on_behalf_not_permitted",
            Self::AdministerNotPermitted => "administer_not_permitted",
            Self::ReadOnlyEnforced => "read_only_enforced",
            Self::ExceedsOwnScope { .. } => "exceeds_own_scope",
            Self::ExceedsOwnLifetime { .. } => "exceeds_own_lifetime",
            Self::AlreadyExpired => "already_expired",
            Self::ExpiryRequired => "expiry_required",
            Self::LifetimeTooLong { .. } => "lifetime_too_long",
            Self::TooManyTokens { .. } => "too_many_tokens",
            Self::Rule(_) => "rule",
        }
    }
}

impl fmt::Display for IssueRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNotPermitted => f.write_str("the permission to create tokens is needed"),
            Self::OnBehalfNotPermitted => f.write_str("the permission to create tokens on behalf of others is needed"),
            Self::AdministerNotPermitted => f.write_str("the permission to administer is needed"),
            Self::ReadOnlyEnforced => f.write_str("only read-only tokens may be created"),
            Self::ExceedsOwnScope { own } => write!(f, "a token can create only tokens of its own scope, {own}"),
            Self::ExceedsOwnLifetime { until } => {
                write!(f, "a token can create only tokens that expire no later than it stops working, {until}")
            }
            Self::AlreadyExpired => f.write_str("the expiry must lie in the future"),
            Self::ExpiryRequired => f.write_str("the token must expire"),
            Self::LifetimeTooLong { max } => write!(f, "the token must expire within {}", Span(*max)),
            Self::TooManyTokens { max } => write!(f, "an owner may have {max} live tokens, and has them"),
            Self::Rule(text) => f.write_str(text),
        }
    }
}

impl StdError for IssueRefusal {}
