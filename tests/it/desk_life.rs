//! The life of a token at the desk: who may change it, what is on record, and that its gate obeys at the next request.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::RecordingSink;
use tower_token_auth::{
    Actor, AuditError, AuditEvent, AuditSink, AuthenticatedToken, Clock, IssueError, IssuePolicy, IssueRefusal,
    LastUsed, ManageError, NewToken, OwnerId, Permissions, PlaintextToken, Reason, Revision, Scope, SharedPolicy,
    TokenFilter, TokenId, TokenIssuer, TokenRegistry, TokenState, TokenStore, TokenSummary,
};

use crate::cache_rules::bench::{Bench, bearer, status_of};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
const INSTANT: Duration = Duration::from_millis(1);

/// Remembers acts at the desk as `action outcome reason actor`, with ` before -> after` of a change.
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Vec<String>>>);

impl AuditSink for Trail {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let (action, outcome) = (event.action().as_str(), event.outcome());
        let reason = event.reason().map_or("-", Reason::as_str);
        let who = match (event.actor(), event.secret_slot()) {
            (Some(actor), _) => actor.to_string(),
            (None, slot) => slot.map_or("nobody", |slot| slot.as_str()).to_owned(),
        };
        let edit = event.before().zip(event.after()).map(|(before, after)| format!(" {before} -> {after}"));
        self.0.lock().unwrap().push(format!("{action} {outcome} {reason} {who}{}", edit.unwrap_or_default()));
        Ok(())
    }
}

impl Trail {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    #[track_caller]
    pub(crate) fn assert_told(&self, expected: &[&str]) {
        assert_eq!(self.take(), expected);
    }
}

/// A gate, its desk, a policy that both can be changed under, and what was on record.
pub(crate) struct World {
    pub(crate) bench: Bench,
    pub(crate) trail: Trail,
    pub(crate) policy: SharedPolicy,
    pub(crate) desk: TokenIssuer,
}

impl World {
    pub(crate) fn new() -> Self {
        let (trail, policy) = (Trail::default(), SharedPolicy::default());
        let bench = Bench::with(|builder| builder.audit(trail.clone()));
        let desk = bench.auth.issuer(bench.store.clone(), policy.clone());
        Self { bench, trail, policy, desk }
    }

    /// A token of alice's that the gate has proved.
    pub(crate) async fn token(&self, scope: Scope) -> PlaintextToken {
        self.issue(NewToken::new("alice", "laptop", scope)).await
    }

    pub(crate) async fn issue(&self, new: NewToken) -> PlaintextToken {
        let token = self.desk.issue(&system(), new).await.unwrap().into_plaintext();
        assert_eq!(self.bench.status(&token).await, 200);
        self.trail.take();
        token
    }

    pub(crate) async fn set_policy(&self, policy: IssuePolicy) {
        self.desk.change_policy(&system(), policy).await.unwrap();
        self.trail.take();
    }

    /// What handlers would be given.
    pub(crate) async fn admitted(&self, token: &PlaintextToken) -> AuthenticatedToken {
        let (sender, receiver) = std::sync::mpsc::channel();
        let inner = service_fn(move |request: Request<Body>| {
            sender.send(request.extensions().get::<AuthenticatedToken>().cloned()).unwrap();
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        self.bench.auth.layer(inner).oneshot(bearer(token)).await.unwrap();
        self.trail.take();
        receiver.recv().unwrap().unwrap()
    }
}

pub(crate) fn system() -> Actor {
    Actor::system("test")
}

/// Alice, who may do nothing but what anybody may with tokens of their own.
fn alice() -> Actor {
    Actor::user("alice", Permissions::none())
}

fn creator() -> Actor {
    Actor::user("alice", Permissions::none().and_create())
}

fn support() -> Actor {
    Actor::user("root", Permissions::none().and_on_behalf())
}

fn administrator() -> Actor {
    Actor::user("root", Permissions::none().and_administer())
}

fn owner() -> OwnerId {
    OwnerId::new("alice").unwrap()
}

/// Every act on one token.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Revoke,
    Pause,
    Resume,
    Expire,
    Narrow,
    Rename,
    Rotate,
}

impl Op {
    const ALL: [(Self, &str); 7] = [
        (Self::Revoke, "revoke"),
        (Self::Pause, "pause"),
        (Self::Resume, "resume"),
        (Self::Expire, "set_expiry"),
        (Self::Narrow, "narrow"),
        (Self::Rename, "rename"),
        (Self::Rotate, "rotate"),
    ];

    async fn ask(self, world: &World, actor: &Actor, id: &TokenId) -> Result<TokenSummary, ManageError> {
        let desk = &world.desk;
        match self {
            Self::Revoke => desk.revoke(actor, id).await,
            Self::Pause => desk.pause(actor, id).await,
            Self::Resume => desk.resume(actor, id).await,
            Self::Expire => desk.expire_at(actor, id, world.bench.clock.wall()).await,
            Self::Narrow => desk.narrow(actor, id).await,
            Self::Rename => desk.rename(actor, id, "desktop").await,
            Self::Rotate => desk.rotate(actor, id, HOUR).await.map(|rotated| rotated.summary().clone()),
        }
    }
}

/// A token that each act changes: paused, so that it can be resumed.
async fn changeable(world: &World, op: Op) -> PlaintextToken {
    let token = world.token(Scope::ReadWrite).await;
    if op == Op::Resume {
        world.desk.pause(&system(), &token.id()).await.unwrap();
        world.trail.take();
    }
    token
}

#[tokio::test]
async fn what_an_actor_may_not_see_looks_absent() {
    for (op, name) in Op::ALL {
        let world = World::new();
        let token = changeable(&world, op).await;
        let before = world.bench.record(&token).await;
        let bob = Actor::user("bob", Permissions::none().and_create().and_administer());
        for absent in [token.id(), world.bench.stranger().id()] {
            assert!(matches!(op.ask(&world, &bob, &absent).await, Err(ManageError::NotFound)), "{op:?}");
        }
        world.trail.assert_told(&[&*format!("{name} refused unknown user:bob"); 2]);
        assert_eq!(world.bench.record(&token).await, before, "{op:?}");
        let changed = op.ask(&world, &support(), &token.id()).await.unwrap();
        assert_eq!(changed.revision, before.revision().next(), "{op:?}");
        assert!(world.trail.take()[0].starts_with(&format!("{name} allowed - user:root")), "{op:?}");
    }
}

#[tokio::test]
async fn a_revoked_token_changes_no_more() {
    for (op, name) in Op::ALL {
        let world = World::new();
        let token = world.token(Scope::ReadWrite).await;
        world.desk.revoke(&system(), &token.id()).await.unwrap();
        let revoked = world.bench.record(&token).await;
        world.trail.take();
        let answer = op.ask(&world, &system(), &token.id()).await;
        if op == Op::Revoke {
            assert_eq!(answer.unwrap().revision, revoked.revision());
        } else {
            assert!(matches!(answer, Err(ManageError::Revoked)), "{op:?}");
            world.trail.assert_told(&[&*format!("{name} refused revoked system:test")]);
        }
        assert_eq!(world.bench.record(&token).await, revoked, "{op:?}");
        assert_eq!(world.bench.status(&token).await, 401);
    }
}

#[tokio::test]
async fn anybody_may_stop_their_own_tokens_and_only_creators_make_them_work() {
    for (op, name) in Op::ALL {
        let world = World::new();
        let token = changeable(&world, op).await;
        let answer = op.ask(&world, &alice(), &token.id()).await;
        if matches!(op, Op::Resume | Op::Rotate) {
            assert!(matches!(answer, Err(ManageError::Refused(IssueRefusal::CreateNotPermitted))), "{op:?}");
            world.trail.assert_told(&[&*format!("{name} refused create_not_permitted user:alice")]);
            op.ask(&world, &creator(), &token.id()).await.unwrap();
        } else {
            answer.unwrap();
        }
        assert!(world.trail.take()[0].starts_with(&format!("{name} allowed - user:alice")), "{op:?}");
    }
}

#[tokio::test]
async fn an_actor_without_a_name_does_nothing_and_is_on_record() {
    for (op, name) in Op::ALL {
        let world = World::new();
        let token = changeable(&world, op).await;
        let nameless = Actor::user("", Permissions::none().and_on_behalf());
        assert!(matches!(op.ask(&world, &nameless, &token.id()).await, Err(ManageError::Actor(_))), "{op:?}");
        world.trail.assert_told(&[&*format!("{name} refused unacceptable nobody")]);
    }
}

#[tokio::test]
async fn a_paused_token_is_refused_until_it_is_resumed() {
    let world = World::new();
    let (token, other) = (world.token(Scope::ReadOnly).await, world.token(Scope::ReadOnly).await);
    for _twice in 0..2 {
        assert_eq!(world.desk.pause(&creator(), &token.id()).await.unwrap().state, TokenState::Paused);
    }
    assert_eq!((world.bench.status(&token).await, world.bench.status(&other).await), (401, 200));
    for _twice in 0..2 {
        let resumed = world.desk.resume(&creator(), &token.id()).await.unwrap();
        assert_eq!((resumed.state, resumed.revision), (TokenState::Active, Revision::new(3)));
    }
    assert_eq!(world.bench.status(&token).await, 200);
    world.trail.assert_told(&[
        "pause allowed - user:alice",
        "pause allowed - user:alice",
        "authenticate refused paused nobody",
        "authenticate allowed - current",
        "resume allowed - user:alice",
        "resume allowed - user:alice",
        "authenticate allowed - current",
    ]);
}

#[tokio::test]
async fn an_expiry_moves_to_an_earlier_time_only() {
    let world = World::new();
    let token = world.issue(NewToken::new("alice", "laptop", Scope::ReadOnly).expires_in(HOUR)).await;
    let now = world.bench.clock.wall();
    let ask = async |end| world.desk.expire_at(&alice(), &token.id(), end).await;
    for later in [now + HOUR + INSTANT, tower_token_auth::Timestamp::MAX] {
        let refused = ask(later).await;
        assert!(matches!(refused, Err(ManageError::ExpiryNotEarlier { expires_at }) if expires_at == now + HOUR));
    }
    assert_eq!(ask(now + HOUR).await.unwrap().revision, Revision::FIRST, "as it was");
    world.trail.take();
    assert_eq!(ask(now + HOUR / 2).await.unwrap().expires_at, Some(now + HOUR / 2));
    world.trail.assert_told(&[&*format!("set_expiry allowed - user:alice {} -> {}", now + HOUR, now + HOUR / 2)]);
    assert_eq!(world.bench.status(&token).await, 200);
    world.bench.clock.advance(HOUR / 2);
    assert_eq!(world.bench.status(&token).await, 401);
}

#[tokio::test]
async fn an_expiry_in_the_past_is_now() {
    let world = World::new();
    let (token, other) = (world.token(Scope::ReadOnly).await, world.token(Scope::ReadOnly).await);
    let now = world.bench.clock.wall();
    let ask = async |end| world.desk.expire_at(&alice(), &token.id(), end).await;
    assert_eq!(ask(tower_token_auth::Timestamp::from_unix_seconds(0)).await.unwrap().expires_at, Some(now));
    world.trail.assert_told(&[&*format!("set_expiry allowed - user:alice never -> {now}")]);
    assert_eq!((world.bench.status(&token).await, world.bench.status(&other).await), (401, 200));
    world.bench.clock.advance(HOUR);
    assert_eq!(ask(now).await.unwrap().expires_at, Some(now), "it is over, and stays so");
    assert!(matches!(ask(now + HOUR + INSTANT).await, Err(ManageError::ExpiryNotEarlier { .. })));
}

#[tokio::test]
async fn a_narrowed_token_writes_no_more() {
    let world = World::new();
    let token = world.token(Scope::ReadWrite).await;
    let write = async || status_of(&world.bench.auth, Method::POST, token.expose()).await;
    assert_eq!(write().await, 200);
    world.trail.take();
    for _twice in 0..2 {
        let narrowed = world.desk.narrow(&alice(), &token.id()).await.unwrap();
        assert_eq!((narrowed.scope, narrowed.revision), (Scope::ReadOnly, Revision::new(2)));
    }
    world.trail.assert_told(&["narrow allowed - user:alice read-write -> read-only", "narrow allowed - user:alice"]);
    assert_eq!((write().await, world.bench.status(&token).await), (403, 200));
}

#[tokio::test]
async fn handlers_see_the_new_label_at_the_next_request() {
    let world = World::new();
    let token = world.token(Scope::ReadOnly).await;
    let refused = world.desk.rename(&alice(), &token.id(), "a\nb").await;
    assert!(matches!(refused, Err(ManageError::Label(_))));
    assert_eq!(world.admitted(&token).await.label().as_str(), "laptop");
    world.desk.rename(&alice(), &token.id(), "desktop").await.unwrap();
    world.desk.rename(&alice(), &token.id(), "desktop").await.unwrap();
    world.trail.assert_told(&["rename allowed - user:alice laptop -> desktop", "rename allowed - user:alice"]);
    assert_eq!(world.admitted(&token).await.label().as_str(), "desktop");
    assert_eq!(world.bench.record(&token).await.revision(), Revision::new(2));
}

#[tokio::test]
async fn what_would_not_be_issued_today_is_neither_resumed_nor_rotated() {
    let any = IssuePolicy::default;
    for (policy, refusal) in [
        (any().force_read_only(true), IssueRefusal::ReadOnlyEnforced),
        (any().max_lifetime_of(Scope::ReadWrite, Some(HOUR)), IssueRefusal::LifetimeTooLong { max: HOUR }),
        (any().require_expiry(true), IssueRefusal::ExpiryRequired),
        (any().rule(|_| Err("not today")), IssueRefusal::Rule("not today")),
    ] {
        for op in [Op::Resume, Op::Rotate] {
            let world = World::new();
            let token = changeable(&world, op).await;
            let before = world.bench.record(&token).await;
            world.set_policy(policy.clone()).await;
            let hashes = world.bench.hasher.hashes();
            let answer = op.ask(&world, &creator(), &token.id()).await;
            assert!(matches!(answer, Err(ManageError::Refused(why)) if why == refusal), "{op:?}: {answer:?}");
            assert_eq!(world.bench.hasher.hashes(), hashes, "refused before any hash");
            assert_eq!(world.bench.record(&token).await, before);
            world.set_policy(any()).await;
            op.ask(&world, &creator(), &token.id()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_token_neither_resumes_nor_rotates_what_is_greater_than_itself() {
    for op in [Op::Resume, Op::Rotate] {
        let world = World::new();
        let token = changeable(&world, op).await;
        let may = Permissions::none().and_create();
        let small = world.issue(NewToken::new("alice", "bot", Scope::ReadOnly)).await;
        let short = world.issue(NewToken::new("alice", "bot", Scope::ReadWrite).expires_in(HOUR)).await;
        let equal = world.issue(NewToken::new("alice", "bot", Scope::ReadWrite)).await;
        let small = op.ask(&world, &Actor::token(&world.admitted(&small).await, may), &token.id()).await;
        assert!(matches!(small, Err(ManageError::Refused(IssueRefusal::ExceedsOwnScope { .. }))), "{op:?}");
        let short = op.ask(&world, &Actor::token(&world.admitted(&short).await, may), &token.id()).await;
        assert!(matches!(short, Err(ManageError::Refused(IssueRefusal::ExceedsOwnLifetime { .. }))), "{op:?}");
        op.ask(&world, &Actor::token(&world.admitted(&equal).await, may), &token.id()).await.unwrap();
    }
}

#[tokio::test]
async fn an_expired_token_is_neither_resumed_nor_rotated() {
    for op in [Op::Resume, Op::Rotate] {
        let world = World::new();
        let token = changeable(&world, op).await;
        world.desk.expire_at(&system(), &token.id(), world.bench.clock.wall() + HOUR).await.unwrap();
        world.bench.clock.advance(HOUR - INSTANT);
        op.ask(&world, &creator(), &token.id()).await.unwrap();
        world.desk.pause(&system(), &token.id()).await.unwrap();
        world.bench.clock.advance(INSTANT);
        let answer = op.ask(&world, &creator(), &token.id()).await;
        assert!(matches!(answer, Err(ManageError::Refused(IssueRefusal::AlreadyExpired))), "{op:?}: {answer:?}");
    }
}

#[tokio::test]
async fn an_owner_has_no_more_live_tokens_than_allowed() {
    let world = World::new();
    world.set_policy(IssuePolicy::default().max_live_tokens(Some(2))).await;
    let wish = || NewToken::new("alice", "laptop", Scope::ReadOnly);
    let (paused, kept) = (world.issue(wish()).await, world.issue(wish().expires_in(HOUR)).await);
    world.desk.pause(&system(), &paused.id()).await.unwrap();
    world.desk.bar_owner(&system(), &owner()).await.unwrap();
    let full = async || {
        let hashes = world.bench.hasher.hashes();
        let answer = world.desk.issue(&system(), wish()).await;
        let max = matches!(answer, Err(IssueError::Refused(IssueRefusal::TooManyTokens { max: 2 })));
        assert!(!max || world.bench.hasher.hashes() == hashes, "refused before any hash");
        max
    };
    assert!(full().await, "paused and barred ones count");
    assert!(world.desk.issue(&system(), NewToken::new("bob", "laptop", Scope::ReadOnly)).await.is_ok());
    world.bench.clock.advance(HOUR);
    assert!(!full().await, "{} has expired", kept.id());
    assert!(full().await);
    world.desk.revoke(&system(), &paused.id()).await.unwrap();
    assert!(!full().await, "a revoked one does not count");
}

#[tokio::test]
async fn a_token_is_not_resumed_while_its_owner_has_too_many() {
    let world = World::new();
    let (paused, other) = (changeable(&world, Op::Resume).await, world.token(Scope::ReadOnly).await);
    world.set_policy(IssuePolicy::default().max_live_tokens(Some(1))).await;
    let refused = world.desk.resume(&creator(), &paused.id()).await;
    assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::TooManyTokens { max: 1 }))));
    world.desk.revoke(&creator(), &other.id()).await.unwrap();
    world.desk.resume(&creator(), &paused.id()).await.unwrap();
}

#[tokio::test]
async fn a_policy_change_holds_for_the_next_token_and_is_on_record() {
    let world = World::new();
    let strict = IssuePolicy::default().force_read_only(true).max_lifetime(Some(24 * HOUR));
    for powerless in [creator(), support(), Actor::user("root", Permissions::none().and_create().and_on_behalf())] {
        let refused = world.desk.change_policy(&powerless, strict.clone()).await;
        assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::AdministerNotPermitted))));
    }
    assert_eq!(world.policy.current(), IssuePolicy::default());
    world.trail.take();
    let old = world.desk.change_policy(&administrator(), strict.clone()).await.unwrap();
    assert_eq!((old, world.policy.current()), (IssuePolicy::default(), strict.clone()));
    let (before, after) = (IssuePolicy::default(), strict);
    world.trail.assert_told(&[&*format!("change_policy allowed - user:root {before} -> {after}")]);
    let write = NewToken::new("alice", "importer", Scope::ReadWrite).expires_in(HOUR);
    let refused = world.desk.issue(&creator(), write).await;
    assert!(matches!(refused, Err(IssueError::Refused(IssueRefusal::ReadOnlyEnforced))));
}

#[tokio::test]
async fn a_fixed_policy_is_not_changed() {
    let bench = Bench::new();
    let desk = bench.auth.issuer(bench.store.clone(), IssuePolicy::default());
    let refused = desk.change_policy(&system(), IssuePolicy::default().force_read_only(true)).await;
    assert!(matches!(refused, Err(ManageError::Policy(_))));
    bench.assert_last("unavailable policy_failed");
}

#[tokio::test]
async fn a_policy_change_makes_the_gate_ask_again() {
    let world = World::new();
    let token = world.token(Scope::ReadWrite).await;
    let finds = world.bench.store.finds();
    assert_eq!((world.bench.status(&token).await, world.bench.store.finds()), (200, finds));
    world.set_policy(IssuePolicy::default().force_read_only(true)).await;
    assert_eq!((world.bench.status(&token).await, world.bench.store.finds()), (200, finds + 1));
}

#[tokio::test]
async fn all_tokens_of_a_barred_owner_stop_at_once_and_resume_when_it_is_lifted() {
    let world = World::new();
    let (first, second) = (world.token(Scope::ReadOnly).await, world.token(Scope::ReadWrite).await);
    let bobs = world.issue(NewToken::new("bob", "laptop", Scope::ReadOnly)).await;
    let statuses =
        async || [world.bench.status(&first).await, world.bench.status(&second).await, world.bench.status(&bobs).await];
    let refused = world.desk.bar_owner(&support(), &owner()).await;
    assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::AdministerNotPermitted))));
    world.trail.assert_told(&["bar_owner refused administer_not_permitted user:root"]);
    assert_eq!(statuses().await, [200, 200, 200]);
    for _twice in 0..2 {
        world.desk.bar_owner(&administrator(), &owner()).await.unwrap();
        assert_eq!(statuses().await, [401, 401, 200]);
    }
    let refused = world.desk.lift_owner(&support(), &owner()).await;
    assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::AdministerNotPermitted))));
    assert_eq!(statuses().await, [401, 401, 200]);
    world.trail.take();
    world.desk.lift_owner(&administrator(), &owner()).await.unwrap();
    world.trail.assert_told(&["lift_owner allowed - user:root"]);
    assert_eq!(statuses().await, [200, 200, 200]);
}

#[tokio::test]
async fn all_that_match_are_revoked_and_nothing_else() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let bobs = world.issue(NewToken::new("bob", "laptop", Scope::ReadWrite)).await;
    world.bench.clock.advance(HOUR);
    let (young, write) = (world.token(Scope::ReadOnly).await, world.token(Scope::ReadWrite).await);
    let all = [&old, &bobs, &young, &write];
    let statuses = async || {
        let mut statuses = Vec::new();
        for token in all {
            statuses.push(world.bench.status(token).await);
        }
        statuses
    };
    let revoke = async |actor, filter| {
        let report = world.desk.revoke_matching(&actor, filter).await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        report.revoked
    };
    // A creator sees only their own.
    let foreign = TokenFilter::all().owner(OwnerId::new("bob").unwrap());
    assert_eq!(revoke(creator(), foreign).await, []);
    assert_eq!(statuses().await, [200, 200, 200, 200]);
    let before = TokenFilter::all().created_before(world.bench.clock.wall());
    assert_eq!(revoke(alice(), before).await, [old.id()]);
    assert_eq!(statuses().await, [401, 200, 200, 200]);
    assert_eq!(revoke(system(), TokenFilter::all().scope(Scope::ReadWrite)).await.len(), 2);
    assert_eq!(statuses().await, [401, 401, 200, 401]);
    world.trail.take();
    assert_eq!(revoke(system(), TokenFilter::all().owner(owner()).page_size(1)).await, [young.id()]);
    world.trail.assert_told(&["revoke allowed - system:test"]);
    assert_eq!(statuses().await, [401, 401, 401, 401]);
    assert_eq!(revoke(system(), TokenFilter::all()).await, [], "nothing is left");
}

#[tokio::test]
async fn records_long_dead_are_forgotten() {
    let world = World::new();
    let wish = || NewToken::new("alice", "laptop", Scope::ReadOnly);
    let (revoked, expired) = (world.issue(wish()).await, world.issue(wish().expires_in(INSTANT)).await);
    let live = world.issue(wish()).await;
    world.desk.revoke(&system(), &revoked.id()).await.unwrap();
    world.bench.clock.advance(HOUR);
    let refused = world.desk.prune(&support(), Duration::ZERO).await;
    assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::AdministerNotPermitted))));
    assert_eq!(world.desk.prune(&administrator(), HOUR).await.unwrap(), 0, "not dead for so long");
    world.trail.take();
    world.bench.clock.advance(INSTANT + INSTANT);
    let time = world.bench.clock.wall();
    assert_eq!(world.desk.prune(&administrator(), HOUR).await.unwrap(), 2);
    let cutoff = tower_token_auth::Timestamp::from_unix_millis(time.unix_millis() - 3_600_000);
    world.trail.assert_told(&[&*format!("prune allowed - user:root dead before {cutoff} -> 2 forgotten")]);
    assert!(world.desk.find(&system(), &expired.id()).await.unwrap().is_none());
    assert!(world.desk.find(&system(), &live.id()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_token_is_found_by_those_who_may_see_it() {
    let world = World::new();
    let id = world.token(Scope::ReadOnly).await.id();
    for (actor, found) in [(alice(), true), (support(), true), (system(), true), (administrator(), false)] {
        assert_eq!(world.desk.find(&actor, &id).await.unwrap().is_some(), found, "{actor:?}");
    }
    assert!(world.desk.find(&system(), &world.bench.stranger().id()).await.unwrap().is_none());
    world.trail.assert_told(&[]);
    let revoked = world.desk.revoke(&alice(), &id).await.unwrap();
    assert_eq!((revoked.revoked_at, revoked.retiring_until), (Some(world.bench.clock.wall()), None));
}

/// Labels, in order.
fn labels(page: &tower_token_auth::SummaryPage) -> Vec<&str> {
    let mut labels: Vec<_> = page.tokens.iter().map(|token| token.label.as_str()).collect();
    labels.sort_unstable();
    labels
}

#[tokio::test]
async fn reports_tell_what_expires_what_is_unused_and_what_only_reads() {
    let world = World::new();
    let wish = |label: &str| NewToken::new("alice", label, Scope::ReadWrite);
    let soon = world.issue(wish("soon").expires_in(2 * HOUR)).await;
    world.issue(wish("later").expires_in(9 * HOUR)).await;
    world.issue(wish("over").expires_in(INSTANT)).await;
    let reads = world.issue(wish("reads")).await;
    let dead = world.issue(wish("dead").expires_in(2 * HOUR)).await;
    world.desk.revoke(&system(), &dead.id()).await.unwrap();
    world.bench.clock.advance(HOUR);
    let now = world.bench.clock.wall();
    let used = |at| LastUsed::new(at);
    let uses = [(soon.id(), used(now).with_last_write(Some(now))), (reads.id(), used(now))];
    world.bench.store.touch(&uses).await.unwrap();

    let expiring = world.desk.expiring(&alice(), HOUR + INSTANT, None).await.unwrap();
    assert_eq!(labels(&expiring), ["soon"]);
    let unused = world.desk.unused(&alice(), HOUR - INSTANT, None).await.unwrap();
    assert_eq!(labels(&unused), ["later"]);
    assert_eq!(labels(&world.desk.unused(&alice(), HOUR, None).await.unwrap()), Vec::<&str>::new());
    assert_eq!(labels(&world.desk.only_reading(&alice(), None).await.unwrap()), ["reads"]);
    let bob = Actor::user("bob", Permissions::none());
    for page in [
        world.desk.expiring(&bob, 24 * HOUR, None).await.unwrap(),
        world.desk.unused(&bob, Duration::ZERO, None).await.unwrap(),
        world.desk.only_reading(&bob, None).await.unwrap(),
    ] {
        assert_eq!(labels(&page), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn a_wish_of_bad_texts_is_on_record() {
    let bench = Bench::new();
    let desk = bench.auth.issuer(bench.store.clone(), IssuePolicy::default());
    let sink: &RecordingSink = &bench.sink;
    for (owner, label) in [("", "laptop"), ("alice", "a\nb")] {
        assert!(desk.issue(&system(), NewToken::new(owner, label, Scope::ReadOnly)).await.is_err());
        assert!(desk.ensure(&system(), NewToken::new(owner, label, Scope::ReadOnly)).await.is_err());
    }
    let told = sink.take();
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|event| event.reason == Some(Reason::Unacceptable)));
    assert_eq!((told[0].owner.as_deref(), told[0].label.as_deref()), (None, Some("laptop")));
    assert!(desk.issue(&system(), NewToken::new("alice", "laptop", Scope::ReadOnly)).await.is_ok());
    assert!(bench.store.inner().find(&sink.take()[0].token_id.unwrap()).await.unwrap().is_some());
}
