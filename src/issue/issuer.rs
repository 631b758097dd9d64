//! The desk itself: what it is made of, and issuing.

use std::fmt;
use std::sync::Arc;

use async_lock::Mutex;

use super::act::{Act, Telling, Told};
use super::builder::TokenIssuerBuilder;
use super::error::{IssueError, ManageError};
use super::new_token::{Ensured, IssuedToken, NewToken, TokenSummary};
use super::policy::{IssuePolicy, Objection, ensure};
use super::provider::{ErasedPolicy, PolicyProvider};
use super::report::can_work;
use super::wish::Wish;
use crate::actor::Actor;
use crate::audit::{Action, OnAuditFailure, Recorder};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::config::VerifyLimits;
use crate::decision::{GateId, IssueRefusal, StoreError};
use crate::hash::SecretHasher;
use crate::id::{OwnerId, TokenId};
use crate::store::{Change, ErasedRegistry, TokenFilter, TokenRegistry};
use crate::token::{PlaintextToken, Prefix, TokenRecord, TokenState};
use crate::verify::Crew;

/// How often an id is drawn again, or a lost compare-and-set tried again.
pub(super) const TRIES: usize = 4;

/// Issues tokens under a policy, and looks after them for the rest of their lives. A clone is the same desk.
///
/// Made by [`TokenAuthLayer::issuer`](crate::TokenAuthLayer::issuer), whose gate obeys its changes at once, or by
/// [`builder`](Self::builder) where there is no gate.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{
///     Actor, IssuePolicy, MemoryStore, NewToken, Permissions, Scope, TokenFilter, TokenIssuer, TokenState,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let desk = TokenIssuer::builder(MemoryStore::new(), IssuePolicy::default()).build()?;
/// let alice = Actor::user("alice", Permissions::none().and_create());
/// let id = desk.issue(&alice, NewToken::new("alice", "importer", Scope::ReadWrite)).await?.summary().id;
///
/// desk.rename(&alice, &id, "nightly importer").await?;
/// desk.narrow(&alice, &id).await?;
/// let rotated = desk.rotate(&alice, &id, Duration::from_secs(24 * 3600)).await?;
/// assert_eq!((rotated.summary().id, rotated.summary().scope), (id, Scope::ReadOnly));
/// assert_eq!(desk.pause(&alice, &id).await?.state, TokenState::Paused);
///
/// // Leaving: everything alice has stops, whatever else happens.
/// let report = desk.revoke_matching(&Actor::system("leaver"), TokenFilter::all().owner("alice".try_into()?)).await?;
/// assert!(report.is_complete());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenIssuer {
    pub(super) desk: Arc<DeskParts>,
    /// Whose hashes these are in the crew's queue.
    pub(super) queue: GateId,
    /// Taken by whoever issues under a limit on their number: from counting to counting.
    turn: Arc<Mutex<()>>,
}

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
        let queue = parts.gate.as_ref().map_or_else(GateId::next, Authenticator::gate);
        Self { desk: Arc::new(parts), queue, turn: Arc::default() }
    }

    /// Issues a token. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`IssueError`]. Nothing was issued, with two exceptions: under [`OnAuditFailure::Refuse`] a token whose event
    /// could not be recorded was stored and revoked again ([`IssueError::Audit`]), and a store that fails may have
    /// stored the token all the same ([`IssueError::Store`]). Nobody has the text of either.
    ///
    /// # Cancellation
    /// Dropped after the store took the token, the token exists and nobody has its text: revoke it, or let it be. The
    /// event says `abandoned`.
    pub async fn issue(&self, actor: &Actor, new: NewToken) -> Result<IssuedToken, IssueError> {
        let mut act = Act::begin(&self.desk, Action::Issue, actor, new.subject());
        let answer = self.make_anew(&mut act, actor, new).await;
        self.conclude(act, answer).await
    }

    /// Issues a token once: the first call makes it, every other finds it, also from other processes at the same
    /// time. For the first token of a deployment.
    ///
    /// Which token it is follows from its owner and label alone. One that is there is the answer whatever its state,
    /// and whatever the policy says today: a deployment that has its token starts. It is never made again.
    ///
    /// # Errors
    /// As for [`issue`](Self::issue). A token that was stored without an answer is found by the next call, as one
    /// whose text nobody has: [rotate](Self::rotate) it.
    ///
    /// # Cancellation
    /// As for the errors: dropped after the store took the token, its text is lost.
    pub async fn ensure(&self, actor: &Actor, new: NewToken) -> Result<Ensured, IssueError> {
        let mut act = Act::begin(&self.desk, Action::Issue, actor, new.subject());
        let answer = match self.find_or_make(&mut act, actor, new).await {
            Ok(Ensured::Exists(summary)) => {
                act.forget();
                return Ok(Ensured::Exists(summary));
            }
            Ok(Ensured::Created(issued)) => Ok(issued),
            Err(error) => Err(error),
        };
        self.conclude(act, answer).await.map(Ensured::Created)
    }

    async fn make_anew(&self, act: &mut Act<'_>, actor: &Actor, new: NewToken) -> Result<IssuedToken, IssueError> {
        let wish = Wish::new(actor, new, self.desk.clock.wall())?;
        let policy = self.policy().await.map_err(IssueError::Policy)?;
        let _turn = self.turn(&policy).await;
        self.judge(&policy, actor, &wish).await?;
        for _ in 0..TRIES {
            let id = TokenId::generate().map_err(IssueError::Random)?;
            match self.make(act, &policy, &wish, id).await {
                Err(IssueError::IdTaken) => {}
                answer => return answer,
            }
        }
        Err(IssueError::IdTaken)
    }

    async fn find_or_make(&self, act: &mut Act<'_>, actor: &Actor, new: NewToken) -> Result<Ensured, IssueError> {
        let wish = Wish::new(actor, new, self.desk.clock.wall())?;
        let id = wish.ensured_id();
        if let Some(found) = self.find_visible(actor, &id).await.map_err(IssueError::Store)? {
            return Ok(Ensured::Exists((&found).into()));
        }
        let policy = self.policy().await.map_err(IssueError::Policy)?;
        let _turn = self.turn(&policy).await;
        self.judge(&policy, actor, &wish).await?;
        match self.make(act, &policy, &wish, id).await {
            Err(IssueError::IdTaken) => {}
            answer => return answer.map(Ensured::Created),
        }
        // Somebody else has made it meanwhile.
        let found = self.find_visible(actor, &id).await.map_err(IssueError::Store)?;
        found.map(|found| Ensured::Exists((&found).into())).ok_or(IssueError::IdTaken)
    }

    pub(super) async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        self.desk.policy.policy().await
    }

    /// Two who issue at once would count each other's token, and both be refused for it. (Across processes they can.)
    async fn turn(&self, policy: &IssuePolicy) -> Option<async_lock::MutexGuard<'_, ()>> {
        match policy.live_limit() {
            Some(_) => Some(self.turn.lock().await),
            None => None,
        }
    }

    async fn judge(&self, policy: &IssuePolicy, actor: &Actor, wish: &Wish) -> Result<(), Objection> {
        policy.judge(actor, &wish.proposal(actor, self.desk.clock.wall()))?;
        self.judge_room(policy, &wish.owner, 1).await
    }

    /// Whether an owner may have `more` live tokens than there are.
    pub(super) async fn judge_room(&self, policy: &IssuePolicy, owner: &OwnerId, more: usize) -> Result<(), Objection> {
        let Some(max) = policy.live_limit() else {
            return Ok(());
        };
        let live = self.live_tokens(owner).await.map_err(Objection::Store)?;
        Ok(ensure(live.saturating_add(more) <= max, IssueRefusal::TooManyTokens { max })?)
    }

    async fn live_tokens(&self, owner: &OwnerId) -> Result<usize, StoreError> {
        let (filter, now) = (TokenFilter::all().owner(owner.clone()).page_size(1000), self.desk.clock.wall());
        let counts = |record: &&TokenRecord| record.owner() == owner && can_work(record, now);
        let (mut live, mut cursor) = (0, None);
        loop {
            let page = self.desk.registry.list(&filter, cursor.as_ref()).await?;
            live += page.records.iter().filter(counts).count();
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(live),
            }
        }
    }

    async fn make(
        &self,
        act: &mut Act<'_>,
        policy: &IssuePolicy,
        wish: &Wish,
        id: TokenId,
    ) -> Result<IssuedToken, IssueError> {
        let (secret, hash) = self.draw(id).await?;
        let record = wish.record(id, hash, self.desk.clock.wall());
        let summary = TokenSummary::from(&record);
        act.about(&record);
        self.keep(record).await?;
        // Another process may have counted as this one did, before either token was there. Whoever counts later counts
        // both, so there is never one too many that works.
        if let Err(crowded) = self.judge_room(policy, &wish.owner, 0).await {
            self.withdraw(&id).await;
            return Err(crowded.into());
        }
        Ok(IssuedToken { plaintext: PlaintextToken::assemble(&self.desk.prefix, id, secret), summary })
    }

    async fn keep(&self, record: TokenRecord) -> Result<(), IssueError> {
        // Somebody may have asked for this id before it was there.
        let _told = Telling::new(&self.desk, Told::Token(record.id()));
        self.desk.registry.insert(record).await.map_err(IssueError::of_insert)
    }

    /// Records what became of a wish.
    async fn conclude(&self, act: Act<'_>, answer: Result<IssuedToken, IssueError>) -> Result<IssuedToken, IssueError> {
        let id = answer.as_ref().ok().map(|issued| issued.summary.id);
        let concluded = act.end(answer);
        if let (Err(_), Some(id)) = (&concluded, id) {
            self.withdraw(&id).await;
        }
        concluded
    }

    /// Revokes a token whose text nobody will see: where that fails, it stays a token nobody has.
    async fn withdraw(&self, id: &TokenId) {
        let revoke = |found: &TokenRecord, at| match found.state() {
            TokenState::Revoked => Ok(None),
            TokenState::Active | TokenState::Paused => Ok(Some(Change::Revoke { at })),
        };
        let _withdrawn: Result<_, ManageError> = self.change(&Actor::system("withdrawn"), id, revoke).await;
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer").field("prefix", &self.desk.prefix).finish_non_exhaustive()
    }
}
