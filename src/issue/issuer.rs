//! The desk itself.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use futures_util::future::{Either, select};

use super::builder::TokenIssuerBuilder;
use super::error::{IssueError, ListError, RevokeError};
use super::new_token::{Ensured, IssuedToken, NewToken, SummaryPage, TokenSummary};
use super::policy::{ErasedPolicy, PolicyProvider};
use super::wish::Wish;
use crate::actor::Actor;
use crate::audit::{Action, AuditEvent, OnAuditFailure, Outcome, Recorder, Subject};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::config::VerifyLimits;
use crate::decision::{GateId, Reason, StoreError};
use crate::hash::{HashCost, HashError, Scratch, SecretHasher};
use crate::id::TokenId;
use crate::secret::{SecretHash, TokenSecret};
use crate::store::{Change, Cursor, ErasedRegistry, TokenFilter, TokenRegistry};
use crate::token::{CreatedBy, PlaintextToken, Prefix, TokenRecord, TokenState};
use crate::verify::{Crew, JobKey};

/// How often an id is drawn again, or a lost compare-and-set tried again.
const TRIES: usize = 4;

/// Issues, lists and revokes tokens under a policy. A clone is the same desk.
///
/// Made by [`TokenAuthLayer::issuer`](crate::TokenAuthLayer::issuer), whose gate obeys its changes at once, or by
/// [`builder`](Self::builder) where there is no gate.
#[derive(Clone)]
pub struct TokenIssuer(Arc<DeskParts>, GateId);

/// What a desk is made of.
pub(crate) struct DeskParts {
    pub(crate) registry: Arc<dyn ErasedRegistry>,
    pub(crate) policy: Arc<dyn ErasedPolicy>,
    pub(crate) prefix: Prefix,
    pub(crate) hasher: Arc<dyn SecretHasher>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) limits: VerifyLimits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) on_audit_failure: OnAuditFailure,
    pub(crate) gate: Option<Authenticator>,
}

impl TokenIssuer {
    /// A desk without a gate, to be configured.
    pub fn builder(
        registry: impl TokenRegistry + 'static,
        policy: impl PolicyProvider + 'static,
    ) -> TokenIssuerBuilder {
        TokenIssuerBuilder::new(Arc::new(registry), Arc::new(policy))
    }

    pub(crate) fn assemble(parts: DeskParts) -> Self {
        let gate = parts.gate.as_ref().map_or_else(GateId::next, Authenticator::gate);
        Self(Arc::new(parts), gate)
    }

    /// Issues a token. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`IssueError`]. Nothing was issued, with two exceptions: under [`OnAuditFailure::Refuse`] a token whose event
    /// could not be recorded was stored and revoked again ([`IssueError::Audit`]), and a store that fails may have
    /// stored the token all the same ([`IssueError::Store`]). Nobody has the text of either.
    ///
    /// # Cancellation
    /// Dropped after the store took the token, the token exists and nobody has its text: revoke it, or let it be.
    pub async fn issue(&self, actor: &Actor, new: NewToken) -> Result<IssuedToken, IssueError> {
        let wish = Wish::new(actor, new, self.0.clock.wall())?;
        let answer = self.make_anew(actor, &wish).await;
        self.conclude(actor, &wish, answer).await
    }

    /// Issues a token once: the first call makes it, every other finds it, also from other processes at the same
    /// time. For the first token of a deployment.
    ///
    /// Which token it is follows from its owner and label alone. One that is there is the answer whatever its state,
    /// and whatever the policy says today: a deployment that has its token starts. It is never made again.
    ///
    /// # Errors
    /// As for [`issue`](Self::issue). A token that was stored without an answer is found by the next call, as one
    /// whose text nobody has: revoke it, and ensure one of another label.
    ///
    /// # Cancellation
    /// As for the errors: dropped after the store took the token, its text is lost.
    pub async fn ensure(&self, actor: &Actor, new: NewToken) -> Result<Ensured, IssueError> {
        let wish = Wish::new(actor, new, self.0.clock.wall())?;
        let answer = match self.find_or_make(actor, &wish).await {
            Ok(Ensured::Exists(summary)) => return Ok(Ensured::Exists(summary)),
            Ok(Ensured::Created(issued)) => Ok(issued),
            Err(error) => Err(error),
        };
        self.conclude(actor, &wish, answer).await.map(Ensured::Created)
    }

    /// Revokes a token, for good. When it returns, the desk's own gate refuses the token.
    ///
    /// Revoking a revoked token changes nothing and succeeds. What the actor may not see is not found.
    ///
    /// # Errors
    /// [`RevokeError`]. With [`Audit`](RevokeError::Audit) the token *is* revoked; after
    /// [`Store`](RevokeError::Store) it may be, and the gate asks the store before it believes the token again.
    ///
    /// # Cancellation
    /// Dropped before its end, the token may be revoked, and the gate may not know yet: it does by its TTL.
    pub async fn revoke(&self, actor: &Actor, id: &TokenId) -> Result<TokenSummary, RevokeError> {
        let creator = actor.name().map_err(RevokeError::Actor)?;
        let revoked = self.revoke_visible(actor, id).await;
        let subject = match &revoked {
            Ok(record) => subject_of(record),
            Err(_) => Subject::Handled { id: Some(*id), owner: None, label: None, scope: None },
        };
        let recorded = self.record(Action::Revoke, revoked.as_ref().err().map(RevokeError::reason), subject, &creator);
        let record = revoked?;
        if recorded { Ok((&record).into()) } else { Err(RevokeError::Audit) }
    }

    /// The tokens that the actor may see and the filter lets through, a page at a time.
    ///
    /// # Errors
    /// [`ListError::Store`] when the store cannot answer, or does not know the cursor.
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn list(
        &self,
        actor: &Actor,
        filter: TokenFilter,
        cursor: Option<&Cursor>,
    ) -> Result<SummaryPage, ListError> {
        let empty = SummaryPage { tokens: Vec::new(), next: None };
        let filter = match (actor.permissions().on_behalf(), actor.owner()) {
            (true, _) => filter,
            (false, Some(own)) if filter.owner.as_ref().is_none_or(|asked| asked == own) => filter.owner(own.clone()),
            (false, _) => return Ok(empty),
        };
        let page = self.0.registry.list(&filter, cursor).await.map_err(ListError::Store)?;
        // The filter says so already; a store that overlooks it must not show one user another's tokens.
        let visible = page.records.iter().filter(|record| may_see(actor, record));
        Ok(SummaryPage { tokens: visible.map(TokenSummary::from).collect(), next: page.next })
    }

    async fn make_anew(&self, actor: &Actor, wish: &Wish) -> Result<IssuedToken, IssueError> {
        self.judge(actor, wish).await?;
        for _ in 0..TRIES {
            let id = TokenId::generate().map_err(IssueError::Random)?;
            match self.make(wish, id).await {
                Err(IssueError::IdTaken) => {}
                answer => return answer,
            }
        }
        Err(IssueError::IdTaken)
    }

    async fn find_or_make(&self, actor: &Actor, wish: &Wish) -> Result<Ensured, IssueError> {
        let id = wish.ensured_id();
        if let Some(found) = self.find_visible(actor, &id).await.map_err(IssueError::Store)? {
            return Ok(Ensured::Exists((&found).into()));
        }
        self.judge(actor, wish).await?;
        match self.make(wish, id).await {
            Err(IssueError::IdTaken) => {}
            answer => return answer.map(Ensured::Created),
        }
        // Somebody else has made it meanwhile.
        let found = self.find_visible(actor, &id).await.map_err(IssueError::Store)?;
        found.map(|found| Ensured::Exists((&found).into())).ok_or(IssueError::IdTaken)
    }

    /// Judges a wish by the policy as it is now.
    async fn judge(&self, actor: &Actor, wish: &Wish) -> Result<(), IssueError> {
        let policy = self.0.policy.policy().await.map_err(IssueError::Policy)?;
        let now = self.0.clock.wall();
        policy.judge(actor, &wish.owner, wish.scope, wish.expires_at, now).map_err(IssueError::Refused)
    }

    async fn make(&self, wish: &Wish, id: TokenId) -> Result<IssuedToken, IssueError> {
        let secret = TokenSecret::generate().map_err(IssueError::Random)?;
        let hash = self.hash(id, secret.clone()).await?.with_precheck(&id, &secret);
        let record = wish.record(id, hash, self.0.clock.wall());
        let summary = TokenSummary::from(&record);
        self.0.registry.insert(record).await.map_err(IssueError::of_insert)?;
        // Somebody may have asked for this id before it was there.
        self.distrust(&id);
        Ok(IssuedToken { plaintext: PlaintextToken::assemble(&self.0.prefix, id, secret), summary })
    }

    async fn hash(&self, id: TokenId, secret: TokenSecret) -> Result<SecretHash, IssueError> {
        let hasher = Arc::clone(&self.0.hasher);
        let limits = &self.0.limits;
        let hash = move |scratch: &mut Scratch| hasher.hash(&secret, scratch);
        if self.0.hasher.cost() == HashCost::Inline {
            return hash(&mut Scratch::new()).map_err(IssueError::Hash);
        }
        let key = JobKey { gate: self.1, id };
        let hashed = self.0.crew.run(key, limits, hash).map_err(|_busy| IssueError::Busy)?;
        match select(hashed, self.0.clock.sleep(limits.wait)).await {
            Either::Left((Ok(hashed), _)) => hashed.map_err(IssueError::Hash),
            Either::Left((Err(_), _)) => Err(IssueError::Hash(HashError::Failed("the hasher panicked".into()))),
            Either::Right(_) => Err(IssueError::Busy),
        }
    }

    /// Records what became of a wish: once, whatever it was.
    async fn conclude(
        &self,
        actor: &Actor,
        wish: &Wish,
        answer: Result<IssuedToken, IssueError>,
    ) -> Result<IssuedToken, IssueError> {
        let reason = answer.as_ref().err().map(IssueError::reason);
        let id = answer.as_ref().ok().map(|issued| issued.summary.id);
        let recorded = self.record(Action::Issue, reason, wish.subject(id), &wish.creator);
        let issued = answer?;
        if recorded {
            return Ok(issued);
        }
        // Its text is never shown, so a revocation that fails leaves a token nobody has.
        let _revoked = self.revoke_visible(actor, &issued.summary.id).await;
        Err(IssueError::Audit)
    }

    async fn find_visible(&self, actor: &Actor, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let found = self.0.registry.find(id).await?;
        Ok(found.filter(|record| may_see(actor, record)))
    }

    async fn revoke_visible(&self, actor: &Actor, id: &TokenId) -> Result<TokenRecord, RevokeError> {
        for _ in 0..TRIES {
            let found = self.find_visible(actor, id).await.map_err(RevokeError::Store)?;
            match self.revoke_found(found.ok_or(RevokeError::NotFound)?).await {
                Err(RevokeError::Conflict) => {}
                answer => return answer,
            }
        }
        Err(RevokeError::Conflict)
    }

    async fn revoke_found(&self, found: TokenRecord) -> Result<TokenRecord, RevokeError> {
        let id = found.id();
        let revoked = if found.state() == TokenState::Revoked {
            Ok(found)
        } else {
            self.0.registry.update(&id, found.revision(), Change::Revoke { at: self.0.clock.wall() }).await
        };
        match (revoked, &self.0.gate) {
            (Ok(revoked), Some(gate)) => {
                gate.learn(revoked.clone());
                Ok(revoked)
            }
            (Ok(revoked), None) => Ok(revoked),
            (Err(error), _) => {
                // It has changed elsewhere, or may have: a store can fail after it has written.
                self.distrust(&id);
                Err(RevokeError::of_update(error))
            }
        }
    }

    fn distrust(&self, id: &TokenId) {
        if let Some(gate) = &self.0.gate {
            gate.distrust(id);
        }
    }

    /// Records an act; `false` where that failed and is required.
    fn record(&self, action: Action, reason: Option<Reason>, subject: Subject<'_>, actor: &CreatedBy) -> bool {
        let outcome = match reason {
            None => Outcome::Allowed,
            Some(Reason::Unavailable(_)) => Outcome::Unavailable,
            Some(_) => Outcome::Refused,
        };
        let at = self.0.clock.wall();
        let event = || AuditEvent {
            at,
            repeated: None,
            action,
            outcome,
            reason,
            subject,
            access: None,
            request: None,
            actor: Some(Cow::Borrowed(actor)),
            edit: None,
        };
        self.0.recorder.record(outcome, event) || self.0.on_audit_failure == OnAuditFailure::Continue
    }
}

/// What an actor may not see looks absent.
fn may_see(actor: &Actor, record: &TokenRecord) -> bool {
    actor.permissions().on_behalf() || actor.is(record.owner())
}

fn subject_of(record: &TokenRecord) -> Subject<'_> {
    Subject::Handled {
        id: Some(record.id()),
        owner: Some(Cow::Borrowed(record.owner())),
        label: Some(Cow::Borrowed(record.label())),
        scope: Some(record.scope()),
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer").field("prefix", &self.0.prefix).finish_non_exhaustive()
    }
}
