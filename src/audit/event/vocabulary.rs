//! What was done, and what became of it: the words of the audit trail.

use std::fmt;

/// What was done or asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// A request came to the gate.
    Authenticate,
    /// A token was asked for at the desk.
    Issue,
    /// A token's revocation was asked for at the desk.
    Revoke,
    /// A token was to be stopped for a while.
    Pause,
    /// A paused token was to work again.
    Resume,
    /// A token was to expire earlier.
    SetExpiry,
    /// A token's scope was to be narrowed.
    Narrow,
    /// A token was to be called something else.
    Rename,
    /// A token was to get a new secret.
    Rotate,
    /// Records of tokens that have long been dead were to be forgotten.
    Prune,
    /// All tokens of an owner were to stop.
    BarOwner,
    /// The tokens of a barred owner were to work again.
    LiftOwner,
    /// The issue policy was to be changed.
    ChangePolicy,
    /// No decision at all: a token has been refused so often within a while.
    ReportThreshold,
    /// No decision at all: a [`QueuedSink`](crate::QueuedSink), or a history in a database, tells that it has lost so many.
    ReportLoss,
}

impl Action {
    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Issue => "issue",
            Self::Revoke => "revoke",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::SetExpiry => "set_expiry",
            Self::Narrow => "narrow",
            Self::Rename => "rename",
            Self::Rotate => "rotate",
            Self::Prune => "prune",
            Self::BarOwner => "bar_owner",
            Self::LiftOwner => "lift_owner",
            Self::ChangePolicy => "change_policy",
            Self::ReportThreshold => "report_threshold",
            Self::ReportLoss => "report_loss",
        }
    }

    /// Whether it is a sink's report about other events, and stands for no decision of its own.
    #[must_use]
    pub const fn is_report(self) -> bool {
        matches!(self, Self::ReportLoss | Self::ReportThreshold)
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Admitted, or done.
    Allowed,
    /// Let through without a token, because the builder says so
    /// ([`on_missing`](crate::TokenAuthBuilder::on_missing), [`on_foreign`](crate::TokenAuthBuilder::on_foreign)).
    Passed,
    /// Refused: 400, 401 or 403.
    Refused,
    /// Admitted, because the gate only reports what it would refuse: it would have been a 403.
    WouldForbid,
    /// Undecided: 503.
    Unavailable,
    /// Undecided: the client left before the decision.
    Abandoned,
}

impl Outcome {
    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::WouldForbid => "would_forbid",
            Self::Unavailable => "unavailable",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
