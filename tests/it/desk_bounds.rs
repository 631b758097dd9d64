//! Nobody holds the desk up, and nobody gets by it what today's policy does not allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink};
use tower_token_auth::{
    Actor, Change, Clock, Cursor, InsertError, IssueError, IssuePolicy, IssueRefusal, Label, LastUsed, ManageError,
    MemoryStore, NewToken, OwnerId, Permissions, PolicyProvider, Reason, Revision, Scope, SecretHash, SharedPolicy,
    StoreError, TokenFilter, TokenId, TokenIssuer, TokenPage, TokenRecord, TokenRegistry, TokenState, TokenStore,
    UnavailableCause, UpdateError, policy_fn,
};

use crate::desk_life::system;

const PATIENCE: Duration = Duration::from_secs(20);
const INSTANT: Duration = Duration::from_millis(1);
const PRUNING: Duration = Duration::from_secs(600);

/// A store that stops answering when told, for one owner's listings or for everything; counts what it has listed.
#[derive(Clone, Default)]
struct Slow {
    store: MemoryStore,
    hangs: Arc<AtomicBool>,
    hangs_for_alice: Arc<AtomicBool>,
    pages: Arc<AtomicUsize>,
    listed: Arc<AtomicUsize>,
}

impl Slow {
    async fn wait(&self) {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl TokenStore for Slow {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.wait().await;
        self.store.find(id).await
    }
}

impl TokenRegistry for Slow {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        self.wait().await;
        self.store.insert(record).await
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        self.wait().await;
        self.store.update(id, expected, change).await
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        self.wait().await;
        let alices = filter.owner.as_ref().is_some_and(|owner| owner.as_str() == "alice");
        if alices && self.hangs_for_alice.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let page = self.store.list(filter, cursor).await?;
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.listed.fetch_add(page.records.len(), Ordering::SeqCst);
        Ok(page)
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        self.store.touch(uses).await
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.wait().await;
        self.store.bar_owner(owner).await
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.wait().await;
        self.store.lift_owner(owner).await
    }

    async fn prune(&self, time: tower_token_auth::Timestamp) -> Result<u64, StoreError> {
        self.wait().await;
        self.store.prune(time).await
    }
}

/// A desk without a gate.
struct World {
    store: Slow,
    clock: ManualClock,
    sink: RecordingSink,
    desk: TokenIssuer,
}

impl World {
    fn new(policy: impl PolicyProvider + 'static) -> Self {
        let (store, clock, sink) = (Slow::default(), ManualClock::default(), RecordingSink::new());
        let desk = TokenIssuer::builder(store.clone(), policy)
            .hasher(CheapHasher::new().inline())
            .clock(clock.clone())
            .audit(sink.clone())
            .build()
            .unwrap();
        Self { store, clock, sink, desk }
    }

    async fn token(&self, owner: &str) -> TokenId {
        self.desk.issue(&system(), wish(owner)).await.unwrap().summary().id
    }

    #[track_caller]
    fn last(&self) -> (String, Option<Reason>) {
        let events = self.sink.take();
        let last = events.last().expect("an act leaves an event");
        (format!("{} {}", last.action.as_str(), last.outcome), last.reason)
    }
}

fn wish(owner: &str) -> NewToken {
    NewToken::new(owner, "laptop", Scope::ReadWrite)
}

fn creator() -> Actor {
    Actor::user("alice", Permissions::none().and_create())
}

fn limited(max: usize) -> IssuePolicy {
    IssuePolicy::default().max_live_tokens(Some(max))
}

/// Gives an act up just before its bound, or just after.
macro_rules! assert_ends_after {
    ($world:expr, $bound:expr, $act:expr) => {{
        let mut act = Box::pin($act);
        assert!((&mut act).now_or_never().is_none(), "nobody answers");
        $world.clock.advance($bound - INSTANT);
        assert!((&mut act).now_or_never().is_none(), "it waits");
        $world.clock.advance(INSTANT);
        let answer = act.now_or_never().expect("it waits no longer");
        assert_eq!($world.last().1, Some(Reason::Unavailable(UnavailableCause::StoreTimedOut)));
        answer
    }};
}

#[tokio::test]
async fn no_act_waits_for_a_store_that_never_answers() {
    let world = World::new(SharedPolicy::default());
    let (id, owner) = (world.token("alice").await, OwnerId::new("alice").unwrap());
    world.store.hangs.store(true, Ordering::SeqCst);
    let (desk, actor) = (&world.desk, system());
    assert!(matches!(
        assert_ends_after!(world, PATIENCE, desk.issue(&actor, wish("alice"))),
        Err(IssueError::Store(_))
    ));
    assert!(matches!(
        assert_ends_after!(world, PATIENCE, desk.ensure(&actor, wish("alice"))),
        Err(IssueError::Store(_))
    ));
    assert!(matches!(assert_ends_after!(world, PATIENCE, desk.revoke(&actor, &id)), Err(ManageError::Store(_))));
    assert!(matches!(assert_ends_after!(world, PATIENCE, desk.bar_owner(&actor, &owner)), Err(ManageError::Store(_))));
    assert!(matches!(assert_ends_after!(world, PATIENCE, desk.lift_owner(&actor, &owner)), Err(ManageError::Store(_))));
    assert!(matches!(
        assert_ends_after!(world, PRUNING, desk.prune(&actor, Duration::ZERO)),
        Err(ManageError::Store(_))
    ));
    let report = assert_ends_after!(world, PATIENCE, desk.revoke_matching(&actor, TokenFilter::all())).unwrap();
    assert!(matches!(report.interrupted, Some(ManageError::Store(_))));
    world.store.hangs.store(false, Ordering::SeqCst);
    desk.revoke(&actor, &id).await.unwrap();
    assert_eq!(world.last(), ("revoke allowed".to_owned(), None));
}

struct Silent;

impl PolicyProvider for Silent {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        std::future::pending().await
    }

    async fn replace(&self, _: IssuePolicy) -> Result<IssuePolicy, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn no_act_waits_for_a_policy_that_is_never_told() {
    let world = World::new(Silent);
    let (desk, actor) = (&world.desk, system());
    let answer = assert_ends_after!(world, PATIENCE, desk.issue(&actor, wish("alice")));
    assert!(matches!(answer, Err(IssueError::Policy(_))));
    let answer = assert_ends_after!(world, PATIENCE, desk.change_policy(&actor, IssuePolicy::default()));
    assert!(matches!(answer, Err(ManageError::Policy(_))));
}

#[tokio::test]
async fn an_owner_whose_tokens_cannot_be_counted_holds_up_only_themselves_and_not_for_ever() {
    let world = World::new(limited(5));
    world.store.hangs_for_alice.store(true, Ordering::SeqCst);
    let actor = system();
    let mut first = Box::pin(world.desk.issue(&actor, wish("alice")));
    assert!((&mut first).now_or_never().is_none());
    // One or the other may have to take turns with alice.
    let others = ["bob", "carol", "dora", "erin", "frank", "grace"];
    let issued = others.map(|owner| world.desk.issue(&actor, wish(owner)).now_or_never().is_some());
    assert!(issued.into_iter().filter(|issued| *issued).count() > others.len() / 2, "{issued:?}");
    let mut second = Box::pin(world.desk.issue(&actor, wish("alice")));
    assert!((&mut second).now_or_never().is_none(), "it waits for its turn");
    world.clock.advance(PATIENCE);
    assert!(matches!(first.now_or_never(), Some(Err(IssueError::Store(_)))));
    world.store.hangs_for_alice.store(false, Ordering::SeqCst);
    drop(second);
    assert!(world.desk.issue(&actor, wish("alice")).now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn the_dead_are_not_listed_when_the_living_are_counted() {
    let world = World::new(limited(2));
    for _ in 0..5 {
        let id = world.token("alice").await;
        world.desk.revoke(&system(), &id).await.unwrap();
    }
    world.token("alice").await;
    let before = world.store.listed.load(Ordering::SeqCst);
    world.token("alice").await;
    assert_eq!(world.store.listed.load(Ordering::SeqCst) - before, 1 + 2, "before it was there, and after");
}

#[tokio::test]
async fn nobody_is_counted_beyond_the_limit() {
    for (max, pages) in [(2, 1), (1500, 2), (9000, 3)] {
        let world = World::new(limited(max));
        for _ in 0..2500 {
            let (id, hash) = (TokenId::generate().unwrap(), SecretHash::parse("$none$").unwrap());
            let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("laptop").unwrap());
            let record = TokenRecord::new(id, owner, label, Scope::ReadOnly, hash, world.clock.wall());
            world.store.insert(record).await.unwrap();
        }
        let refused = world.desk.issue(&system(), wish("alice")).await.is_err();
        assert_eq!(refused, max < 2500);
        let counts = if refused { 1 } else { 2 };
        assert_eq!(world.store.pages.load(Ordering::SeqCst), pages * counts, "{max}");
    }
}

/// Forces read-only from its second answer on, where it turns strict at all.
fn turning(strict: bool) -> (impl PolicyProvider + 'static, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let policy = move || {
        let before = counted.fetch_add(1, Ordering::SeqCst);
        IssuePolicy::default().force_read_only(strict && before != 0)
    };
    (policy_fn(policy), asked)
}

#[tokio::test]
async fn a_policy_that_changes_while_a_secret_is_hashed_holds() {
    for strict in [true, false] {
        let (policy, _) = turning(strict);
        let world = World::new(policy);
        let answer = world.desk.issue(&creator(), wish("alice")).await;
        let refused = matches!(answer, Err(IssueError::Refused(IssueRefusal::ReadOnlyEnforced)));
        assert_eq!((refused, answer.is_ok()), (strict, !strict));
        let stored = world.store.store.list(&TokenFilter::all(), None).await.unwrap().records.len();
        assert_eq!(stored, usize::from(!strict));
    }
}

#[tokio::test]
async fn a_policy_that_changes_during_an_act_on_a_token_holds() {
    for strict in [true, false] {
        let (policy, asked) = turning(strict);
        let world = World::new(policy);
        let id = world.token("alice").await;
        asked.store(0, Ordering::SeqCst);
        let rotated = world.desk.rotate(&creator(), &id, Duration::ZERO).await;
        let refused = matches!(rotated, Err(ManageError::Refused(IssueRefusal::ReadOnlyEnforced)));
        assert_eq!((refused, rotated.is_ok()), (strict, !strict));
        world.desk.pause(&system(), &id).await.unwrap();
        asked.store(0, Ordering::SeqCst);
        let resumed = world.desk.resume(&creator(), &id).await;
        let refused = matches!(resumed, Err(ManageError::Refused(IssueRefusal::ReadOnlyEnforced)));
        assert_eq!((refused, resumed.is_ok()), (strict, !strict));
        let state = if strict { TokenState::Paused } else { TokenState::Active };
        assert_eq!(world.desk.find(&system(), &id).await.unwrap().unwrap().state, state);
    }
}

#[tokio::test]
async fn a_page_of_none_is_a_page_of_one() {
    let world = World::new(IssuePolicy::default());
    for _ in 0..3 {
        world.token("alice").await;
    }
    let mut filter = TokenFilter::all();
    filter.page_size = 0;
    let page = world.store.store.list(&filter, None).await.unwrap();
    assert_eq!((page.records.len(), page.next.is_some()), (1, true));
    let page = world.desk.list(&system(), filter.clone(), None).await.unwrap();
    assert_eq!((page.tokens.len(), page.next.is_some()), (1, true));
    let report = world.desk.revoke_matching(&system(), filter).await.unwrap();
    assert_eq!((report.revoked.len(), report.is_complete()), (3, true));
}

#[tokio::test]
async fn a_provider_can_be_shared_in_an_arc() {
    let policy = Arc::new(SharedPolicy::default());
    let world = World::new(Arc::clone(&policy));
    let strict = IssuePolicy::default().force_read_only(true);
    assert_eq!(world.desk.policy().await.unwrap(), IssuePolicy::default());
    world.desk.change_policy(&system(), strict.clone()).await.unwrap();
    assert_eq!((world.desk.policy().await.unwrap(), policy.current()), (strict.clone(), strict));
}
