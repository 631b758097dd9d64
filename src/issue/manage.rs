//! The life of a token after it was issued, but for its secrets.

use super::act::{Act, Telling, Told, handled};
use super::error::ManageError;
use super::issuer::{TRIES, TokenIssuer};
use super::new_token::TokenSummary;
use super::policy::{IssuePolicy, Objection};
use super::rule::Proposal;
use crate::actor::Actor;
use crate::audit::{Action, Edit};
use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{Label, TokenId};
use crate::scope::Scope;
use crate::store::Change;
use crate::text::TextError;
use crate::token::{TokenRecord, TokenState};

/// What is to be done to a token that was found; `None` where it is as it should be.
type Step = Option<(Change, Option<Edit>)>;

impl TokenIssuer {
    /// Revokes a token, for good. When it returns, the desk's own gate refuses the token.
    ///
    /// Revoking a revoked token changes nothing and succeeds. What the actor may not see is not found.
    ///
    /// # Errors
    /// [`ManageError`]. With [`Audit`](ManageError::Audit) the token *is* revoked; after
    /// [`Store`](ManageError::Store) it may be, and the gate asks the store before it believes the token again.
    ///
    /// # Cancellation
    /// Dropped before its end, the token may be revoked; the gate asks the store before it believes the token again, and
    /// the event says `abandoned`. So it is with every change of a token.
    pub async fn revoke(&self, actor: &Actor, id: &TokenId) -> Result<TokenSummary, ManageError> {
        let revoke = |found: &TokenRecord, at| match found.state() {
            TokenState::Revoked => Ok(None),
            TokenState::Active | TokenState::Paused => Ok(Some((Change::Revoke { at }, None))),
        };
        self.manage(Action::Revoke, actor, id, revoke).await
    }

    /// Stops a token until it is [resumed](Self::resume). When it returns, the desk's own gate refuses the token.
    ///
    /// # Errors
    /// [`ManageError`]; [`Revoked`](ManageError::Revoked) for a token that is. Pausing a paused token succeeds.
    ///
    /// # Cancellation
    /// As for [`revoke`](Self::revoke).
    pub async fn pause(&self, actor: &Actor, id: &TokenId) -> Result<TokenSummary, ManageError> {
        let pause = |found: &TokenRecord, _| match found.state() {
            TokenState::Paused => Ok(None),
            TokenState::Active => Ok(Some((Change::Pause, None))),
            TokenState::Revoked => Err(ManageError::Revoked),
        };
        self.manage(Action::Pause, actor, id, pause).await
    }

    /// Lets a paused token work again, if the actor could issue it as it is, today.
    ///
    /// # Errors
    /// [`ManageError`]; [`Refused`](ManageError::Refused) where today's rules do not allow such a token,
    /// [`Revoked`](ManageError::Revoked) for one that is. Resuming an active token succeeds.
    ///
    /// # Cancellation
    /// As for [`revoke`](Self::revoke).
    pub async fn resume(&self, actor: &Actor, id: &TokenId) -> Result<TokenSummary, ManageError> {
        let mut act = self.act_on(Action::Resume, actor, id);
        let resumed = self.resume_judged(&mut act, actor, id).await;
        act.end(resumed.map(|record| (&record).into()))
    }

    async fn resume_judged(&self, act: &mut Act<'_>, actor: &Actor, id: &TokenId) -> Result<TokenRecord, ManageError> {
        let found = self.visible(actor, id).await?;
        act.about(&found);
        let policy = self.policy().await.map_err(ManageError::Policy)?;
        if found.state() == TokenState::Paused {
            self.judge_again(&policy, actor, &found, self.desk.clock.wall())?;
            // It is counted already.
            self.judge_room(&policy, found.owner(), 0).await?;
        }
        let resume = |found: &TokenRecord, now| match found.state() {
            TokenState::Active => Ok(None),
            TokenState::Paused => self.judge_again(&policy, actor, found, now).map(|()| Some(Change::Resume)),
            TokenState::Revoked => Err(ManageError::Revoked),
        };
        self.change(actor, id, resume).await
    }

    /// Lets a token expire at `end`, which is earlier than it would; at once, where `end` has passed.
    ///
    /// # Errors
    /// [`ManageError`]; [`ExpiryNotEarlier`](ManageError::ExpiryNotEarlier) where the token ends before `end` already,
    /// [`Revoked`](ManageError::Revoked) for a token that is.
    ///
    /// # Cancellation
    /// As for [`revoke`](Self::revoke).
    pub async fn expire_at(&self, actor: &Actor, id: &TokenId, end: Timestamp) -> Result<TokenSummary, ManageError> {
        let expire = |found: &TokenRecord, now: Timestamp| {
            if found.state() == TokenState::Revoked {
                return Err(ManageError::Revoked);
            }
            // Not before now: it did work until then.
            let end = end.max(now);
            match found.expires_at() {
                Some(own) if own == end || own < end && end == now => Ok(None),
                Some(own) if own < end => Err(ManageError::ExpiryNotEarlier { expires_at: own }),
                own => Ok(Some((Change::Expiry(Some(end)), Some(Edit::new(EndText(own), end))))),
            }
        };
        self.manage(Action::SetExpiry, actor, id, expire).await
    }

    /// Limits a token to reading, for good.
    ///
    /// # Errors
    /// [`ManageError`]; [`Revoked`](ManageError::Revoked) for a token that is. Narrowing a read-only token succeeds.
    ///
    /// # Cancellation
    /// As for [`revoke`](Self::revoke).
    pub async fn narrow(&self, actor: &Actor, id: &TokenId) -> Result<TokenSummary, ManageError> {
        let narrow = |found: &TokenRecord, _| match (found.state(), found.scope()) {
            (TokenState::Revoked, _) => Err(ManageError::Revoked),
            (_, Scope::ReadOnly) => Ok(None),
            (_, wide) => Ok(Some((Change::Scope(Scope::ReadOnly), Some(Edit::new(wide, Scope::ReadOnly))))),
        };
        self.manage(Action::Narrow, actor, id, narrow).await
    }

    /// Calls a token something else.
    ///
    /// # Errors
    /// [`ManageError`]; [`Label`](ManageError::Label) for a text that can be none, [`Revoked`](ManageError::Revoked) for
    /// a token that is.
    ///
    /// # Cancellation
    /// As for [`revoke`](Self::revoke).
    pub async fn rename<L>(&self, actor: &Actor, id: &TokenId, label: L) -> Result<TokenSummary, ManageError>
    where
        L: TryInto<Label, Error: Into<TextError>>,
    {
        let label = label.try_into().map_err(Into::into);
        let rename = |found: &TokenRecord, _| {
            let label = label.as_ref().map_err(|error| ManageError::Label(*error))?;
            match found.state() {
                TokenState::Revoked => Err(ManageError::Revoked),
                _ if found.label() == label => Ok(None),
                _ => Ok(Some((Change::Label(label.clone()), Some(Edit::new(found.label(), label))))),
            }
        };
        self.manage(Action::Rename, actor, id, rename).await
    }

    pub(super) fn act_on(&self, action: Action, actor: &Actor, id: &TokenId) -> Act<'_> {
        Act::begin(&self.desk, action, actor, handled(Some(*id), None))
    }

    /// One act on one token that the actor may see.
    async fn manage(
        &self,
        action: Action,
        actor: &Actor,
        id: &TokenId,
        plan: impl Fn(&TokenRecord, Timestamp) -> Result<Step, ManageError>,
    ) -> Result<TokenSummary, ManageError> {
        let mut act = self.act_on(action, actor, id);
        let plan = |found: &TokenRecord, now| {
            act.about(found);
            let (change, edit) = plan(found, now)?.unzip();
            act.replaces(edit.flatten());
            Ok(change)
        };
        let changed = self.change(actor, id, plan).await;
        act.end(changed.map(|record| (&record).into()))
    }

    /// Changes a token as planned for what it is by then: the plan is made anew where somebody else was faster.
    pub(super) async fn change(
        &self,
        actor: &Actor,
        id: &TokenId,
        mut plan: impl FnMut(&TokenRecord, Timestamp) -> Result<Option<Change>, ManageError>,
    ) -> Result<TokenRecord, ManageError> {
        for _ in 0..TRIES {
            let found = self.visible(actor, id).await?;
            let Some(change) = plan(&found, self.desk.clock.wall())? else {
                // The gate may not have heard of it yet.
                self.learn(&found);
                return Ok(found);
            };
            match self.update(&found, change).await {
                Err(ManageError::Conflict) => {}
                answer => return answer,
            }
        }
        Err(ManageError::Conflict)
    }

    async fn update(&self, found: &TokenRecord, change: Change) -> Result<TokenRecord, ManageError> {
        let id = found.id();
        // Also where it fails: a store can do so after it has written.
        let _told = Telling::new(&self.desk, Told::Token(id));
        let updated = self.desk.registry.update(&id, found.revision(), change).await;
        let changed = updated.map_err(ManageError::of_update)?;
        self.learn(&changed);
        Ok(changed)
    }

    fn learn(&self, record: &TokenRecord) {
        if let Some(gate) = &self.desk.gate {
            gate.learn(record.clone());
        }
    }

    /// Whether the actor could issue this very token now.
    pub(super) fn judge_again(
        &self,
        policy: &IssuePolicy,
        actor: &Actor,
        record: &TokenRecord,
        now: Timestamp,
    ) -> Result<(), ManageError> {
        let name = actor.name().map_err(ManageError::Actor)?;
        policy.judge(actor, &Proposal::again(actor, &name, record, now)).map_err(Objection::into)
    }

    /// The token, if the actor may see it.
    pub(super) async fn visible(&self, actor: &Actor, id: &TokenId) -> Result<TokenRecord, ManageError> {
        actor.name().map_err(ManageError::Actor)?;
        self.find_visible(actor, id).await.map_err(ManageError::Store)?.ok_or(ManageError::NotFound)
    }

    pub(super) async fn find_visible(&self, actor: &Actor, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let found = self.desk.registry.find(id).await?;
        Ok(found.filter(|record| may_see(actor, record)))
    }
}

/// What an actor may not see looks absent.
pub(super) fn may_see(actor: &Actor, record: &TokenRecord) -> bool {
    actor.permissions().on_behalf() || actor.is(record.owner())
}

/// An end, for people: an instant, or `never`.
pub(super) struct EndText(pub(super) Option<Timestamp>);

impl std::fmt::Display for EndText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(end) => end.fmt(f),
            None => f.write_str("never"),
        }
    }
}
