//! What takes the permission *administer*: the policy, barred owners, pruning.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::act::{Act, Telling, Told, handled};
use super::error::ManageError;
use super::issuer::TokenIssuer;
use super::policy::{IssuePolicy, ensure};
use crate::actor::Actor;
use crate::audit::{Action, Edit};
use crate::decision::{IssueRefusal, StoreError};
use crate::id::OwnerId;

impl TokenIssuer {
    /// Puts another policy in the place of today's, and answers with the one it replaced. It holds for the next token,
    /// and where the desk's own gate [applies the policy at use](crate::TokenAuthBuilder::policy_at_use) for the next
    /// request.
    ///
    /// # Errors
    /// [`ManageError`]; [`Policy`](ManageError::Policy) where the [provider](super::PolicyProvider::replace) cannot write
    /// it, as one whose policy is fixed. With [`Audit`](ManageError::Audit) the new policy holds.
    ///
    /// # Cancellation
    /// Dropped before its end, either policy may hold; the gate asks the store and the provider before it believes
    /// anything again.
    pub async fn change_policy(&self, actor: &Actor, new: IssuePolicy) -> Result<IssuePolicy, ManageError> {
        let mut act = Act::begin(&self.desk, Action::ChangePolicy, actor, handled(None, None));
        let changed = self.replace_policy(&mut act, actor, new).await;
        act.end(changed)
    }

    async fn replace_policy(
        &self,
        act: &mut Act<'_>,
        actor: &Actor,
        new: IssuePolicy,
    ) -> Result<IssuePolicy, ManageError> {
        may_administer(actor)?;
        let _told = Telling::new(&self.desk, Told::Everything);
        let after = new.to_string();
        let old = self.desk.policy.replace(new).await.map_err(ManageError::Policy)?;
        act.replaces(Some(Edit::new(&old, after)));
        Ok(old)
    }

    /// Bars an owner: all their tokens stop working until the bar is [lifted](Self::lift_owner). When it returns, the
    /// desk's own gate refuses them. Barring twice changes nothing and succeeds.
    ///
    /// # Errors
    /// [`ManageError`]. With [`Audit`](ManageError::Audit) the owner *is* barred; after [`Store`](ManageError::Store) they
    /// may be, and the gate asks the store before it believes any of their tokens again.
    ///
    /// # Cancellation
    /// Dropped before its end, the owner may be barred; the gate asks the store before it believes their tokens again.
    pub async fn bar_owner(&self, actor: &Actor, owner: &OwnerId) -> Result<(), ManageError> {
        self.set_bar(Action::BarOwner, actor, owner, || self.desk.registry.bar_owner(owner)).await
    }

    /// Lifts the bar: the owner's tokens work again, those that would. Lifting none changes nothing and succeeds.
    ///
    /// # Errors
    /// [`ManageError`], as for [`bar_owner`](Self::bar_owner).
    ///
    /// # Cancellation
    /// As for [`bar_owner`](Self::bar_owner).
    pub async fn lift_owner(&self, actor: &Actor, owner: &OwnerId) -> Result<(), ManageError> {
        self.set_bar(Action::LiftOwner, actor, owner, || self.desk.registry.lift_owner(owner)).await
    }

    async fn set_bar<'a>(
        &'a self,
        action: Action,
        actor: &Actor,
        owner: &'a OwnerId,
        set: impl FnOnce() -> BoxFuture<'a, Result<(), StoreError>>,
    ) -> Result<(), ManageError> {
        let act = Act::begin(&self.desk, action, actor, handled(None, Some(owner)));
        let answer = match may_administer(actor) {
            Ok(()) => {
                // Also where it fails: a store can do so after it has written.
                let _told = Telling::new(&self.desk, Told::Owner(owner));
                set().await.map_err(ManageError::Store)
            }
            refused => refused,
        };
        act.end(answer)
    }

    /// Forgets the records of tokens that were dead for good, revoked or expired, more than `dead_for` ago, and answers
    /// how many. Choose as long as anybody may ask what a token id in an old log was: events name ids, and only the record
    /// tells the rest.
    ///
    /// # Errors
    /// [`ManageError`]; [`Store`](ManageError::Store) also where the registry cannot prune. With
    /// [`Audit`](ManageError::Audit) the records *are* forgotten.
    ///
    /// # Cancellation
    /// Dropped before its end, some records may be forgotten.
    pub async fn prune(&self, actor: &Actor, dead_for: Duration) -> Result<u64, ManageError> {
        let mut act = Act::begin(&self.desk, Action::Prune, actor, handled(None, None));
        let time = self.desk.clock.wall() - dead_for;
        let pruned = match may_administer(actor) {
            Ok(()) => self.desk.registry.prune(time).await.map_err(ManageError::Store),
            Err(refused) => Err(refused),
        };
        let told = |count| Edit::new(format_args!("dead before {time}"), format_args!("{count} forgotten"));
        act.replaces(pruned.as_ref().ok().map(told));
        act.end(pruned)
    }
}

fn may_administer(actor: &Actor) -> Result<(), ManageError> {
    actor.name().map_err(ManageError::Actor)?;
    ensure(actor.permissions().administer(), IssueRefusal::AdministerNotPermitted).map_err(ManageError::Refused)
}
