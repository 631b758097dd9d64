//! Whether a proved token may make a request, and what of that is only reported.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::{Request, Response};

use super::gate::{Conclusion, Gate};
use super::refusal::Row;
use crate::access::{Access, Demand};
use crate::audit::{Outcome, Subject};
use crate::decision::{AuthenticatedToken, GateId, Reason, UnavailableCause};
use crate::request::RequestHead;

/// Which 403s a gate only reports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReportOnly {
    pub(super) scope: bool,
    pub(super) policy: bool,
}

/// Why a token may not make a request.
#[derive(Debug, Clone, Copy)]
enum Objection {
    Scope,
    Policy,
}

impl Objection {
    /// What speaks against a token that makes a request of this access.
    fn of(token: &AuthenticatedToken, access: Access) -> Option<Self> {
        if token.permits(access) {
            return None;
        }
        Some(if token.issued_scope().permits(access) { Self::Policy } else { Self::Scope })
    }

    const fn reason(self) -> Reason {
        match self {
            Self::Scope => Reason::Forbidden,
            Self::Policy => Reason::Policy,
        }
    }
}

impl ReportOnly {
    const fn covers(self, objection: Objection) -> bool {
        match objection {
            Objection::Scope => self.scope,
            Objection::Policy => self.policy,
        }
    }

    /// Says so, once, where anything is let through.
    pub(super) fn warn(self) {
        let what = match (self.scope, self.policy) {
            (false, false) => return,
            (true, false) => "scope",
            (false, true) => "policy",
            (true, true) => "scope, policy",
        };
        tracing::warn!(
            report_only = what,
            "INSECURE: requests that these forbid go on, and are only reported as would_forbid"
        );
    }
}

/// Marks a request of which a gate has reported that it would be refused: once is enough.
#[derive(Debug, Clone, Copy)]
struct Reported(GateId);

/// A request that goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permit {
    pub(super) access: Access,
    /// Whether it has an `Upgrade` header, whatever that says.
    pub(super) has_upgrade: bool,
    /// Why it would be refused, were that not only reported.
    would_forbid: Option<Objection>,
}

impl Permit {
    pub(super) fn outcome(self) -> Outcome {
        self.would_forbid.map_or(Outcome::Allowed, |_| Outcome::WouldForbid)
    }

    pub(super) fn reason(self) -> Option<Reason> {
        self.would_forbid.map(Objection::reason)
    }
}

impl Gate {
    /// Lets `token` make this request, or refuses it.
    #[inline(always)]
    pub(super) fn permit(
        &self,
        head: &RequestHead<'_>,
        required: Option<Access>,
        token: &AuthenticatedToken,
    ) -> Conclusion<Permit> {
        let Ok(classified) = self.classify(head, required) else { return Err(self.refuse_unclassified(head, token)) };
        let demand = Demand::judge(head.method, head.headers, required, classified);
        match Objection::of(token, demand.access) {
            Some(objection) if !self.report_only.covers(objection) => Err(self.forbid(head, demand, objection, token)),
            would_forbid => Ok(Permit { access: demand.access, has_upgrade: demand.has_upgrade, would_forbid }),
        }
    }

    #[cold]
    fn refuse_unclassified(&self, head: &RequestHead<'_>, token: &AuthenticatedToken) -> Box<Response<Bytes>> {
        let reason = Reason::Unavailable(UnavailableCause::ClosurePanicked);
        let subject = Subject::Proved(Cow::Borrowed(token));
        Box::new(self.refuse(head, Row::Unavailable, reason, subject, None))
    }

    #[cold]
    fn forbid(
        &self,
        head: &RequestHead<'_>,
        demand: Demand,
        objection: Objection,
        token: &AuthenticatedToken,
    ) -> Box<Response<Bytes>> {
        let Demand { access, cause, .. } = demand;
        let row = match objection {
            Objection::Scope => Row::Forbidden(cause),
            Objection::Policy => Row::Policy(cause),
        };
        let subject = Subject::Proved(Cow::Borrowed(token));
        let mut response = self.refuse(head, row, objection.reason(), subject, Some(access));
        self.stamp(token).put(response.headers_mut());
        Box::new(response)
    }

    fn classify(&self, head: &RequestHead<'_>, required: Option<Access>) -> std::thread::Result<Option<Access>> {
        match &self.closures.access {
            Some(classify) if required.is_none() => catch_unwind(AssertUnwindSafe(|| classify(head))),
            _ => Ok(None),
        }
    }

    /// Whether a permit says more than an outer layer of the same gate has said.
    pub(super) fn is_news(&self, head: &RequestHead<'_>, permit: Permit) -> bool {
        let told = head.extensions.get::<Reported>().is_some_and(|told| told.0 == self.authenticator.gate());
        permit.would_forbid.is_some() && !told
    }

    /// Marks a request for inner layers of the same gate, where this permit is but a report.
    pub(super) fn mark<B>(&self, request: &mut Request<B>, permit: Permit) {
        if permit.would_forbid.is_some() {
            request.extensions_mut().insert(Reported(self.authenticator.gate()));
        }
    }
}
