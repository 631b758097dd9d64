//! Which programs use which token.

use std::fmt;

use super::filter::HistoryCursor;
use crate::audit::recent::Recent;
use crate::audit::{AuditEvent, Outcome};
use crate::clock::Timestamp;
use crate::decision::AuthenticatedToken;
use crate::id::{Label, OwnerId, TokenId};

/// What a program that used a token called itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserAgent {
    /// By this text, cleaned and capped as in an [`AuditEvent`].
    Named(String),
    /// It did not say.
    Unnamed,
    /// All those that came when the token had [as many as are told apart](TokenApplications::MAX_AGENTS).
    Other,
}

impl UserAgent {
    pub(crate) fn new(text: Option<&str>) -> Self {
        text.map_or(Self::Unnamed, |text| Self::Named(text.to_owned()))
    }

    pub(crate) fn is(&self, text: Option<&str>) -> bool {
        match self {
            Self::Named(name) => Some(name.as_str()) == text,
            Self::Unnamed => text.is_none(),
            Self::Other => false,
        }
    }
}

impl fmt::Display for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Named(name) => name,
            Self::Unnamed => "(unnamed)",
            Self::Other => "(other)",
        })
    }
}

/// What one application did with one token, from requests that *proved* the token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplicationSeen {
    /// What it calls itself. A program can say what it likes: this tells honest programs apart, and proves nothing.
    pub user_agent: UserAgent,
    /// Its first request.
    pub first_at: Timestamp,
    /// Its last request.
    pub last_at: Timestamp,
    /// How many of its requests were admitted.
    pub allowed: u64,
    /// How many were refused by scope or policy.
    pub forbidden: u64,
    /// How many were admitted only because the gate reports what it would refuse.
    pub would_forbid: u64,
}

impl ApplicationSeen {
    /// An application whose first request came now, and is not counted yet.
    #[must_use]
    pub const fn new(user_agent: UserAgent, at: Timestamp) -> Self {
        Self { user_agent, first_at: at, last_at: at, allowed: 0, forbidden: 0, would_forbid: 0 }
    }

    pub(crate) fn count(&mut self, event: &AuditEvent<'_>) {
        self.first_at = self.first_at.min(event.at());
        self.last_at = self.last_at.max(event.at());
        match event.outcome() {
            Outcome::Allowed => self.allowed += 1,
            Outcome::Refused => self.forbidden += 1,
            Outcome::WouldForbid => self.would_forbid += 1,
            Outcome::Passed | Outcome::Unavailable | Outcome::Abandoned => {}
        }
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl ApplicationSeen {
    /// Counts what another did as its own.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.allowed += other.allowed;
        self.forbidden += other.forbidden;
        self.would_forbid += other.would_forbid;
    }
}

/// The applications that used one token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenApplications {
    /// Which token.
    pub token: TokenId,
    /// Whose token it is.
    pub owner: OwnerId,
    /// What people call it, at its last request.
    pub label: Label,
    /// Its applications, in the order in which they came: at most [`MAX_AGENTS`](Self::MAX_AGENTS), and then one for all
    /// [others](UserAgent::Other).
    pub applications: Vec<ApplicationSeen>,
    /// How many requests claimed the token, without proving it, and were refused. Anybody can do that, so nothing else
    /// they said is kept.
    pub unproved: u64,
}

impl TokenApplications {
    /// How many applications of one token are told apart.
    pub const MAX_AGENTS: usize = 16;

    /// A token of which nothing was seen yet.
    #[must_use]
    pub const fn new(token: TokenId, owner: OwnerId, label: Label) -> Self {
        Self { token, owner, label, applications: Vec::new(), unproved: 0 }
    }

    fn of(token: &AuthenticatedToken) -> Self {
        Self::new(token.id(), token.owner().clone(), token.label().clone())
    }

    fn saw(&mut self, token: &AuthenticatedToken, event: &AuditEvent<'_>) {
        if self.label != *token.label() {
            self.label = token.label().clone();
        }
        let at = self.place(event.user_agent(), event.at());
        self.applications.get_mut(at).into_iter().for_each(|application| application.count(event));
    }

    /// Where an application has its place, which is made if it is new.
    fn place(&mut self, agent: Option<&str>, now: Timestamp) -> usize {
        let known = self.applications.iter().position(|application| application.user_agent.is(agent));
        known.unwrap_or_else(|| {
            let at = self.applications.len().min(Self::MAX_AGENTS);
            if at == self.applications.len() {
                let new = if at < Self::MAX_AGENTS { UserAgent::new(agent) } else { UserAgent::Other };
                self.applications.push(ApplicationSeen::new(new, now));
            }
            at
        })
    }
}

/// Which tokens' applications to list. Lets everything through, unless narrowed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApplicationFilter {
    /// Only tokens of this owner.
    pub owner: Option<OwnerId>,
    /// The greatest number of tokens on a page, at least 1.
    pub page_size: usize,
}

impl ApplicationFilter {
    /// Lets everything through, 100 tokens a page.
    #[must_use]
    pub const fn all() -> Self {
        Self { owner: None, page_size: 100 }
    }

    /// Only tokens of this owner.
    #[must_use]
    pub fn owner(self, owner: OwnerId) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// At most this many tokens a page; 0 counts as 1.
    #[must_use]
    pub fn page_size(self, page_size: usize) -> Self {
        Self { page_size: page_size.max(1), ..self }
    }

    /// Whether a token is let through, for histories that filter by hand.
    #[must_use]
    pub fn matches(&self, token: &TokenApplications) -> bool {
        self.owner.as_ref().is_none_or(|owner| *owner == token.owner)
    }
}

impl Default for ApplicationFilter {
    fn default() -> Self {
        Self::all()
    }
}

/// One page of tokens with their applications, in the order of the tokens' ids.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApplicationPage {
    /// The tokens, at most [`ApplicationFilter::page_size`].
    pub tokens: Vec<TokenApplications>,
    /// Where the listing goes on, `None` at its end.
    pub next: Option<HistoryCursor>,
}

impl ApplicationPage {
    /// A page and where the listing goes on.
    #[must_use]
    pub const fn new(tokens: Vec<TokenApplications>, next: Option<HistoryCursor>) -> Self {
        Self { tokens, next }
    }
}

/// The tokens whose applications are known.
pub(super) struct Applications(pub(super) Recent<TokenId, TokenApplications>);

impl Applications {
    pub(super) fn see(&mut self, event: &AuditEvent<'_>) {
        if let Some(token) = event.proved() {
            self.0.touch(token.id(), || TokenApplications::of(token)).saw(token, event);
        } else if event.outcome() == Outcome::Refused && !event.action().is_report() {
            // A claim neither adds a token nor keeps one: that would be a way to push others out.
            let claimed = event.claimed_id().and_then(|id| self.0.get_mut(&id));
            claimed.into_iter().for_each(|token| token.unproved += event.count());
        }
    }
}
