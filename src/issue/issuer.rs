//! The desk itself: what it is made of, and issuing.

use std::fmt;
use std::sync::Arc;

use async_lock::MutexGuard;

use super::act::{Act, Telling, Told};
use super::bounded::{Bounded, PATIENCE, within};
use super::builder::TokenIssuerBuilder;
use super::error::{IssueError, ManageError};
use super::new_token::{Ensured, IssuedToken, NewToken, TokenSummary};
use super::policy::{IssuePolicy, Objection, ensure};
use super::provider::{ErasedPolicy, PolicyProvider};
use super::turns::Turns;
use super::wish::Wish;
use crate::actor::Actor;
use crate::audit::{Action, OnAuditFailure, Recorder};
use crate::authenticator::Authenticator;
use crate::clock::Clock;
use crate::config::VerifyLimits;
use crate::decision::{GateId, IssueRefusal, StoreError};
use crate::hash::SecretHasher;
use crate::id::{OwnerId, TokenId};
use crate::store::{ErasedRegistry, TokenFilter, TokenRegistry, can_work};
use crate::token::{PlaintextToken, Prefix, TokenRecord};
use crate::verify::Crew;

/// How often an id is drawn again.
const TRIES: usize = 4;

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
    turns: Arc<Turns>,
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
        let registry = Arc::new(Bounded::new(Arc::clone(&parts.registry), &parts.clock));
        let policy = Arc::new(Bounded::new(Arc::clone(&parts.policy), &parts.clock));
        Self { desk: Arc::new(DeskParts { registry, policy, ..parts }), queue, turns: Arc::default() }
    }

    /// The policy as it is now, to show it to people. It is no secret to the desk who asks: the application decides.
    ///
    /// # Errors
    /// [`StoreError`] when the provider cannot tell it.
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        self.desk.policy.policy().await
    }

    /// Issues a token. Its text is in the answer and nowhere else.
    ///
    /// Whether the owner is barred is not asked: the registry tells it of tokens, not of owners. Such a token works when
    /// the bar is lifted.
    ///
    /// # Errors
    /// [`IssueError`]. Mostly nothing was stored. Three times a token may have been, and nobody has its text:
    /// * [`Audit`](IssueError::Audit): under [`OnAuditFailure::Refuse`] its event could not be recorded, and it was
    ///   revoked again.
    /// * [`Refused`](IssueError::Refused) for [too many tokens](IssueRefusal::TooManyTokens): another process issued at
    ///   the same time, and it was revoked again.
    /// * [`Store`](IssueError::Store): the store took it and failed all the same. Nobody has revoked it.
    ///
    /// A revocation of this kind is an event of its own, by `system:withdrawn`; where it fails, too, the token stays one
    /// that nobody has.
    ///
    /// # Cancellation
    /// Dropped after the store took the token, the token exists and nobody has its text: revoke it, or let it be. The
    /// event says `abandoned`.
    pub async fn issue(&self, actor: &Actor, new: NewToken) -> Result<IssuedToken, IssueError> {
        let mut act = Act::begin(&self.desk, Action::Issue, actor, new.subject());
        let answer = self.make_anew(&mut act, actor, new).await;
        self.conclude(act, answer, Withdrawal::Revoke).await
    }

    /// Issues a token once: the first call makes it, every other finds it, also from other processes at the same
    /// time. For the first token of a deployment. Finding is looking: it leaves no event.
    ///
    /// Which token it is follows from its owner and label alone. One that is there is the answer whatever its state,
    /// and whatever the policy says today: a deployment that has its token starts. It is never made again, unless its record was [pruned](Self::prune): then nobody
    /// knows that there was one, and it is made anew under the same id.
    ///
    /// # Errors
    /// As for [`issue`](Self::issue), but what would be revoked again is [paused](Self::pause): the next call finds it,
    /// as it does one that was stored without an answer. Nobody has its text: [rotate](Self::rotate) it, and
    /// [resume](Self::resume) it.
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
        self.conclude(act, answer, Withdrawal::Pause).await.map(Ensured::Created)
    }

    async fn make_anew(&self, act: &mut Act<'_>, actor: &Actor, new: NewToken) -> Result<IssuedToken, IssueError> {
        let wish = Wish::new(actor, new, self.desk.clock.wall())?;
        let _turn = self.admit(actor, &wish).await?;
        for _ in 0..TRIES {
            let id = TokenId::generate().map_err(IssueError::Random)?;
            match self.make(act, actor, &wish, id, Withdrawal::Revoke).await {
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
        let _turn = self.admit(actor, &wish).await?;
        match self.make(act, actor, &wish, id, Withdrawal::Pause).await {
            Err(IssueError::IdTaken) => {}
            answer => return answer.map(Ensured::Created),
        }
        // Somebody else has made it meanwhile.
        let found = self.find_visible(actor, &id).await.map_err(IssueError::Store)?;
        found.map(|found| Ensured::Exists((&found).into())).ok_or(IssueError::IdTaken)
    }

    /// Whether a wish may be granted, before anything is hashed for it; the turn is to be held until it is.
    async fn admit(&self, actor: &Actor, wish: &Wish) -> Result<Option<MutexGuard<'_, ()>>, Objection> {
        let policy = self.judge(actor, wish).await?;
        if policy.live_token_limit().is_none() {
            return Ok(None);
        }
        let turn = within(&*self.desk.clock, PATIENCE, self.turns.of(&wish.owner)).await.map_err(Objection::Store)?;
        // Waiting may have taken a while.
        let policy = self.judge(actor, wish).await?;
        self.judge_room(&policy, &wish.owner, 1).await?;
        Ok(turn)
    }

    /// What today's policy says of a wish, but for the number of tokens.
    async fn judge(&self, actor: &Actor, wish: &Wish) -> Result<IssuePolicy, Objection> {
        let policy = self.policy().await.map_err(Objection::Policy)?;
        policy.judge(actor, &wish.proposal(actor, self.desk.clock.wall()))?;
        Ok(policy)
    }

    /// Whether an owner may have `more` live tokens than there are.
    pub(super) async fn judge_room(&self, policy: &IssuePolicy, owner: &OwnerId, more: usize) -> Result<(), Objection> {
        let Some(max) = policy.live_token_limit() else {
            return Ok(());
        };
        let refused = IssueRefusal::TooManyTokens { max };
        let room = max.checked_sub(more).ok_or(refused)?;
        Ok(ensure(!self.has_more_than(room, owner).await.map_err(Objection::Store)?, refused)?)
    }

    /// Whether an owner has more live tokens than so many: those beyond are not counted.
    async fn has_more_than(&self, room: usize, owner: &OwnerId) -> Result<bool, StoreError> {
        let now = self.desk.clock.wall();
        let filter = TokenFilter::all().owner(owner.clone()).live_at(now).page_size(1000);
        let counts = |record: &&TokenRecord| record.owner() == owner && can_work(record, now);
        let (mut live, mut cursor) = (0, None);
        loop {
            let page = self.desk.registry.list(&filter, cursor.as_ref()).await?;
            live += page.records.iter().filter(counts).count();
            match page.next {
                Some(next) if live <= room => cursor = Some(next),
                _ => return Ok(live > room),
            }
        }
    }

    async fn make(
        &self,
        act: &mut Act<'_>,
        actor: &Actor,
        wish: &Wish,
        id: TokenId,
        withdrawal: Withdrawal,
    ) -> Result<IssuedToken, IssueError> {
        let (secret, hash) = self.draw(id).await?;
        // Hashing may have taken a while.
        let policy = self.judge(actor, wish).await?;
        let record = wish.record(id, hash, self.desk.clock.wall());
        let summary = TokenSummary::from(&record);
        act.about(&record);
        self.keep(record).await?;
        // Another process may have counted as this one did, before either token was there. Whoever counts later counts
        // both, so there is never one too many that works.
        if let Err(crowded) = self.judge_room(&policy, &wish.owner, 0).await {
            self.withdraw(&id, withdrawal).await;
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
    async fn conclude(
        &self,
        act: Act<'_>,
        answer: Result<IssuedToken, IssueError>,
        withdrawal: Withdrawal,
    ) -> Result<IssuedToken, IssueError> {
        let id = answer.as_ref().ok().map(|issued| issued.summary.id);
        let concluded = act.end(answer);
        if let (Err(_), Some(id)) = (&concluded, id) {
            self.withdraw(&id, withdrawal).await;
        }
        concluded
    }

    /// Stops a token whose text nobody will see, in an act of its own: where that fails, it stays a token nobody has.
    async fn withdraw(&self, id: &TokenId, withdrawal: Withdrawal) {
        let system = Actor::system("withdrawn");
        let _withdrawn: Result<_, ManageError> = match withdrawal {
            Withdrawal::Revoke => self.revoke(&system, id).await,
            Withdrawal::Pause => self.pause(&system, id).await,
        };
    }
}

/// How a token is stopped that was stored in vain.
#[derive(Debug, Clone, Copy)]
enum Withdrawal {
    Revoke,
    /// An ensured token is never made again: revoked, it would be lost to its deployment for good.
    Pause,
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer").field("prefix", &self.desk.prefix).finish_non_exhaustive()
    }
}
