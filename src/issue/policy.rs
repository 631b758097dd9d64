//! Who may create which token: a pure decision, and where the policy comes from.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::decision::{IssueRefusal, StoreError};
use crate::id::OwnerId;
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
/// What the table issues can still be refused: a token that asks gets nothing of greater scope or longer life than its
/// own (`exceeds_own_scope`, `exceeds_own_lifetime`), the expiry lies in the future (`already_expired`), and within
/// [`max_lifetime`](Self::max_lifetime) (`lifetime_too_long`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuePolicy {
    force_read_only: bool,
    max_lifetime: Option<Duration>,
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

    /// How long a token may live at most; `None` for as long as its creator likes. With a limit, every token has to
    /// expire.
    #[must_use]
    pub fn max_lifetime(self, max_lifetime: Option<Duration>) -> Self {
        Self { max_lifetime, ..self }
    }

    /// Judges one wish; the first rule that fails is the answer.
    pub(crate) fn judge(
        &self,
        actor: &Actor,
        owner: &OwnerId,
        scope: Scope,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), IssueRefusal> {
        let may = actor.permissions();
        if actor.is(owner) {
            ensure(may.create(), IssueRefusal::CreateNotPermitted)?;
        } else {
            ensure(may.on_behalf(), IssueRefusal::OnBehalfNotPermitted)?;
        }
        let free = !self.force_read_only || may.on_behalf();
        ensure(Scope::ReadOnly.covers(scope) || free, IssueRefusal::ReadOnlyEnforced)?;
        if let Some((own_scope, own_expiry)) = actor.ceiling() {
            ensure(own_scope.covers(scope), IssueRefusal::ExceedsOwnScope)?;
            ensure(ends_by(expires_at, own_expiry), IssueRefusal::ExceedsOwnLifetime)?;
        }
        ensure(expires_at.is_none_or(|end| now < end), IssueRefusal::AlreadyExpired)?;
        ensure(ends_by(expires_at, self.max_lifetime.map(|most| now + most)), IssueRefusal::LifetimeTooLong)
    }
}

fn ensure(holds: bool, refusal: IssueRefusal) -> Result<(), IssueRefusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

/// Whether something ends no later than a limit; what never ends exceeds every limit.
fn ends_by(end: Option<Timestamp>, limit: Option<Timestamp>) -> bool {
    limit.is_none_or(|limit| end.is_some_and(|end| end <= limit))
}

/// Where the desk learns the policy: asked for each token, so that a change holds for the next one, on every process
/// that asks the same source.
///
/// A fixed [`IssuePolicy`] is one, and so is a closure that answers with one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` provides no issue policy",
    note = "pass an `IssuePolicy`, a closure `Fn() -> IssuePolicy`, or implement `PolicyProvider`"
)]
pub trait PolicyProvider: Send + Sync {
    /// The policy as it is now.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be told; the desk then issues nothing.
    fn policy(&self) -> impl Future<Output = Result<IssuePolicy, StoreError>> + Send;
}

impl PolicyProvider for IssuePolicy {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(self.clone())
    }
}

impl<F: Fn() -> IssuePolicy + Send + Sync> PolicyProvider for F {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(self())
    }
}

/// [`PolicyProvider`], object-safe.
pub(crate) trait ErasedPolicy: Send + Sync {
    fn policy(&self) -> BoxFuture<'_, Result<IssuePolicy, StoreError>>;
}

impl<T: PolicyProvider> ErasedPolicy for T {
    fn policy(&self) -> BoxFuture<'_, Result<IssuePolicy, StoreError>> {
        Box::pin(PolicyProvider::policy(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::Permissions;
    use IssueRefusal::{CreateNotPermitted, OnBehalfNotPermitted, ReadOnlyEnforced};
    use Scope::{ReadOnly, ReadWrite};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1000);

    fn permissions(create: bool, on_behalf: bool) -> Permissions {
        let none = Permissions::none();
        let some = if create { none.and_create() } else { none };
        if on_behalf { some.and_on_behalf() } else { some }
    }

    #[track_caller]
    fn judge(policy: &IssuePolicy, actor: &Actor, owner: &str, scope: Scope) -> Result<(), IssueRefusal> {
        policy.judge(actor, &OwnerId::new(owner).unwrap(), scope, None, NOW)
    }

    #[test]
    fn the_decision_table() {
        // create, on_behalf, switch, scope, for oneself, for another
        for (create, on_behalf, switch, scope, own, other) in [
            (false, false, false, ReadOnly, Err(CreateNotPermitted), Err(OnBehalfNotPermitted)),
            (false, false, false, ReadWrite, Err(CreateNotPermitted), Err(OnBehalfNotPermitted)),
            (false, false, true, ReadOnly, Err(CreateNotPermitted), Err(OnBehalfNotPermitted)),
            (false, false, true, ReadWrite, Err(CreateNotPermitted), Err(OnBehalfNotPermitted)),
            (true, false, false, ReadOnly, Ok(()), Err(OnBehalfNotPermitted)),
            (true, false, false, ReadWrite, Ok(()), Err(OnBehalfNotPermitted)),
            (true, false, true, ReadOnly, Ok(()), Err(OnBehalfNotPermitted)),
            (true, false, true, ReadWrite, Err(ReadOnlyEnforced), Err(OnBehalfNotPermitted)),
            (false, true, false, ReadOnly, Err(CreateNotPermitted), Ok(())),
            (false, true, false, ReadWrite, Err(CreateNotPermitted), Ok(())),
            (false, true, true, ReadOnly, Err(CreateNotPermitted), Ok(())),
            (false, true, true, ReadWrite, Err(CreateNotPermitted), Ok(())),
            (true, true, false, ReadOnly, Ok(()), Ok(())),
            (true, true, false, ReadWrite, Ok(()), Ok(())),
            (true, true, true, ReadOnly, Ok(()), Ok(())),
            (true, true, true, ReadWrite, Ok(()), Ok(())),
        ] {
            let policy = IssuePolicy::default().force_read_only(switch);
            let actor = Actor::user("alice", permissions(create, on_behalf));
            let case = format!("create {create}, on_behalf {on_behalf}, switch {switch}, {scope}");
            assert_eq!(judge(&policy, &actor, "alice", scope), own, "{case}, for oneself");
            assert_eq!(judge(&policy, &actor, "bob", scope), other, "{case}, for another");
        }
    }

    #[test]
    fn the_system_may_do_everything() {
        let policy = IssuePolicy::default().force_read_only(true);
        assert_eq!(judge(&policy, &Actor::system("bootstrap"), "alice", ReadWrite), Ok(()));
    }

    #[test]
    fn lifetimes_are_limited_to_the_instant() {
        let policy = IssuePolicy::default().max_lifetime(Some(Duration::from_secs(60)));
        let judge =
            |end: Option<Timestamp>| policy.judge(&Actor::system("test"), &OwnerId::from(1_u32), ReadOnly, end, NOW);
        assert_eq!(judge(Some(NOW + Duration::from_secs(60))), Ok(()));
        assert_eq!(judge(Some(NOW + Duration::from_millis(60_001))), Err(IssueRefusal::LifetimeTooLong));
        assert_eq!(judge(None), Err(IssueRefusal::LifetimeTooLong));
        assert_eq!(judge(Some(NOW)), Err(IssueRefusal::AlreadyExpired));
    }

    #[test]
    #[cfg(feature = "test-util")]
    fn a_token_makes_nothing_greater_than_itself() {
        use crate::decision::AuthenticatedToken;
        let end = NOW + Duration::from_secs(60);
        let own = AuthenticatedToken::builder("alice", "bot", ReadOnly).expires_at(end).build().unwrap();
        let owner = OwnerId::new("alice").unwrap();
        let judge = |permissions, scope, expires_at| {
            IssuePolicy::default().judge(&Actor::token(&own, permissions), &owner, scope, expires_at, NOW)
        };
        let may = Permissions::none().and_create();
        assert_eq!(judge(may, ReadOnly, Some(end)), Ok(()));
        assert_eq!(judge(Permissions::none(), ReadOnly, Some(end)), Err(CreateNotPermitted));
        assert_eq!(judge(may, ReadWrite, Some(end)), Err(IssueRefusal::ExceedsOwnScope));
        assert_eq!(judge(may, ReadOnly, None), Err(IssueRefusal::ExceedsOwnLifetime));
    }
}
