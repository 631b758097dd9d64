//! Who may create which token: a pure decision.

use std::fmt;
use std::time::Duration;

use super::rule::{Proposal, Rule};
use crate::actor::Actor;
use crate::clock::{Span, Timestamp};
use crate::decision::{IssueRefusal, StoreError};
use crate::scope::Scope;

/// What an administrator allows. Limits nothing, unless set.
///
/// What an actor may create, by its [`Permissions`](crate::Permissions) and the [switch](Self::force_read_only); a
/// refusal is an [`IssueRefusal`]:
///
/// | the actor may | switch | read-only for oneself | read-write for oneself | either for another |
/// |---|---|---|---|---|
/// | nothing | on or off | `create_not_permitted` | `create_not_permitted` | `on_behalf_not_permitted` |
/// | *create* | off | issued | issued | `on_behalf_not_permitted` |
/// | *create* | on | issued | `read_only_enforced` | `on_behalf_not_permitted` |
/// | *on behalf* | on or off | `create_not_permitted` | `create_not_permitted` | issued |
/// | both, or is the system | on or off | issued | issued | issued |
///
/// *Administer* changes none of it. What the table issues can still be refused, by the first of these:
/// 1. A token that asks gets nothing of greater scope or longer life than its own (`exceeds_own_scope`,
///    `exceeds_own_lifetime`).
/// 2. The expiry lies in the future (`already_expired`) and within the limits (`lifetime_too_long`,
///    `expiry_required`).
/// 3. The application's own [rules](Self::rule), in the order in which they were added (`rule`).
/// 4. The owner has [room](Self::max_live_tokens) for another token (`too_many_tokens`).
///
/// `Display` is one line for the audit trail, such as `force_read_only=on max_lifetime=90d …`.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{IssuePolicy, Scope};
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
/// let policy = IssuePolicy::default()
///     .max_lifetime(Some(365 * DAY))
///     .max_lifetime_of(Scope::ReadWrite, Some(90 * DAY))
///     .max_live_tokens(Some(20))
///     .rule(|wish| match wish.owner().as_str().starts_with("robot-") && wish.scope() == Scope::ReadWrite {
///         true => Err("robots get read-only tokens"),
///         false => Ok(()),
///     });
/// assert!(policy.to_string().starts_with("force_read_only=off max_lifetime=365d"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuePolicy {
    force_read_only: bool,
    max_lifetime: Option<Duration>,
    max_lifetime_read_only: Option<Duration>,
    max_lifetime_read_write: Option<Duration>,
    require_expiry: bool,
    max_live_tokens: Option<usize>,
    rules: Vec<Rule>,
}

impl IssuePolicy {
    /// The switch: with it on, only actors who may create tokens on behalf of others may create more than read-only
    /// ones, for themselves or for others.
    #[must_use]
    pub fn force_read_only(self, force_read_only: bool) -> Self {
        Self { force_read_only, ..self }
    }

    /// Whether the switch is on.
    pub(crate) const fn is_read_only_forced(&self) -> bool {
        self.force_read_only
    }

    /// How long a token of any scope may live at most; `None` for as long as its creator likes. With a limit, every token
    /// has to expire.
    #[must_use]
    pub fn max_lifetime(self, max_lifetime: Option<Duration>) -> Self {
        Self { max_lifetime, ..self }
    }

    /// How long a token of this scope may live at most; of this and [`max_lifetime`](Self::max_lifetime) the shorter
    /// counts.
    #[must_use]
    pub fn max_lifetime_of(self, scope: Scope, max_lifetime: Option<Duration>) -> Self {
        match scope {
            Scope::ReadOnly => Self { max_lifetime_read_only: max_lifetime, ..self },
            Scope::ReadWrite => Self { max_lifetime_read_write: max_lifetime, ..self },
        }
    }

    /// Whether every token has to expire, however late.
    #[must_use]
    pub fn require_expiry(self, require_expiry: bool) -> Self {
        Self { require_expiry, ..self }
    }

    /// How many live tokens an owner may have: neither revoked nor expired. A paused token counts, and so does that of a
    /// barred owner: they can work again.
    ///
    /// # Cost
    /// With a limit, each issue lists the owner's tokens twice, and a desk issues one token after the other.
    #[must_use]
    pub fn max_live_tokens(self, max_live_tokens: Option<usize>) -> Self {
        Self { max_live_tokens, ..self }
    }

    /// Adds a rule of the application's own. It answers with what the actor is told, so let that say what would be
    /// allowed. A rule that panics issues nothing.
    ///
    /// Rules are compared by identity: two policies are equal if they share them.
    #[must_use]
    pub fn rule(mut self, rule: impl Fn(&Proposal<'_>) -> Result<(), &'static str> + Send + Sync + 'static) -> Self {
        self.rules.push(Rule::new(rule));
        self
    }

    pub(super) const fn live_limit(&self) -> Option<usize> {
        self.max_live_tokens
    }

    /// Judges one wish, but for the number of tokens; the first rule that fails is the answer.
    pub(super) fn judge(&self, actor: &Actor, proposal: &Proposal<'_>) -> Result<(), Objection> {
        self.judge_right(actor, proposal)?;
        judge_ceiling(actor, proposal)?;
        self.judge_lifetime(proposal)?;
        self.rules.iter().try_for_each(|rule| rule.judge(proposal))
    }

    fn judge_right(&self, actor: &Actor, proposal: &Proposal<'_>) -> Result<(), IssueRefusal> {
        let may = actor.permissions();
        if proposal.for_oneself {
            ensure(may.create(), IssueRefusal::CreateNotPermitted)?;
        } else {
            ensure(may.on_behalf(), IssueRefusal::OnBehalfNotPermitted)?;
        }
        let free = !self.force_read_only || may.on_behalf();
        ensure(Scope::ReadOnly.covers(proposal.scope) || free, IssueRefusal::ReadOnlyEnforced)
    }

    fn judge_lifetime(&self, proposal: &Proposal<'_>) -> Result<(), IssueRefusal> {
        let (end, now) = (proposal.expires_at, proposal.now);
        ensure(end.is_none_or(|end| now < end), IssueRefusal::AlreadyExpired)?;
        if let Some(max) = self.lifetime_limit(proposal.scope) {
            ensure(ends_by(end, now + max), IssueRefusal::LifetimeTooLong { max })?;
        }
        ensure(end.is_some() || !self.require_expiry, IssueRefusal::ExpiryRequired)
    }

    fn lifetime_limit(&self, scope: Scope) -> Option<Duration> {
        let own = match scope {
            Scope::ReadOnly => self.max_lifetime_read_only,
            Scope::ReadWrite => self.max_lifetime_read_write,
        };
        [self.max_lifetime, own].into_iter().flatten().min()
    }
}

fn judge_ceiling(actor: &Actor, proposal: &Proposal<'_>) -> Result<(), IssueRefusal> {
    let Some((own, until)) = actor.ceiling() else {
        return Ok(());
    };
    ensure(own.covers(proposal.scope), IssueRefusal::ExceedsOwnScope { own })?;
    let outlives = until.filter(|until| !ends_by(proposal.expires_at, *until));
    outlives.map_or(Ok(()), |until| Err(IssueRefusal::ExceedsOwnLifetime { until }))
}

pub(super) fn ensure(holds: bool, refusal: IssueRefusal) -> Result<(), IssueRefusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

/// Whether something ends no later than a limit; what never ends exceeds every limit.
fn ends_by(end: Option<Timestamp>, limit: Timestamp) -> bool {
    end.is_some_and(|end| end <= limit)
}

/// Why a wish is not granted.
#[derive(Debug)]
pub(super) enum Objection {
    /// The rules do not allow it.
    Refused(IssueRefusal),
    /// The policy could not judge.
    Policy(StoreError),
    /// The tokens could not be counted.
    Store(StoreError),
}

impl From<IssueRefusal> for Objection {
    fn from(refusal: IssueRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for IssuePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switch = |on: bool| if on { "on" } else { "off" };
        let span = |limit: Option<Duration>| limit.map_or("none".to_owned(), |limit| Span(limit).to_string());
        write!(f, "force_read_only={}", switch(self.force_read_only))?;
        write!(f, " max_lifetime={}", span(self.max_lifetime))?;
        write!(f, " max_lifetime_of_read_only={}", span(self.max_lifetime_read_only))?;
        write!(f, " max_lifetime_of_read_write={}", span(self.max_lifetime_read_write))?;
        write!(f, " require_expiry={}", switch(self.require_expiry))?;
        write!(f, " max_live_tokens={}", self.max_live_tokens.map_or("none".to_owned(), |max| max.to_string()))?;
        write!(f, " rules={}", self.rules.len())
    }
}

#[cfg(test)]
mod tests;
