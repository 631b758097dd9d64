//! The desk itself.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{Either, select};
use sha2::{Digest, Sha256};

use super::builder::TokenIssuerBuilder;
use super::error::{IssueError, ListError, RevokeError};
use super::new_token::{Ensured, IssuedToken, NewToken, SummaryPage, TokenSummary};
use super::policy::{ErasedPolicy, PolicyProvider};
use crate::actor::Actor;
use crate::audit::{Action, AuditEvent, OnAuditFailure, Outcome, Recorder, Subject};
use crate::authenticator::Authenticator;
use crate::clock::{Clock, Timestamp};
use crate::config::VerifyLimits;
use crate::decision::{GateId, IssueRefusal, Reason, StoreError, UnavailableCause};
use crate::hash::{HashCost, HashError, Scratch, SecretHasher};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::{SecretHash, TokenSecret};
use crate::store::{Change, ChangeError, Cursor, ErasedRegistry, InsertError, TokenFilter, TokenRegistry, UpdateError};
use crate::token::{Attributes, CreatedBy, PlaintextToken, Prefix, TokenRecord, TokenState};
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

/// A wish whose texts are in order.
struct Wish {
    owner: OwnerId,
    label: Label,
    scope: Scope,
    expires_at: Option<Timestamp>,
    attributes: Attributes,
    creator: CreatedBy,
    on_behalf_right: bool,
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
    /// [`IssueError`]; nothing was issued, or under [`OnAuditFailure::Refuse`] it was revoked again at once.
    ///
    /// # Cancellation
    /// Dropped after the store took the token, the token exists and nobody has its text: revoke it, or let it be.
    pub async fn issue(&self, actor: &Actor, new: NewToken) -> Result<IssuedToken, IssueError> {
        let wish = self.admit(actor, new).await?;
        for _ in 0..TRIES {
            let id = TokenId::generate().map_err(IssueError::Random)?;
            match self.make(&wish, id).await {
                Err(IssueError::IdTaken) => {}
                answer => return self.record_issue(&wish, answer).await,
            }
        }
        self.record_issue(&wish, Err(IssueError::IdTaken)).await
    }

    /// Issues a token once: the first call makes it, every other finds it, also from other processes at the same
    /// time. For the first token of a deployment.
    ///
    /// Which token it is follows from its owner and label. One that was revoked stays so; it is never made again.
    ///
    /// # Errors
    /// As for [`issue`](Self::issue).
    ///
    /// # Cancellation
    /// As for [`issue`](Self::issue).
    pub async fn ensure(&self, actor: &Actor, new: NewToken) -> Result<Ensured, IssueError> {
        let wish = self.admit(actor, new).await?;
        let id = wish.ensured_id();
        if let Some(record) = self.0.registry.find(&id).await.map_err(IssueError::Store)? {
            return Ok(Ensured::Exists((&record).into()));
        }
        match self.make(&wish, id).await {
            Err(IssueError::IdTaken) => match self.0.registry.find(&id).await.map_err(IssueError::Store)? {
                Some(record) => Ok(Ensured::Exists((&record).into())),
                None => Err(IssueError::IdTaken),
            },
            answer => self.record_issue(&wish, answer).await.map(Ensured::Created),
        }
    }

    /// Revokes a token, for good. When it returns, the desk's own gate refuses the token.
    ///
    /// Revoking a revoked token changes nothing and succeeds. What the actor may not see is not found.
    ///
    /// # Errors
    /// [`RevokeError`].
    ///
    /// # Cancellation
    /// Dropped before its end, the token may be revoked, and the gate may not know yet: it does by its TTL.
    pub async fn revoke(&self, actor: &Actor, id: &TokenId) -> Result<TokenSummary, RevokeError> {
        let creator = actor.name().map_err(RevokeError::Actor)?;
        let revoked = self.revoke_visible(actor, id).await;
        let reason = match &revoked {
            Ok(_) => None,
            Err(RevokeError::NotFound) => Some(Reason::Unknown),
            Err(_) => Some(Reason::Unavailable(UnavailableCause::StoreFailed)),
        };
        let subject = match &revoked {
            Ok(record) => subject_of(record),
            Err(_) => Subject::Handled { id: Some(*id), owner: None, label: None, scope: None },
        };
        let recorded = self.record(Action::Revoke, reason, subject, &creator);
        let record = revoked?;
        if recorded { Ok((&record).into()) } else { Err(RevokeError::Audit) }
    }

    /// The tokens that the actor may see and the filter lets through, a page at a time.
    ///
    /// # Errors
    /// [`ListError`].
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
        Ok(SummaryPage { tokens: page.records.iter().map(TokenSummary::from).collect(), next: page.next })
    }

    /// Judges a wish by the policy as it is now; a refusal is recorded.
    async fn admit(&self, actor: &Actor, new: NewToken) -> Result<Wish, IssueError> {
        let now = self.0.clock.wall();
        let wish = Wish {
            owner: new.owner.map_err(IssueError::Owner)?,
            label: new.label.map_err(IssueError::Label)?,
            scope: new.scope,
            expires_at: new.expiry.at(now),
            attributes: new.attributes,
            creator: actor.name().map_err(IssueError::Actor)?,
            on_behalf_right: actor.permissions().on_behalf(),
        };
        let policy = self.0.policy.policy().await.map_err(IssueError::Policy)?;
        match policy.judge(actor, &wish.owner, wish.scope, wish.expires_at, now) {
            Ok(()) => Ok(wish),
            Err(refusal) => Err(self.refuse(&wish, refusal)),
        }
    }

    fn refuse(&self, wish: &Wish, refusal: IssueRefusal) -> IssueError {
        // Refused either way: a loss is logged by the recorder and changes nothing here.
        let _recorded = self.record(Action::Issue, Some(Reason::NotIssued(refusal)), wish.subject(None), &wish.creator);
        IssueError::Refused(refusal)
    }

    async fn make(&self, wish: &Wish, id: TokenId) -> Result<IssuedToken, IssueError> {
        let secret = TokenSecret::generate().map_err(IssueError::Random)?;
        let hash = self.hash(id, secret.clone()).await?.with_precheck(&id, &secret);
        let record = wish.record(id, hash, self.0.clock.wall());
        let summary = TokenSummary::from(&record);
        match self.0.registry.insert(record).await {
            Ok(()) => {}
            Err(InsertError::Taken) => return Err(IssueError::IdTaken),
            Err(InsertError::Store(error)) => return Err(IssueError::Store(error)),
        }
        if let Some(gate) = &self.0.gate {
            // Somebody may have asked for this id before it was there.
            gate.distrust(&id);
        }
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

    async fn record_issue(
        &self,
        wish: &Wish,
        answer: Result<IssuedToken, IssueError>,
    ) -> Result<IssuedToken, IssueError> {
        let cause = match &answer {
            Ok(_) => None,
            Err(IssueError::Hash(_)) => Some(UnavailableCause::HashingFailed),
            Err(IssueError::Busy) => Some(UnavailableCause::HashingBusy),
            Err(_) => Some(UnavailableCause::StoreFailed),
        };
        let id = answer.as_ref().ok().map(|issued| issued.summary.id);
        let recorded = self.record(Action::Issue, cause.map(Reason::Unavailable), wish.subject(id), &wish.creator);
        let issued = answer?;
        if recorded {
            return Ok(issued);
        }
        // Its text is never shown, so a revocation that fails leaves a token nobody has.
        let _revoked = self.revoke_now(&issued.summary.id).await;
        Err(IssueError::Audit)
    }

    async fn revoke_visible(&self, actor: &Actor, id: &TokenId) -> Result<TokenRecord, RevokeError> {
        let found = self.0.registry.find(id).await.map_err(RevokeError::Store)?;
        let visible = |record: &TokenRecord| actor.permissions().on_behalf() || actor.is(record.owner());
        if !found.as_ref().is_some_and(visible) {
            return Err(RevokeError::NotFound);
        }
        self.revoke_now(id).await
    }

    async fn revoke_now(&self, id: &TokenId) -> Result<TokenRecord, RevokeError> {
        for _ in 0..TRIES {
            let found = self.0.registry.find(id).await.map_err(RevokeError::Store)?.ok_or(RevokeError::NotFound)?;
            let revoke = Change::State(TokenState::Revoked);
            let revoked = match self.0.registry.update(id, found.revision(), revoke).await {
                Ok(revoked) => revoked,
                Err(UpdateError::Rejected(ChangeError::Revoked)) => found,
                Err(UpdateError::Conflict) => continue,
                Err(UpdateError::Missing) => return Err(RevokeError::NotFound),
                Err(UpdateError::Rejected(error)) => return Err(RevokeError::Store(StoreError::new(error))),
                Err(UpdateError::Store(error)) => return Err(RevokeError::Store(error)),
            };
            if let Some(gate) = &self.0.gate {
                gate.learn(revoked.clone());
            }
            return Ok(revoked);
        }
        Err(RevokeError::Conflict)
    }

    /// Records an act; `false` where that failed and is required.
    fn record(&self, action: Action, reason: Option<Reason>, subject: Subject<'_>, actor: &CreatedBy) -> bool {
        let outcome = match reason {
            None => Outcome::Allowed,
            Some(Reason::Unavailable(_)) => Outcome::Unavailable,
            Some(_) => Outcome::Refused,
        };
        let at = self.0.clock.wall();
        let event =
            || AuditEvent { at, action, outcome, reason, subject, access: None, request: None, actor: Some(actor) };
        self.0.recorder.record(outcome, event) || self.0.on_audit_failure == OnAuditFailure::Continue
    }
}

impl Wish {
    fn subject(&self, id: Option<TokenId>) -> Subject<'_> {
        Subject::Handled { id, owner: Some(&self.owner), label: Some(&self.label), scope: Some(self.scope) }
    }

    fn record(&self, id: TokenId, hash: SecretHash, now: Timestamp) -> TokenRecord {
        TokenRecord::new(id, self.owner.clone(), self.label.clone(), self.scope, hash, now)
            .with_created_by(self.creator.clone())
            .with_made_on_behalf_right(self.on_behalf_right)
            .with_expiry(self.expires_at)
            .with_attributes(self.attributes.clone())
    }

    /// The same for the same owner and label, in every process. An id is public, so it need not be random.
    fn ensured_id(&self) -> TokenId {
        let mut digest = Sha256::new().chain_update(b"tower-token-auth ensure v1\0");
        for text in [self.owner.as_str(), self.label.as_str()] {
            // With its length, so that no two pairs of texts read alike.
            digest = digest.chain_update((text.len() as u64).to_be_bytes()).chain_update(text);
        }
        TokenId::from_digest(&digest.finalize().into())
    }
}

fn subject_of(record: &TokenRecord) -> Subject<'_> {
    Subject::Handled {
        id: Some(record.id()),
        owner: Some(record.owner()),
        label: Some(record.label()),
        scope: Some(record.scope()),
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer").field("prefix", &self.0.prefix).finish_non_exhaustive()
    }
}
