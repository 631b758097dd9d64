//! One audit event.

mod parts;
mod vocabulary;

use std::borrow::Cow;
use std::net::IpAddr;

use parts::cleaned;
use parts::owned;
pub(crate) use parts::{Edit, Repeated, RequestFacts, Subject};
pub use vocabulary::{Action, Outcome};

use crate::access::Access;
use crate::clock::Timestamp;
use crate::decision::{AuthenticatedToken, Reason};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::token::{CreatedBy, SecretSlot};

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
    /// sink are not: those are fewer, at most one a token and window.
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

    /// What a change at the desk replaced: an expiry, a scope, a label, a policy, a rotated secret's end. Of an act that
    /// was abandoned or came to no decision, what it would have replaced, and may have.
    #[must_use]
    pub fn before(&self) -> Option<&str> {
        self.edit.as_ref().map(|edit| &*edit.before)
    }

    /// By what the change replaced it.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.edit.as_ref().map(|edit| &*edit.after)
    }

    /// What the actor was told, where a rule of the desk forbids the act: the sentence of the
    /// [`IssueRefusal`](crate::IssueRefusal), which for a rule of the application's own is the rule's.
    #[must_use]
    pub fn detail(&self) -> Option<Cow<'static, str>> {
        match self.reason {
            Some(Reason::NotIssued(refusal)) => Some(cleaned(&refusal.to_string(), Self::MAX_EDIT_LEN)),
            _ => None,
        }
    }

    /// Who acted at the desk.
    #[must_use]
    pub fn actor(&self) -> Option<&CreatedBy> {
        self.actor.as_deref()
    }
}
