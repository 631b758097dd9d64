//! A desk without a gate, for a process that issues tokens and serves none.

use std::fmt;
use std::sync::Arc;

use super::issuer::{DeskParts, TokenIssuer};
use super::provider::ErasedPolicy;
use crate::audit::{AuditSink, OnAuditFailure, Recorder, TracingSink};
use crate::clock::{Clock, SystemClock};
use crate::config::{BuildError, VerifyLimits};
use crate::hash::{Argon2Hasher, SecretHasher};
use crate::store::ErasedRegistry;
use crate::token::Prefix;
use crate::verify::Crew;

/// Configures a [`TokenIssuer`] that has no gate in this process.
///
/// Prefix and hasher have to be those of the gates that shall accept its tokens.
#[must_use = "a builder does nothing until it is built"]
pub struct TokenIssuerBuilder {
    registry: Arc<dyn ErasedRegistry>,
    policy: Arc<dyn ErasedPolicy>,
    prefix: String,
    hasher: Arc<dyn SecretHasher>,
    audit: Arc<dyn AuditSink>,
    on_audit_failure: OnAuditFailure,
    clock: Arc<dyn Clock>,
    limits: VerifyLimits,
}

impl TokenIssuerBuilder {
    pub(super) fn new(registry: Arc<dyn ErasedRegistry>, policy: Arc<dyn ErasedPolicy>) -> Self {
        Self {
            registry,
            policy,
            prefix: Prefix::default().to_string(),
            hasher: Arc::new(Argon2Hasher::new()),
            audit: Arc::new(TracingSink::new()),
            on_audit_failure: OnAuditFailure::default(),
            clock: Arc::new(SystemClock::new()),
            limits: VerifyLimits::default(),
        }
    }

    /// The prefix of new tokens. Default `tta`.
    pub fn prefix(self, prefix: impl AsRef<str>) -> Self {
        Self { prefix: prefix.as_ref().to_owned(), ..self }
    }

    /// The hasher for new secrets. Default [`Argon2Hasher`].
    pub fn hasher(self, hasher: impl SecretHasher) -> Self {
        Self { hasher: Arc::new(hasher), ..self }
    }

    /// Where audit events go. Default [`TracingSink`].
    pub fn audit(self, sink: impl AuditSink) -> Self {
        Self { audit: Arc::new(sink), ..self }
    }

    /// What becomes of an act whose event cannot be recorded. Default: it stands.
    pub fn on_audit_failure(self, on_audit_failure: OnAuditFailure) -> Self {
        Self { on_audit_failure, ..self }
    }

    /// The clock. Default [`SystemClock`].
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// How much hashing may wait.
    pub fn verification(self, limits: VerifyLimits) -> Self {
        Self { limits, ..self }
    }

    /// The desk.
    ///
    /// # Errors
    /// [`BuildError`] for a configuration that cannot work, with what to change.
    pub fn build(self) -> Result<TokenIssuer, BuildError> {
        self.limits.check()?;
        let recorder = Recorder::new(self.audit);
        if self.on_audit_failure == OnAuditFailure::Refuse && !recorder.can_fail() {
            return Err(BuildError::AuditCannotFail);
        }
        Ok(TokenIssuer::assemble(DeskParts {
            registry: self.registry,
            policy: self.policy,
            prefix: self.prefix.parse().map_err(BuildError::Prefix)?,
            hasher: self.hasher,
            crew: Crew::for_limits(&self.limits),
            limits: self.limits,
            clock: self.clock,
            recorder,
            on_audit_failure: self.on_audit_failure,
            gate: None,
        }))
    }
}

impl fmt::Debug for TokenIssuerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuerBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
