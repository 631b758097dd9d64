//! What an event is made of: whom it is about, what was asked, what was changed.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::AuditEvent;
use crate::clock::Timestamp;
use crate::decision::AuthenticatedToken;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::text;

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
    pub(super) fn into_owned(self) -> Subject<'static> {
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

pub(super) fn owned<T: ToOwned + ?Sized>(value: Cow<'_, T>) -> Cow<'static, T> {
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

    pub(super) fn into_owned(self) -> RequestFacts<'static> {
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

pub(super) fn cleaned(text: &str, max: usize) -> Cow<'static, str> {
    Cow::Owned(text::clean(text.as_bytes(), max).into_owned())
}
