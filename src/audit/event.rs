//! One audit event.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::access::Access;
use crate::clock::Timestamp;
use crate::decision::{AuthenticatedToken, Reason};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::text;
use crate::token::{CreatedBy, SecretSlot};

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
    /// No decision at all: a [`QueuedSink`](crate::QueuedSink) tells that it has lost so many.
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

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One decision of a gate, or one act at the desk. Holds no secret, nor any part of one.
///
/// A *claimed* id is what a request said; a *proved* token is one whose secret was checked. Only the latter tells
/// who was there: everybody can claim an id.
#[derive(Debug, Clone)]
pub struct AuditEvent<'a> {
    pub(crate) at: Timestamp,
    pub(crate) repeated: Option<Repeated>,
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) subject: Subject<'a>,
    pub(crate) access: Option<Access>,
    pub(crate) request: Option<RequestFacts<'a>>,
    pub(crate) actor: Option<Cow<'a, CreatedBy>>,
    pub(crate) edit: Option<Edit>,
}

/// What a change at the desk replaced, and by what; capped and cleaned.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) before: Cow<'static, str>,
    pub(crate) after: Cow<'static, str>,
}

impl Edit {
    pub(crate) fn new(before: impl fmt::Display, after: impl fmt::Display) -> Self {
        let clean = |text: String| cleaned(&text, AuditEvent::MAX_EDIT_LEN);
        Self { before: clean(before.to_string()), after: clean(after.to_string()) }
    }
}

/// That an event stands for several.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeated {
    pub(crate) count: u64,
    pub(crate) first_at: Timestamp,
}

/// Whom an event is about.
#[derive(Debug, Clone)]
pub(crate) enum Subject<'a> {
    Nobody,
    Claimed(TokenId),
    Proved(Cow<'a, AuthenticatedToken>),
    /// A token at the desk: nothing is claimed or proved there.
    Handled {
        id: Option<TokenId>,
        owner: Option<Cow<'a, OwnerId>>,
        label: Option<Cow<'a, Label>>,
        scope: Option<Scope>,
    },
}

impl Subject<'_> {
    fn into_owned(self) -> Subject<'static> {
        match self {
            Self::Nobody => Subject::Nobody,
            Self::Claimed(id) => Subject::Claimed(id),
            Self::Proved(token) => Subject::Proved(owned(token)),
            Self::Handled { id, owner, label, scope } => {
                Subject::Handled { id, owner: owner.map(owned), label: label.map(owned), scope }
            }
        }
    }
}

fn owned<T: ToOwned + ?Sized>(value: Cow<'_, T>) -> Cow<'static, T> {
    Cow::Owned(value.into_owned())
}

/// What an event says of a request, already capped and cleaned.
#[derive(Debug, Clone)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) method: Cow<'a, str>,
    pub(crate) path: Cow<'a, str>,
    pub(crate) route: Option<Cow<'a, str>>,
    pub(crate) user_agent: Option<Cow<'a, str>>,
    pub(crate) client_address: Option<IpAddr>,
    pub(crate) request_id: Option<Cow<'a, str>>,
}

impl<'a> RequestFacts<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str, user_agent: Option<&'a [u8]>) -> Self {
        Self {
            method: text::clean(method.as_bytes(), AuditEvent::MAX_METHOD_LEN),
            path: text::clean(path.as_bytes(), AuditEvent::MAX_PATH_LEN),
            route: None,
            user_agent: user_agent.map(|agent| text::clean(agent, AuditEvent::MAX_USER_AGENT_LEN)),
            client_address: None,
            request_id: None,
        }
    }

    pub(crate) fn with_route(self, route: Option<String>) -> Self {
        Self { route: route.map(|route| cleaned(&route, AuditEvent::MAX_PATH_LEN)), ..self }
    }

    pub(crate) fn with_request_id(self, id: Option<String>) -> Self {
        Self { request_id: id.map(|id| cleaned(&id, AuditEvent::MAX_REQUEST_ID_LEN)), ..self }
    }

    fn into_owned(self) -> RequestFacts<'static> {
        RequestFacts {
            method: owned_method(self.method),
            path: owned(self.path),
            route: self.route.map(owned),
            user_agent: self.user_agent.map(owned),
            client_address: self.client_address,
            request_id: self.request_id.map(owned),
        }
    }
}

/// The methods of RFC 9110 and RFC 5789 need no allocation.
fn owned_method(method: Cow<'_, str>) -> Cow<'static, str> {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    let known = KNOWN.into_iter().find(|known| *known == method);
    known.map_or_else(|| owned(method), Cow::Borrowed)
}

fn cleaned(text: &str, max: usize) -> Cow<'static, str> {
    Cow::Owned(text::clean(text.as_bytes(), max).into_owned())
}

impl<'a> AuditEvent<'a> {
    /// An event that stands for several, or reports them.
    pub(super) fn of_several(
        action: Action,
        outcome: Outcome,
        subject: Subject<'a>,
        at: Timestamp,
        of: Repeated,
    ) -> Self {
        Self {
            at,
            repeated: Some(of),
            action,
            outcome,
            reason: None,
            subject,
            access: None,
            request: None,
            actor: None,
            edit: None,
        }
    }

    pub(super) fn because(self, reason: Option<Reason>) -> Self {
        Self { reason, ..self }
    }
}

impl AuditEvent<'_> {
    /// The version of the event's fields: it grows when one changes its meaning.
    pub const VERSION: u16 = 1;
    /// The greatest length of a method, in bytes.
    pub const MAX_METHOD_LEN: usize = 32;
    /// The greatest length of a path or route, in bytes.
    pub const MAX_PATH_LEN: usize = 512;
    /// The greatest length of a user agent, in bytes.
    pub const MAX_USER_AGENT_LEN: usize = 256;
    /// The greatest length of each side of a change, in bytes.
    pub const MAX_EDIT_LEN: usize = 512;
    /// The greatest length of a request id, in bytes.
    pub const MAX_REQUEST_ID_LEN: usize = 128;

    /// The same event, which borrows nothing: for a sink that keeps it.
    #[must_use]
    pub fn into_owned(self) -> AuditEvent<'static> {
        AuditEvent {
            at: self.at,
            repeated: self.repeated,
            action: self.action,
            outcome: self.outcome,
            reason: self.reason,
            subject: self.subject.into_owned(),
            access: self.access,
            request: self.request.map(RequestFacts::into_owned),
            actor: self.actor.map(owned),
            edit: self.edit,
        }
    }

    /// When it was decided; of several decisions, the last.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// How many decisions it stands for: 1, or more where a [`QueuedSink`](crate::QueuedSink) has coalesced events about
    /// nobody in particular. Such a summary has an outcome and a reason, and nothing of the requests. A
    /// [report](Action::is_report) stands for none: it tells how many it is about.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.repeated.map_or(1, |repeated| repeated.count)
    }

    /// When the first of its decisions was made.
    #[must_use]
    pub fn first_at(&self) -> Timestamp {
        self.repeated.map_or(self.at, |repeated| repeated.first_at)
    }

    /// Whether it is about a request that proved nothing: anybody can cause as many of these as they like. Reports of a
    /// sink are not: those are few, whatever is sent.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        matches!(self.subject, Subject::Nobody | Subject::Claimed(_))
            && self.actor.is_none()
            && !self.action.is_report()
    }

    /// How many decisions an account of them gets for it: none for a report, whatever it counts.
    pub(super) fn decisions(&self) -> u64 {
        if self.action.is_report() { 0 } else { self.count() }
    }

    /// The token that a gate refused, proved or not, where there is one: what a store does not know is no token.
    pub(super) fn refused_token(&self) -> Option<TokenId> {
        let of_a_token = matches!(
            self.reason,
            Some(
                Reason::Mismatch
                    | Reason::Expired
                    | Reason::Revoked
                    | Reason::Paused
                    | Reason::OwnerBarred
                    | Reason::Forbidden
                    | Reason::Policy
            )
        );
        let refused = self.action == Action::Authenticate && self.outcome == Outcome::Refused && of_a_token;
        refused.then(|| self.claimed_id().or_else(|| self.token_id())).flatten()
    }

    /// What was done or asked for.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// What became of it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why, where it was not allowed; for a passed request, which credentials it had none of.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The token, proved by its secret.
    #[must_use]
    pub fn proved(&self) -> Option<&AuthenticatedToken> {
        match &self.subject {
            Subject::Proved(token) => Some(token),
            _ => None,
        }
    }

    /// The id a request claimed without proving it.
    #[must_use]
    pub const fn claimed_id(&self) -> Option<TokenId> {
        match self.subject {
            Subject::Claimed(id) => Some(id),
            _ => None,
        }
    }

    /// The id of a proved token, or of one handled at the desk.
    #[must_use]
    pub fn token_id(&self) -> Option<TokenId> {
        match &self.subject {
            Subject::Proved(token) => Some(token.id()),
            Subject::Handled { id, .. } => *id,
            Subject::Nobody | Subject::Claimed(_) => None,
        }
    }

    /// The owner of a proved token, or of one handled at the desk.
    #[must_use]
    pub fn owner(&self) -> Option<&OwnerId> {
        match &self.subject {
            Subject::Proved(token) => Some(token.owner()),
            Subject::Handled { owner, .. } => owner.as_deref(),
            Subject::Nobody | Subject::Claimed(_) => None,
        }
    }

    /// The label of a proved token, or of one handled at the desk.
    #[must_use]
    pub fn label(&self) -> Option<&Label> {
        match &self.subject {
            Subject::Proved(token) => Some(token.label()),
            Subject::Handled { label, .. } => label.as_deref(),
            Subject::Nobody | Subject::Claimed(_) => None,
        }
    }

    /// The scope of a proved token, or of one handled at the desk.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        match &self.subject {
            Subject::Proved(token) => Some(token.scope()),
            Subject::Handled { scope, .. } => *scope,
            Subject::Nobody | Subject::Claimed(_) => None,
        }
    }

    /// Which of the proved token's secrets was presented.
    #[must_use]
    pub fn secret_slot(&self) -> Option<SecretSlot> {
        self.proved().map(AuthenticatedToken::secret_slot)
    }

    /// The access the request needed, where that was judged.
    #[must_use]
    pub const fn access(&self) -> Option<Access> {
        self.access
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.request.as_ref().map(|request| &*request.method)
    }

    /// The request's path, without its query.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.request.as_ref().map(|request| &*request.path)
    }

    /// The request's route, where the application tells it.
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        self.request.as_ref().and_then(|request| request.route.as_deref())
    }

    /// The client's user agent.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        self.request.as_ref().and_then(|request| request.user_agent.as_deref())
    }

    /// The client's address, where the application tells it.
    #[must_use]
    pub fn client_address(&self) -> Option<IpAddr> {
        self.request.as_ref().and_then(|request| request.client_address)
    }

    /// The request's id, where the application tells it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request.as_ref().and_then(|request| request.request_id.as_deref())
    }

    /// What a change at the desk replaced: an expiry, a scope, a label, a policy, a rotated secret's end.
    #[must_use]
    pub fn before(&self) -> Option<&str> {
        self.edit.as_ref().map(|edit| &*edit.before)
    }

    /// By what the change replaced it.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.edit.as_ref().map(|edit| &*edit.after)
    }

    /// Who acted at the desk.
    #[must_use]
    pub fn actor(&self) -> Option<&CreatedBy> {
        self.actor.as_deref()
    }
}
