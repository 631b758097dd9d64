//! Whether a proved token may make a request, and what of that is only reported.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::request::Parts;

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

impl ReportOnly {
    const fn covers(self, reason: Reason) -> bool {
        match reason {
            Reason::Forbidden => self.scope,
            Reason::Policy => self.policy,
            _ => false,
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
    /// Why it would be refused, were that not only reported.
    would_forbid: Option<Reason>,
}

impl Permit {
    pub(super) fn outcome(self) -> Outcome {
        self.would_forbid.map_or(Outcome::Allowed, |_| Outcome::WouldForbid)
    }

    pub(super) const fn reason(self) -> Option<Reason> {
        self.would_forbid
    }
}

impl Gate {
    /// Lets `token` make this request, or refuses it.
    #[inline(always)]
    pub(super) fn permit(
        &self,
        request: &Parts,
        required: Option<Access>,
        token: &AuthenticatedToken,
    ) -> Conclusion<Permit> {
        let subject = Subject::Proved(Cow::Borrowed(token));
        let Ok(classified) = self.classify(request, required) else {
            let reason = Reason::Unavailable(UnavailableCause::ClosurePanicked);
            return Err(Box::new(self.refuse(request, Row::Unavailable, reason, subject, None)));
        };
        let Demand { access, cause } = Demand::judge(&request.method, &request.headers, required, classified);
        match objection(token, access) {
            Some(reason) if !self.report_only.covers(reason) => {
                let row = if reason == Reason::Policy { Row::Policy(cause) } else { Row::Forbidden(cause) };
                let mut response = self.refuse(request, row, reason, subject, Some(access));
                self.stamp(token).put(response.headers_mut());
                Err(Box::new(response))
            }
            would_forbid => Ok(Permit { access, would_forbid }),
        }
    }

    fn classify(&self, request: &Parts, required: Option<Access>) -> std::thread::Result<Option<Access>> {
        match &self.closures.access {
            Some(classify) if required.is_none() => {
                catch_unwind(AssertUnwindSafe(|| classify(&RequestHead::of(request))))
            }
            _ => Ok(None),
        }
    }

    /// Whether a permit says more than an outer layer of the same gate has said.
    pub(super) fn is_news(&self, request: &Parts, permit: Permit) -> bool {
        let told = request.extensions.get::<Reported>().is_some_and(|told| told.0 == self.authenticator.gate());
        permit.would_forbid.is_some() && !told
    }

    /// Marks a request for inner layers of the same gate, where this permit is but a report.
    pub(super) fn mark(&self, request: &mut Parts, permit: Permit) {
        if permit.would_forbid.is_some() {
            request.extensions.insert(Reported(self.authenticator.gate()));
        }
    }
}

/// Why a token may not make a request of this access.
fn objection(token: &AuthenticatedToken, access: Access) -> Option<Reason> {
    if token.permits(access) {
        return None;
    }
    Some(if token.issued_scope().permits(access) { Reason::Policy } else { Reason::Forbidden })
}
