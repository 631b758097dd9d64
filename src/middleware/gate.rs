//! The gate: from a request's head to a decision, recorded once.
//!
//! # Cost
//! The way of a hot request is compiled into the service's `call` as a whole, which is what `inline(always)` is for, here and in what it calls;
//! whatever takes another way leaves it for a function of its own. Values that are passed on are a word or two, or by
//! reference: one that was written in small pieces and is read in large ones a moment later stalls the processor for as
//! long as an atomic operation takes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};

use super::builder::{OnForeign, OnMissing};
use super::closures::{Closures, ask};
use super::permit::{Permit, ReportOnly};
use super::refusal::{Refusal, Row};
use super::render::Render;
use super::stamp::Stamp;
use crate::access::{self, Access};
use crate::audit::{Action, AuditEvent, OnAuditFailure, Outcome, Recorder, Subject};
use crate::authenticator::{Attempt, Authenticator};
use crate::bearer::{Authorization, Credentials};
use crate::decision::{AuthenticatedToken, GateId, Reason, Verdict};
use crate::id::TokenId;
use crate::request::RequestHead;
use crate::text;
use crate::token::{Cut, ParsedToken, Prefix, ShapeError};

/// All that clones of a layer share.
pub(super) struct Gate {
    pub(super) authenticator: Authenticator,
    pub(super) prefixes: Vec<Prefix>,
    pub(super) render: Render,
    pub(super) recorder: Recorder,
    pub(super) on_audit_failure: OnAuditFailure,
    pub(super) on_missing: OnMissing,
    pub(super) on_foreign: OnForeign,
    pub(super) closures: Closures,
    pub(super) report_only: ReportOnly,
    pub(super) token_headers: bool,
    pub(super) keep_authorization: bool,
    pub(super) extension: bool,
}

/// What becomes of a request.
pub(super) enum Reception {
    /// It goes on to the inner service, whose answer is stamped.
    Onward(Stamp),
    Refused(Response<Bytes>),
    /// The store or the hash has to be asked first.
    Waiting(Waiting),
}

/// What becomes of a request whose verdict is there: it goes on, or is refused.
pub(super) type Conclusion<T = Stamp> = Result<T, Box<Response<Bytes>>>;

/// A request that waits for its verdict, apart from its head and body.
pub(super) struct Waiting {
    verdict: BoxFuture<'static, Verdict>,
    presented: Presented,
}

/// A token of our shape, taken out of its request.
pub(super) struct Presented {
    id: TokenId,
    authorization: Authorization,
}

/// Marks a request that a gate has let through without a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed(GateId);

/// What a look at the credentials says.
enum Sighting {
    Token(ParsedToken),
    /// Passed on, for the reason it would have been refused.
    Pass(Reason),
    Refuse(Row, Reason),
}

impl Gate {
    /// Decides what can be decided at once.
    #[inline(always)]
    pub(super) fn receive<B>(&self, request: &mut Request<B>, required: Option<Access>) -> Reception {
        if let Some(token) = self.admitted_before(request) {
            return self.judge_again(request, required, &token).into();
        }
        if self.passed_before(request) {
            return Reception::Onward(Stamp::default());
        }
        // From here on no event, no closure and no renderer sees what was presented.
        let mut authorization = Authorization::take(request.headers_mut());
        let text = authorization.plain().and_then(|text| Cut::of(text, &self.prefixes).ok());
        // What was admitted lately needs no second reading: word for word the same, it is as well-formed as it was.
        if let Some(token) = text.as_ref().and_then(|text| self.authenticator.recognise(text)) {
            return self.proceed(request, required, token, &mut authorization).into();
        }
        match self.sight(&authorization, text) {
            Sighting::Token(token) => self.present(request, required, token, authorization),
            Sighting::Pass(reason) => self.pass(request, reason, authorization).into(),
            Sighting::Refuse(row, reason) => {
                Reception::Refused(self.refuse(&RequestHead::of(request), row, reason, Subject::Nobody, None))
            }
        }
    }

    /// `text` is what follows `Bearer `, where that has an accepted prefix and our length.
    #[inline(never)]
    fn sight(&self, authorization: &Authorization, text: Option<Cut<'_>>) -> Sighting {
        // Letters and digits break no grammar, so that need not be looked for where there is nothing else.
        if let Some(text) = text.filter(Cut::is_alphanumeric) {
            return text.read().map_or(Sighting::Refuse(Row::InvalidToken, Reason::BadFormat), Sighting::Token);
        }
        match authorization.read() {
            Credentials::Missing if self.on_missing == OnMissing::Pass => Sighting::Pass(Reason::Missing),
            Credentials::Missing => Sighting::Refuse(Row::Missing, Reason::Missing),
            Credentials::OtherScheme if self.on_foreign == OnForeign::Pass => Sighting::Pass(Reason::Missing),
            Credentials::OtherScheme => Sighting::Refuse(Row::OtherScheme, Reason::Missing),
            Credentials::Malformed => Sighting::Refuse(Row::Malformed, Reason::Malformed),
            Credentials::Bearer(text) => match ParsedToken::parse(text, &self.prefixes) {
                Ok(token) => Sighting::Token(token),
                Err(ShapeError::Foreign) if self.on_foreign == OnForeign::Pass => Sighting::Pass(Reason::BadFormat),
                Err(_) => Sighting::Refuse(Row::InvalidToken, Reason::BadFormat),
            },
        }
    }

    #[inline(never)]
    fn present<B>(
        &self,
        request: &mut Request<B>,
        required: Option<Access>,
        token: ParsedToken,
        authorization: Authorization,
    ) -> Reception {
        let presented = Presented { id: token.id, authorization };
        match self.authenticator.authenticate(token) {
            Attempt::Pending(verdict) => Reception::Waiting(Waiting { verdict, presented }),
            Attempt::Decided(verdict) => self.conclude(request, required, verdict, presented).into(),
        }
    }

    /// Records that a request's client has left while it waited.
    pub(super) fn abandon(&self, head: &RequestHead<'_>, presented: &Presented) {
        let claimed = Subject::Claimed(presented.id);
        // Nobody is left to be told of a loss; the recorder logs it.
        let _recorded =
            self.recorder.record(Outcome::Abandoned, || self.event(Outcome::Abandoned, None, claimed, None, head));
    }

    /// Decides a request whose verdict is there.
    #[inline(never)]
    pub(super) fn conclude<B>(
        &self,
        request: &mut Request<B>,
        required: Option<Access>,
        verdict: Verdict,
        presented: Presented,
    ) -> Conclusion {
        let Presented { id, mut authorization } = presented;
        match verdict {
            Ok(token) => self.proceed(request, required, token, &mut authorization),
            Err(reason) => {
                let claimed = Subject::Claimed(id);
                Err(Box::new(self.refuse(&RequestHead::of(request), Row::of(reason), reason, claimed, None)))
            }
        }
    }

    /// Decides a request that a token was proved for.
    #[inline(always)]
    fn proceed<B>(
        &self,
        request: &mut Request<B>,
        required: Option<Access>,
        token: AuthenticatedToken,
        authorization: &mut Authorization,
    ) -> Conclusion {
        let head = RequestHead::of(request);
        let permit = self.permit(&head, required, &token)?;
        let asked = Cell::new(None);
        self.put_on_record(&head, &token, permit, &asked)?;
        self.note_use(&head, &token, permit.access, asked.get());
        let stamp = self.stamp(&token);
        self.mark(request, permit);
        if permit.has_upgrade {
            access::strip_h2c(request.headers_mut());
        }
        self.admit(request, token, authorization);
        Ok(stamp)
    }

    /// Records that a proved request goes on, or refuses it where that has to be on record and is not. Notes the client's
    /// address, where it has to be asked for.
    #[inline(always)]
    fn put_on_record(
        &self,
        head: &RequestHead<'_>,
        token: &AuthenticatedToken,
        permit: Permit,
        asked: &Cell<Option<Option<IpAddr>>>,
    ) -> Conclusion<()> {
        let (outcome, reason) = (permit.outcome(), permit.reason());
        self.require(outcome, head, |head| {
            let subject = Subject::Proved(Cow::Borrowed(token));
            let event = self.event(outcome, reason, subject, Some(permit.access), head);
            asked.set(event.request.as_ref().map(|facts| facts.client_address));
            event
        })
    }

    /// Notes when and from where a token was used. `asked` is the client's address, where it has been asked for.
    #[inline(always)]
    fn note_use(
        &self,
        head: &RequestHead<'_>,
        token: &AuthenticatedToken,
        access: Access,
        asked: Option<Option<IpAddr>>,
    ) {
        self.authenticator.note_use(token, access, |used| {
            let address = asked.unwrap_or_else(|| ask(&self.closures.client_address, head));
            let agent = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
            let agent = agent.map(|agent| text::clean(agent, AuditEvent::MAX_USER_AGENT_LEN).into_owned());
            used.with_client_address(address).with_user_agent(agent)
        });
    }

    #[inline(always)]
    fn admit<B>(&self, request: &mut Request<B>, token: AuthenticatedToken, authorization: &mut Authorization) {
        if self.keep_authorization {
            authorization.put_back(request.headers_mut());
        }
        if self.extension {
            request.extensions_mut().insert(token);
        }
    }

    fn admitted_before<B>(&self, request: &Request<B>) -> Option<AuthenticatedToken> {
        let token = request.extensions().get::<AuthenticatedToken>()?;
        (token.gate() == self.authenticator.gate()).then(|| token.clone())
    }

    fn passed_before<B>(&self, request: &Request<B>) -> bool {
        request.extensions().get::<Passed>().is_some_and(|passed| passed.0 == self.authenticator.gate())
    }

    /// The same gate met again: it can only tighten, and writes an event only where it does.
    #[inline(never)]
    fn judge_again<B>(
        &self,
        request: &mut Request<B>,
        required: Option<Access>,
        token: &AuthenticatedToken,
    ) -> Conclusion {
        // Kept for the inner service, it is still nothing a closure may see.
        let mut authorization = Authorization::take(request.headers_mut());
        let head = RequestHead::of(request);
        let permit = self.permit(&head, required, token)?;
        // What the outer layer took for a read may be a write here.
        self.note_use(&head, token, permit.access, None);
        if self.is_news(&head, permit) {
            self.put_on_record(&head, token, permit, &Cell::default())?;
            self.mark(request, permit);
        }
        authorization.put_back(request.headers_mut());
        Ok(self.stamp(token))
    }

    #[inline(never)]
    fn pass<B>(&self, request: &mut Request<B>, reason: Reason, mut authorization: Authorization) -> Conclusion {
        self.require(Outcome::Passed, &RequestHead::of(request), |head| {
            self.event(Outcome::Passed, Some(reason), Subject::Nobody, None, head)
        })?;
        authorization.put_back(request.headers_mut());
        request.extensions_mut().insert(Passed(self.authenticator.gate()));
        Ok(Stamp::default())
    }

    /// Records the event of a request that goes on, or refuses it where that has to be on record and is not.
    #[inline(always)]
    fn require<'a>(
        &self,
        outcome: Outcome,
        head: &RequestHead<'a>,
        event: impl FnOnce(&RequestHead<'a>) -> AuditEvent<'a>,
    ) -> Conclusion<()> {
        let recorded = self.recorder.record(outcome, || event(head));
        if !recorded && self.on_audit_failure == OnAuditFailure::Refuse {
            return Err(Box::new(self.render.render(&Refusal::new(Row::Unavailable), head)));
        }
        Ok(())
    }

    pub(super) fn refuse(
        &self,
        head: &RequestHead<'_>,
        row: Row,
        reason: Reason,
        subject: Subject<'_>,
        access: Option<Access>,
    ) -> Response<Bytes> {
        let outcome = match reason {
            Reason::Unavailable(_) => Outcome::Unavailable,
            _ => Outcome::Refused,
        };
        // Refused either way: a loss is logged by the recorder and changes nothing here.
        let _recorded = self.recorder.record(outcome, || self.event(outcome, Some(reason), subject, access, head));
        self.render.render(&Refusal::new(row), head)
    }

    fn event<'a>(
        &self,
        outcome: Outcome,
        reason: Option<Reason>,
        subject: Subject<'a>,
        access: Option<Access>,
        head: &RequestHead<'a>,
    ) -> AuditEvent<'a> {
        AuditEvent {
            at: self.authenticator.clock().wall(),
            repeated: None,
            action: Action::Authenticate,
            outcome,
            reason,
            subject,
            access,
            request: Some(self.closures.facts(head)),
            actor: None,
            edit: None,
        }
    }
}

impl From<Conclusion> for Reception {
    fn from(conclusion: Conclusion) -> Self {
        conclusion.map_or_else(|response| Self::Refused(*response), Self::Onward)
    }
}

impl Waiting {
    pub(super) fn into_parts(self) -> (BoxFuture<'static, Verdict>, Presented) {
        (self.verdict, self.presented)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("prefixes", &self.prefixes).field("render", &self.render).finish_non_exhaustive()
    }
}
