//! What a gate decides about a request, and what handlers learn of an admitted token.

mod issue_refusal;
mod known;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use issue_refusal::IssueRefusal;
pub(crate) use known::{Known, Place};

use crate::access::Access;
use crate::clock::{Span, Timestamp};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
#[cfg(any(test, feature = "test-util"))]
use crate::token::TokenRecord;
use crate::token::{Attributes, DeadReason, SecretSlot};

/// A token whose holder has proved it: what handlers may know. Holds no secret; a clone is one reference count.
///
/// The gate puts it into the request's extensions; with the feature `axum` it is also an extractor.
///
/// # Example
/// ```
/// use tower_token_auth::AuthenticatedToken;
///
/// fn whoami<B>(request: &http::Request<B>) -> String {
///     match request.extensions().get::<AuthenticatedToken>() {
///         Some(token) => format!("{} of {}", token.label(), token.owner()),
///         None => "nobody".to_owned(),
///     }
/// }
/// # assert_eq!(whoami(&http::Request::new(())), "nobody");
/// ```
#[derive(Clone)]
pub struct AuthenticatedToken {
    admitted: Arc<Known>,
    gate: GateId,
    slot: SecretSlot,
}

impl AuthenticatedToken {
    /// A token that `gate` has admitted.
    pub(crate) fn of_known(gate: GateId, known: Arc<Known>, slot: SecretSlot) -> Self {
        Self { admitted: known, gate, slot }
    }

    /// A token of this record that no gate has admitted.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn of_record(gate: GateId, record: &TokenRecord) -> Self {
        Self::of_known(gate, Arc::new(Known::of_record(record, |_| 0)), SecretSlot::Current)
    }

    /// A token as a history remembers it: no gate admitted it, and its attributes were not kept.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn remembered(token: Remembered) -> Self {
        let Remembered { id, owner, label, scope, narrowed, expires_at, retires_at, slot } = token;
        let known = Known::told(id, owner, label, scope).limited(narrowed, expires_at).retiring_at(retires_at);
        Self::of_known(GateId::NONE, Arc::new(known), slot)
    }

    /// The token's public id.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.admitted.id
    }

    /// Whose token it is.
    #[must_use]
    pub fn owner(&self) -> &OwnerId {
        &self.admitted.owner
    }

    /// What people call it.
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.admitted.label
    }

    /// What it may do now: its scope, or less where the gate [applies the policy at use](crate::TokenAuthBuilder::policy_at_use).
    #[must_use]
    pub fn scope(&self) -> Scope {
        if self.admitted.narrowed { Scope::ReadOnly } else { self.admitted.scope }
    }

    /// The scope it was issued with.
    #[must_use]
    pub fn issued_scope(&self) -> Scope {
        self.admitted.scope
    }

    /// The first instant at which the token no longer works; `None` for never.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.admitted.expires_at
    }

    /// Which of its secrets was presented. Who still presents the [retiring](SecretSlot::Retiring) one has not noticed
    /// the rotation.
    #[must_use]
    pub fn secret_slot(&self) -> SecretSlot {
        self.slot
    }

    /// The first instant at which the *presented* secret no longer works: the end of the overlap for one that a rotation
    /// is phasing out, or the token's expiry; `None` for never.
    #[must_use]
    pub fn works_until(&self) -> Option<Timestamp> {
        let overlap = self.admitted.retires_at().filter(|_| self.slot == SecretSlot::Retiring);
        [overlap, self.admitted.expires_at].into_iter().flatten().min()
    }

    /// The first instant at which its retiring secret no longer works.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn retires_at(&self) -> Option<Timestamp> {
        self.admitted.retires_at()
    }

    /// The application's attributes.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        self.admitted.attributes()
    }

    /// Whether its scope permits an access, for handlers that decide finer than the gate.
    #[must_use]
    pub fn permits(&self, access: Access) -> bool {
        self.scope().permits(access)
    }

    /// Whether this use of it is to be noted: once a second, and once more for the first write in it, by each thread that
    /// has a [detached](Self::detached) one.
    pub(crate) fn is_due_for_note(&self, at: Timestamp, access: Access) -> bool {
        self.admitted.noted.is_due(at, access)
    }

    /// The same token with a count of references of its own.
    pub(crate) fn detached(&self) -> Self {
        Self { admitted: Arc::new(Known::clone(&self.admitted)), ..*self }
    }

    /// What is known of it, with the count of references that it shares.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.admitted)
    }

    #[cfg(test)]
    pub(crate) fn references(&self) -> usize {
        Arc::strong_count(&self.admitted)
    }

    /// Which gate admitted it.
    pub(crate) fn gate(&self) -> GateId {
        self.gate
    }
}

impl fmt::Debug for AuthenticatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatedToken")
            .field("id", &self.admitted.id)
            .field("owner", &self.admitted.owner)
            .field("label", &self.admitted.label)
            .field("scope", &self.scope())
            .field("secret_slot", &self.slot)
            .field("expires_at", &self.admitted.expires_at)
            .field("attributes", self.admitted.attributes())
            .finish()
    }
}

/// What a history knows of a proved token.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) struct Remembered {
    pub(crate) id: TokenId,
    pub(crate) owner: OwnerId,
    pub(crate) label: Label,
    pub(crate) scope: Scope,
    pub(crate) narrowed: bool,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) retires_at: Option<Timestamp>,
    pub(crate) slot: SecretSlot,
}

/// One gate of this process: all clones of one layer share it. Never 0, which stands for no gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GateId(u32);

impl GateId {
    /// For tokens that no gate has admitted, such as those a test makes, and those a history tells of.
    #[cfg(any(test, feature = "postgres", feature = "sqlite", feature = "test-util"))]
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn number(self) -> u64 {
        self.0.into()
    }

    pub(crate) fn next() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static LAST: AtomicU32 = AtomicU32::new(0);
        // No process has had four thousand million gates; the last number would be given again, never 0.
        let next = |last: u32| last.checked_add(1);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Self(last.unwrap_or(u32::MAX - 1) + 1)
    }
}

/// Why a request was refused, as the audit trail tells it. Clients are told less: see the status table.
///
/// The text form ([`as_str`](Self::as_str)) is covered by semantic versioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No credentials, or those of another scheme.
    Missing,
    /// Credentials that break the grammar of RFC 6750 §2.1.
    Malformed,
    /// A bearer token that is none of ours, or one of ours with a typing error. The store was not asked.
    BadFormat,
    /// The store knows no such token.
    Unknown,
    /// The token has expired. Its secret was not checked.
    Expired,
    /// The token was revoked. Its secret was not checked.
    Revoked,
    /// The token is paused. Its secret was not checked.
    Paused,
    /// The token's owner is barred. Its secret was not checked.
    OwnerBarred,
    /// The secret is wrong.
    Mismatch,
    /// The token is good and its scope does not permit the access.
    Forbidden,
    /// The token is good, and its scope permits the access, but today's policy limits it to reading.
    Policy,
    /// No decision could be made; nothing is said about the token.
    Unavailable(UnavailableCause),
    /// A rule of the desk forbids it.
    NotIssued(IssueRefusal),
    /// What the desk was given is not acceptable: a name, or a time.
    Unacceptable,
    /// The token's new secret is in use while the old one still works: it can be replaced when that has ended.
    RotationUnderway,
    /// What the desk was asked for is not in the power of its registry, or of the provider of its policy.
    Unsupported,
}

impl Reason {
    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::BadFormat => "bad_format",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Paused => "paused",
            Self::OwnerBarred => "owner_barred",
            Self::Mismatch => "mismatch",
            Self::Forbidden => "forbidden",
            Self::Policy => "policy",
            Self::Unavailable(cause) => cause.as_str(),
            Self::NotIssued(refusal) => refusal.as_str(),
            Self::Unacceptable => "unacceptable",
            Self::RotationUnderway => "rotation_underway",
            Self::Unsupported => "unsupported",
        }
    }
}

impl From<DeadReason> for Reason {
    fn from(reason: DeadReason) -> Self {
        match reason {
            DeadReason::Expired => Self::Expired,
            DeadReason::Revoked => Self::Revoked,
            DeadReason::Paused => Self::Paused,
            DeadReason::OwnerBarred => Self::OwnerBarred,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why no decision could be made, or no act done. At the gate all of these are answered 503, and none is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// The store answered with an error.
    StoreFailed,
    /// The store, or what is asked beside it, panicked.
    StorePanicked,
    /// The store, and what is asked beside it, did not answer within
    /// [`LookupLimits::timeout`](crate::LookupLimits::timeout), or a desk within 20 s.
    StoreTimedOut,
    /// The owner directory answered with an error.
    OwnersFailed,
    /// The store answered with a record for another token, or one that holds no usable hash.
    RecordUnusable,
    /// Too many look-ups were in flight or waiting.
    LookupsBusy,
    /// Too many hashes were waiting.
    HashingBusy,
    /// The hash was not ready within [`VerifyLimits::wait`](crate::VerifyLimits::wait).
    HashingTimedOut,
    /// The hasher failed or panicked.
    HashingFailed,
    /// The operating system had no random bytes.
    NoRandomness,
    /// The issue policy could not be told.
    PolicyFailed,
    /// The token kept changing while it was being judged.
    Contended,
    /// The audit sink refused an event that has to be recorded.
    AuditFailed,
    /// A closure of the application panicked.
    ClosurePanicked,
}

impl UnavailableCause {
    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StoreFailed => "store_failed",
            Self::StorePanicked => "store_panicked",
            Self::StoreTimedOut => "store_timed_out",
            Self::OwnersFailed => "owners_failed",
            Self::RecordUnusable => "record_unusable",
            Self::LookupsBusy => "lookups_busy",
            Self::HashingBusy => "hashing_busy",
            Self::HashingTimedOut => "hashing_timed_out",
            Self::HashingFailed => "hashing_failed",
            Self::NoRandomness => "no_randomness",
            Self::PolicyFailed => "policy_failed",
            Self::Contended => "contended",
            Self::AuditFailed => "audit_failed",
            Self::ClosurePanicked => "closure_panicked",
        }
    }
}

impl fmt::Display for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the authenticator says of a token that has our shape.
pub(crate) type Verdict = Result<AuthenticatedToken, Reason>;

/// A store could not answer, or whatever else the application was asked for: the policy, an owner directory, a feed.
/// Opaque: the cause is its [`source`](StdError::source).
///
/// The gate answers 503, never 401, and caches nothing.
///
/// # Example
/// ```
/// use std::error::Error;
/// use tower_token_auth::StoreError;
///
/// let error = StoreError::new("connection refused");
/// assert_eq!(error.to_string(), "the backend failed");
/// assert_eq!(error.source().unwrap().to_string(), "connection refused");
/// ```
#[derive(Debug)]
pub struct StoreError {
    kind: Kind,
    cause: Box<dyn StdError + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failed,
    Unsupported,
    Late,
}

impl StoreError {
    /// An error with its cause.
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: Kind::Failed, cause: cause.into() }
    }

    /// It is not in its power, and never was: to prune, or to change a policy that is fixed. Nothing has failed.
    pub fn unsupported(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: Kind::Unsupported, cause: cause.into() }
    }

    /// Whether it is [not in its power](Self::unsupported).
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported
    }

    /// It was given up after so long.
    pub(crate) fn late(after: Duration) -> Self {
        Self { kind: Kind::Late, cause: format!("there was no answer within {}", Span(after)).into() }
    }

    /// How the audit trail tells it, where it failed for a desk.
    pub(crate) fn cause_or(&self, failed: UnavailableCause) -> UnavailableCause {
        if self.kind == Kind::Late { UnavailableCause::StoreTimedOut } else { failed }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the backend failed")
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}
