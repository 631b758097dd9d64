//! What clients are told: one row for each kind of refusal, nothing of the request in any.

use http::StatusCode;

use crate::access::DemandCause;
use crate::decision::Reason;

/// A refusal, as far as its client may know it. What is unknown, expired or has the wrong secret looks the same here.
///
/// Given to the renderer ([`TokenAuthBuilder::refusal`](crate::TokenAuthBuilder::refusal)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(Row);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Missing,
    OtherScheme,
    Malformed,
    InvalidToken,
    Forbidden(DemandCause),
    /// The scope would permit it, today's policy does not.
    Policy(DemandCause),
    Unavailable,
}

/// The kinds of refusal a client can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// 401: there are no credentials.
    Missing,
    /// 401: the credentials are of another scheme than `Bearer`.
    OtherScheme,
    /// 400: the credentials break the grammar.
    Malformed,
    /// 401: the token does not work.
    InvalidToken,
    /// 403: the token works, and its scope, or what today's policy leaves of it, does not permit the request.
    InsufficientScope,
    /// 503: no decision could be made.
    Unavailable,
}

impl Refusal {
    pub(super) const fn new(row: Row) -> Self {
        Self(row)
    }

    pub(super) const fn row(&self) -> Row {
        self.0
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self.0 {
            Row::Missing => RefusalKind::Missing,
            Row::OtherScheme => RefusalKind::OtherScheme,
            Row::Malformed => RefusalKind::Malformed,
            Row::InvalidToken => RefusalKind::InvalidToken,
            Row::Forbidden(_) | Row::Policy(_) => RefusalKind::InsufficientScope,
            Row::Unavailable => RefusalKind::Unavailable,
        }
    }

    /// The status (RFC 6750 §3.1).
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self.0 {
            Row::Missing | Row::OtherScheme | Row::InvalidToken => StatusCode::UNAUTHORIZED,
            Row::Malformed => StatusCode::BAD_REQUEST,
            Row::Forbidden(_) | Row::Policy(_) => StatusCode::FORBIDDEN,
            Row::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A few words, the same for all refusals of the kind.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self.kind() {
            RefusalKind::Missing | RefusalKind::OtherScheme => "Authentication required",
            RefusalKind::Malformed => "Malformed credentials",
            RefusalKind::InvalidToken => "Invalid token",
            RefusalKind::InsufficientScope => "Insufficient scope",
            RefusalKind::Unavailable => "Authentication unavailable",
        }
    }

    /// A sentence that helps the client's developer.
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        match self.0 {
            Row::Missing => "Send an API token: Authorization: Bearer <token>.",
            Row::OtherScheme => "This resource expects the Bearer scheme: Authorization: Bearer <token>.",
            Row::Malformed => "Send exactly one Authorization header: Bearer, one space, one token.",
            Row::InvalidToken => "The token is unknown, expired, revoked or mistyped.",
            Row::Forbidden(DemandCause::Request) => "The token is read-only; this request needs read-write.",
            Row::Forbidden(DemandCause::Upgrade) => {
                "The token is read-only; changing the protocol (Upgrade, CONNECT) needs read-write."
            }
            Row::Forbidden(DemandCause::Override) => {
                "The token is read-only; the method named in an override header needs read-write."
            }
            Row::Policy(DemandCause::Request) => {
                "An administrator's policy limits this token to reading; this request needs read-write."
            }
            Row::Policy(DemandCause::Upgrade) => {
                "An administrator's policy limits this token to reading; changing the protocol (Upgrade, CONNECT) needs read-write."
            }
            Row::Policy(DemandCause::Override) => {
                "An administrator's policy limits this token to reading; the method named in an override header needs read-write."
            }
            Row::Unavailable => "The token could not be checked. Try again shortly.",
        }
    }

    /// The error code of RFC 6750 §3.1; none where nothing was presented, or nothing was decided.
    pub(super) const fn error_code(&self) -> Option<&'static str> {
        match self.0 {
            Row::Missing | Row::OtherScheme | Row::Unavailable => None,
            Row::Malformed => Some("invalid_request"),
            Row::InvalidToken => Some("invalid_token"),
            Row::Forbidden(_) | Row::Policy(_) => Some("insufficient_scope"),
        }
    }

    /// The fragment of the problem type, for RFC 9457.
    pub(super) const fn problem(&self) -> &'static str {
        match self.kind() {
            RefusalKind::Missing | RefusalKind::OtherScheme => "missing",
            RefusalKind::Malformed => "malformed",
            RefusalKind::InvalidToken => "invalid-token",
            RefusalKind::InsufficientScope => "insufficient-scope",
            RefusalKind::Unavailable => "unavailable",
        }
    }

    /// The gRPC status code: UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE.
    pub(super) const fn grpc_status(&self) -> &'static str {
        match self.kind() {
            RefusalKind::InsufficientScope => "7",
            RefusalKind::Unavailable => "14",
            _ => "16",
        }
    }
}

impl Row {
    pub(super) const ALL: [Self; 11] = [
        Self::Missing,
        Self::OtherScheme,
        Self::Malformed,
        Self::InvalidToken,
        Self::Unavailable,
        Self::Forbidden(DemandCause::Request),
        Self::Forbidden(DemandCause::Upgrade),
        Self::Forbidden(DemandCause::Override),
        Self::Policy(DemandCause::Request),
        Self::Policy(DemandCause::Upgrade),
        Self::Policy(DemandCause::Override),
    ];

    /// Where it stands in [`ALL`](Self::ALL).
    pub(super) const fn position(self) -> usize {
        match self {
            Self::Missing => 0,
            Self::OtherScheme => 1,
            Self::Malformed => 2,
            Self::InvalidToken => 3,
            Self::Unavailable => 4,
            Self::Forbidden(cause) => 5 + cause as usize,
            Self::Policy(cause) => 8 + cause as usize,
        }
    }

    /// The row a client sees for a reason of the audit trail.
    pub(super) const fn of(reason: Reason) -> Self {
        match reason {
            Reason::Missing => Self::Missing,
            Reason::Malformed => Self::Malformed,
            Reason::Forbidden => Self::Forbidden(DemandCause::Request),
            Reason::Policy => Self::Policy(DemandCause::Request),
            Reason::Unavailable(_) => Self::Unavailable,
            _ => Self::InvalidToken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::UnavailableCause;

    #[test]
    fn every_row_has_a_place_of_its_own() {
        for (at, row) in Row::ALL.into_iter().enumerate() {
            assert_eq!(row.position(), at, "{row:?}");
        }
    }

    #[test]
    fn every_reason_has_its_row_and_what_is_wrong_with_a_token_is_one() {
        for (reason, kind) in [
            (Reason::Missing, RefusalKind::Missing),
            (Reason::Malformed, RefusalKind::Malformed),
            (Reason::Forbidden, RefusalKind::InsufficientScope),
            (Reason::Unavailable(UnavailableCause::StoreFailed), RefusalKind::Unavailable),
            (Reason::Unavailable(UnavailableCause::HashingBusy), RefusalKind::Unavailable),
            (Reason::BadFormat, RefusalKind::InvalidToken),
            (Reason::Unknown, RefusalKind::InvalidToken),
            (Reason::Expired, RefusalKind::InvalidToken),
            (Reason::Revoked, RefusalKind::InvalidToken),
            (Reason::Paused, RefusalKind::InvalidToken),
            (Reason::OwnerBarred, RefusalKind::InvalidToken),
            (Reason::Mismatch, RefusalKind::InvalidToken),
        ] {
            assert_eq!(Refusal::new(Row::of(reason)).kind(), kind, "{}", reason.as_str());
        }
    }
}
