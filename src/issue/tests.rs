//! The desk against a store that can fail, a policy that changes and a sink that remembers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::actor::{Actor, Permissions};
use crate::audit::{AuditError, AuditEvent, AuditSink, OnAuditFailure, Recorder};
use crate::authenticator::{Attempt, Authenticator, Setup};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{CacheConfig, LookupLimits, VerifyLimits};
use crate::decision::{IssueRefusal, Reason, StoreError};
use crate::hash::{SecretHasher, Sha256Hasher};
use crate::id::{OwnerId, TokenId};
use crate::scope::Scope;
use crate::store::{
    Change, Cursor, InsertError, MemoryStore, TokenFilter, TokenPage, TokenRegistry, TokenStore, UpdateError,
};
use crate::token::{Attributes, LastUsed, ParsedToken, Prefix, Revision, TokenRecord, TokenState};
use crate::verify::Crew;

/// Remembers events as `action outcome reason actor`, or fails.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>);

impl AuditSink for Sink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        if self.1.load(Ordering::SeqCst) {
            return Err(AuditError::new("the disk is full"));
        }
        let (action, outcome) = (event.action().as_str(), event.outcome());
        let reason = event.reason().map_or("-", Reason::as_str);
        let actor = event.actor().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        self.0.lock().unwrap().push(format!("{action} {outcome} {reason} {actor}"));
        Ok(())
    }
}

impl Sink {
    #[track_caller]
    fn assert_told(&self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut *self.0.lock().unwrap()), expected);
    }

    /// As from two who act at once.
    #[track_caller]
    fn assert_told_in_any_order(&self, expected: &[&str]) {
        self.0.lock().unwrap().sort();
        self.assert_told(expected);
    }
}

/// Does as asked and, where told so, answers all the same that it failed, or never answers at all. It overlooks filters,
/// and lets others go first, so that two who ask at once take turns.
#[derive(Clone, Default)]
struct Lossy {
    store: MemoryStore,
    fails: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    /// Answers to so many updates first that somebody else was faster.
    conflicts: Arc<AtomicUsize>,
}

impl Lossy {
    async fn answer<T, E: From<StoreError>>(&self, done: Result<T, E>) -> Result<T, E> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        if self.fails.load(Ordering::SeqCst) { Err(StoreError::new("the connection broke").into()) } else { done }
    }
}

impl TokenStore for Lossy {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.store.find(id).await
    }
}

impl TokenRegistry for Lossy {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        self.answer(self.store.insert(record).await).await
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        let faster = |left: usize| left.checked_sub(1);
        if self.conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, faster).is_ok() {
            return Err(UpdateError::Conflict);
        }
        self.answer(self.store.update(id, expected, change).await).await
    }

    async fn list(&self, _: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        let listed = self.store.list(&TokenFilter::all().page_size(3), cursor).await;
        tokio::task::yield_now().await;
        listed
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        self.store.touch(uses).await
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.answer(self.store.bar_owner(owner).await).await
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.answer(self.store.lift_owner(owner).await).await
    }

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        self.answer(self.store.prune(time).await).await
    }
}

struct Untold;

impl PolicyProvider for Untold {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Err(StoreError::new("connection refused"))
    }
}

fn builder<S>(store: &S, policy: impl PolicyProvider + 'static, sink: &Sink) -> TokenIssuerBuilder
where
    S: TokenRegistry + Clone + 'static,
{
    TokenIssuer::builder(store.clone(), policy).hasher(Sha256Hasher::new()).audit(sink.clone())
}

fn desk(store: &MemoryStore) -> TokenIssuer {
    builder(store, IssuePolicy::default(), &Sink::default()).build().unwrap()
}

fn creator(owner: &str) -> Actor {
    Actor::user(owner, Permissions::none().and_create())
}

fn administrator() -> Actor {
    Actor::user("root", Permissions::none().and_on_behalf())
}

fn wish(owner: &str, label: &str) -> NewToken {
    NewToken::new(owner, label, Scope::ReadOnly)
}

async fn record(store: &MemoryStore, id: TokenId) -> TokenRecord {
    store.find(&id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_record_tells_who_made_it_and_by_which_right() {
    let store = MemoryStore::new();
    let attributes = Attributes::new([("tenant", "acme")]).unwrap();
    for (actor, creator, right) in [(creator("alice"), "user:alice", false), (administrator(), "user:root", true)] {
        let new = wish("alice", "laptop").attributes(attributes.clone()).expires_at(Timestamp::MAX);
        let issued = desk(&store).issue(&actor, new).await.unwrap();
        let record = record(&store, issued.summary().id).await;
        assert_eq!((record.created_by().to_string().as_str(), record.made_on_behalf_right()), (creator, right));
        assert_eq!((record.expires_at(), record.attributes()), (Some(Timestamp::MAX), &attributes));
        assert_eq!(*issued.summary(), TokenSummary::from(&record));
        let secret = issued.plaintext().secret().expose().to_owned();
        assert!(!format!("{issued:?}").contains(&secret));
        assert_eq!(issued.into_plaintext().id(), record.id());
    }
}

#[tokio::test]
async fn bad_texts_surface_when_the_token_is_asked_for() {
    let desk = desk(&MemoryStore::new());
    assert!(matches!(desk.issue(&creator("a"), wish("", "l")).await, Err(IssueError::Owner(_))));
    assert!(matches!(desk.issue(&creator("a"), wish("a", "\n")).await, Err(IssueError::Label(_))));
    assert!(matches!(desk.issue(&creator(""), wish("a", "l")).await, Err(IssueError::Actor(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ensured_by_many_at_once_a_token_is_made_once() {
    let store = MemoryStore::new();
    let starts: Vec<_> = (0..32)
        .map(|_| {
            // A desk each, as so many processes would have.
            let desk = desk(&store);
            tokio::spawn(async move { desk.ensure(&Actor::system("bootstrap"), wish("ops", "first")).await.unwrap() })
        })
        .collect();
    let mut made = 0;
    for start in starts {
        made += usize::from(matches!(start.await.unwrap(), Ensured::Created(_)));
    }
    assert_eq!(made, 1);
    assert_eq!(store.list(&TokenFilter::all(), None).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn an_ensured_token_is_found_whatever_the_policy_says_later() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let first = desk(&store).ensure(&creator("ops"), wish("ops", "first")).await.unwrap();
    let Ensured::Created(made) = first else { panic!("nothing exists yet") };
    let strict = IssuePolicy::default().max_lifetime(Some(std::time::Duration::from_secs(1)));
    for desk in [builder(&store, strict, &sink), builder(&store, Untold, &sink)].map(|desk| desk.build().unwrap()) {
        let Ensured::Exists(found) = desk.ensure(&creator("ops"), wish("ops", "first")).await.unwrap() else {
            panic!("it exists already");
        };
        assert_eq!(found, *made.summary());
        assert!(desk.ensure(&creator("ops"), wish("ops", "second")).await.is_err(), "that one is not there");
    }
    let stranger = desk(&store).ensure(&creator("eve"), wish("ops", "first")).await;
    assert!(matches!(stranger, Err(IssueError::Refused(IssueRefusal::OnBehalfNotPermitted))));
}

#[tokio::test]
async fn anothers_token_looks_absent() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let desk = builder(&store, IssuePolicy::default(), &sink).build().unwrap();
    let id = desk.issue(&creator("alice"), wish("alice", "laptop")).await.unwrap().summary().id;
    for absent in [id, TokenId::generate().unwrap()] {
        assert!(matches!(desk.revoke(&creator("bob"), &absent).await, Err(ManageError::NotFound)));
    }
    assert_eq!(record(&store, id).await.state(), TokenState::Active);
    assert_eq!(desk.revoke(&administrator(), &id).await.unwrap().state, TokenState::Revoked);
    assert_eq!(desk.revoke(&creator("alice"), &id).await.unwrap().revision, Revision::new(2), "nothing changed");
    sink.assert_told(&[
        "issue allowed - user:alice",
        "revoke refused unknown user:bob",
        "revoke refused unknown user:bob",
        "revoke allowed - user:root",
        "revoke allowed - user:alice",
    ]);
}

#[tokio::test]
async fn a_list_shows_what_is_the_actors_to_see() {
    let store = Lossy::default();
    let desk = TokenIssuer::builder(store, IssuePolicy::default()).hasher(Sha256Hasher::new()).build().unwrap();
    for owner in ["alice", "bob"] {
        desk.issue(&administrator(), wish(owner, "laptop")).await.unwrap();
    }
    let bobs = TokenFilter::all().owner(OwnerId::new("bob").unwrap());
    for (actor, filter, expected) in [
        (creator("alice"), TokenFilter::all(), 1),
        (creator("alice"), bobs.clone(), 0),
        (creator("bob"), bobs, 1),
        (creator(""), TokenFilter::all(), 0),
        (administrator(), TokenFilter::all(), 2),
        (Actor::system("report"), TokenFilter::all(), 2),
    ] {
        assert_eq!(desk.list(&actor, filter, None).await.unwrap().tokens.len(), expected, "{actor:?}");
    }
}

#[tokio::test]
async fn a_change_of_the_policy_holds_for_the_next_token() {
    let (store, sink, switch) = (MemoryStore::new(), Sink::default(), Arc::new(AtomicBool::new(false)));
    let switched = Arc::clone(&switch);
    let policy = policy_fn(move || IssuePolicy::default().force_read_only(switched.load(Ordering::SeqCst)));
    let desk = builder(&store, policy, &sink).build().unwrap();
    let write = || NewToken::new("alice", "importer", Scope::ReadWrite);
    assert!(desk.issue(&creator("alice"), write()).await.is_ok());
    switch.store(true, Ordering::SeqCst);
    let refused = desk.issue(&creator("alice"), write()).await;
    assert!(matches!(refused, Err(IssueError::Refused(IssueRefusal::ReadOnlyEnforced))));
    sink.assert_told(&["issue allowed - user:alice", "issue refused read_only_enforced user:alice"]);
}

#[tokio::test]
async fn a_policy_that_cannot_be_told_issues_nothing() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let desk = builder(&store, Untold, &sink).build().unwrap();
    let refused = desk.issue(&Actor::system("bootstrap"), wish("alice", "laptop")).await;
    assert!(matches!(refused, Err(IssueError::Policy(_))));
    assert!(store.list(&TokenFilter::all(), None).await.unwrap().records.is_empty());
    sink.assert_told(&["issue unavailable policy_failed system:bootstrap"]);
}

#[tokio::test]
async fn what_has_to_be_recorded_and_cannot_be_is_revoked_again() {
    for (on_failure, state) in
        [(OnAuditFailure::Refuse, TokenState::Revoked), (OnAuditFailure::Continue, TokenState::Active)]
    {
        let (store, sink) = (MemoryStore::new(), Sink::default());
        let desk = builder(&store, IssuePolicy::default(), &sink).on_audit_failure(on_failure).build().unwrap();
        sink.1.store(true, Ordering::SeqCst);
        let answer = desk.issue(&creator("alice"), wish("alice", "laptop")).await;
        assert_eq!(matches!(answer, Err(IssueError::Audit)), on_failure == OnAuditFailure::Refuse);
        assert_eq!(store.list(&TokenFilter::all(), None).await.unwrap().records[0].state(), state);
    }
}

/// A desk and its gate over one store, and what the desk has put on record.
struct Office {
    store: Lossy,
    desk: TokenIssuer,
    gate: Authenticator,
    sink: Sink,
}

impl Office {
    fn new() -> Self {
        let (store, sink) = (Lossy::default(), Sink::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let hasher: Arc<dyn SecretHasher> = Arc::new(Sha256Hasher::new());
        let limits = VerifyLimits::default();
        let gate = Authenticator::new(Setup {
            store: Arc::new(store.clone()),
            cache: CacheConfig::default(),
            lookup: LookupLimits::default(),
            verification: limits,
            hashers: vec![Arc::clone(&hasher)],
            clock: Arc::clone(&clock),
            recorder: Recorder::new(Arc::new(Sink::default())),
            registry: None,
            flush_last_used: std::time::Duration::ZERO,
            #[cfg(feature = "metrics")]
            realm: "api".to_owned(),
        })
        .unwrap();
        let desk = TokenIssuer::assemble(DeskParts {
            registry: Arc::new(store.clone()),
            policy: Arc::new(SharedPolicy::default()),
            prefix: Prefix::default(),
            hasher,
            crew: Crew::for_limits(&limits),
            limits,
            clock,
            recorder: Recorder::new(Arc::new(sink.clone())),
            on_audit_failure: OnAuditFailure::Continue,
            gate: Some(gate.clone()),
        });
        Self { store, desk, gate, sink }
    }

    /// A token that the gate has proved.
    async fn token(&self) -> IssuedToken {
        let issued = self.desk.issue(&creator("alice"), wish("alice", "laptop")).await.unwrap();
        assert!(self.attempt(&issued).await.is_ok());
        self.sink.0.lock().unwrap().clear();
        issued
    }

    async fn attempt(&self, issued: &IssuedToken) -> Result<(), Reason> {
        let (id, secret) = (issued.plaintext().id(), issued.plaintext().secret().clone());
        let verdict = match self.gate.authenticate(ParsedToken::of_parts(id, secret)) {
            Attempt::Decided(verdict) => verdict,
            Attempt::Pending(verdict) => verdict.await,
        };
        verdict.map(|_| ())
    }
}

#[tokio::test]
async fn a_gate_asks_again_after_a_revocation_that_may_have_happened() {
    let office = Office::new();
    let issued = office.token().await;
    office.store.fails.store(true, Ordering::SeqCst);
    let answer = office.desk.revoke(&creator("alice"), &issued.summary().id).await;
    assert!(matches!(answer, Err(ManageError::Store(_))));
    office.sink.assert_told(&["revoke unavailable store_failed user:alice"]);
    assert_eq!(office.attempt(&issued).await, Err(Reason::Revoked));
}

#[tokio::test]
async fn a_gate_asks_again_after_a_bar_that_may_have_been_set_or_lifted() {
    let office = Office::new();
    let (issued, owner) = (office.token().await, OwnerId::new("alice").unwrap());
    office.store.fails.store(true, Ordering::SeqCst);
    assert!(matches!(office.desk.bar_owner(&Actor::system("x"), &owner).await, Err(ManageError::Store(_))));
    assert_eq!(office.attempt(&issued).await, Err(Reason::OwnerBarred));
    assert!(matches!(office.desk.lift_owner(&Actor::system("x"), &owner).await, Err(ManageError::Store(_))));
    assert_eq!(office.attempt(&issued).await, Ok(()));
    office
        .sink
        .assert_told(&["bar_owner unavailable store_failed system:x", "lift_owner unavailable store_failed system:x"]);
}

/// Polls once, and lets go.
fn abandon(act: impl Future) {
    let mut act = std::pin::pin!(act);
    assert!(futures_util::FutureExt::now_or_never(act.as_mut()).is_none(), "the store never answers");
}

#[tokio::test]
async fn an_act_whose_caller_has_left_is_on_record_and_the_gate_asks_again() {
    let office = Office::new();
    let (revoked, owner) = (office.token().await, OwnerId::new("alice").unwrap());
    let barred = office.token().await;
    office.store.hangs.store(true, Ordering::SeqCst);
    abandon(office.desk.revoke(&creator("alice"), &revoked.summary().id));
    assert_eq!(office.attempt(&revoked).await, Err(Reason::Revoked));
    assert_eq!(office.attempt(&barred).await, Ok(()));
    abandon(office.desk.bar_owner(&Actor::system("x"), &owner));
    assert_eq!(office.attempt(&barred).await, Err(Reason::OwnerBarred));
    abandon(office.desk.issue(&creator("alice"), wish("alice", "lost")));
    office.sink.assert_told(&[
        "revoke abandoned - user:alice",
        "bar_owner abandoned - system:x",
        "issue abandoned - user:alice",
    ]);
}

#[tokio::test]
async fn a_change_is_tried_again_where_somebody_else_was_faster_and_given_up_after_a_while() {
    let office = Office::new();
    let id = office.token().await.summary().id;
    assert!(office.desk.pause(&creator("alice"), &id).await.is_ok());
    office.store.conflicts.store(4, Ordering::SeqCst);
    assert!(matches!(office.desk.resume(&creator("alice"), &id).await, Err(ManageError::Conflict)));
    office.store.conflicts.store(3, Ordering::SeqCst);
    assert_eq!(office.desk.resume(&creator("alice"), &id).await.unwrap().state, TokenState::Active);
    office.sink.assert_told(&[
        "pause allowed - user:alice",
        "resume unavailable contended user:alice",
        "resume allowed - user:alice",
    ]);
    let rename = async |conflicts| {
        office.store.conflicts.store(conflicts, Ordering::SeqCst);
        office.desk.rename(&Actor::system("x"), &id, format!("{conflicts}")).await
    };
    assert!(rename(3).await.is_ok());
    assert!(matches!(rename(4).await, Err(ManageError::Conflict)));
    let rotate = async |conflicts| {
        office.store.conflicts.store(conflicts, Ordering::SeqCst);
        office.desk.rotate(&Actor::system("x"), &id, std::time::Duration::ZERO).await
    };
    assert!(rotate(3).await.is_ok());
    assert!(matches!(rotate(4).await, Err(ManageError::Conflict)));
}

#[tokio::test]
async fn whoever_keeps_changing_a_token_cannot_keep_it_from_being_stopped() {
    let office = Office::new();
    let end = Timestamp::from_unix_seconds(4_000_000_000);
    for (conflicts, stopped) in [(63, true), (64, false)] {
        let actor = Actor::system("x");
        let id =
            office.desk.issue(&actor, NewToken::new("alice", "laptop", Scope::ReadWrite)).await.unwrap().summary().id;
        let contend = || office.store.conflicts.store(conflicts, Ordering::SeqCst);
        contend();
        assert_eq!(office.desk.narrow(&actor, &id).await.is_ok(), stopped);
        contend();
        assert_eq!(office.desk.expire_at(&actor, &id, end).await.is_ok(), stopped);
        contend();
        assert_eq!(office.desk.pause(&actor, &id).await.is_ok(), stopped);
        contend();
        assert_eq!(office.desk.revoke(&actor, &id).await.is_ok(), stopped);
    }
}

fn crowded(answer: &Result<IssuedToken, IssueError>) -> bool {
    matches!(answer, Err(IssueError::Refused(IssueRefusal::TooManyTokens { .. })))
}

/// All records, and how many of them are live.
async fn counts(store: &Lossy) -> (usize, usize) {
    let all = store.store.list(&TokenFilter::all(), None).await.unwrap().records;
    (all.len(), all.iter().filter(|record| record.state() != TokenState::Revoked).count())
}

#[tokio::test]
async fn a_desk_that_is_asked_for_many_at_once_issues_as_many_as_allowed() {
    let (store, sink) = (Lossy::default(), Sink::default());
    let desk = builder(&store, IssuePolicy::default().max_live_tokens(Some(5)), &sink).build().unwrap();
    let issue = async || desk.issue(&creator("alice"), wish("alice", "laptop")).await;
    let answers = futures_util::future::join_all((0..12).map(|_| issue())).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    assert_eq!(answers.iter().filter(|answer| crowded(answer)).count(), 7);
    assert_eq!(counts(&store).await, (5, 5), "nothing was made in vain");
}

#[tokio::test]
async fn two_desks_that_are_asked_at_once_never_issue_more_than_allowed() {
    let (store, sink) = (Lossy::default(), Sink::default());
    let desk = || builder(&store, IssuePolicy::default().max_live_tokens(Some(1)), &sink).build().unwrap();
    let (here, there, alice) = (desk(), desk(), creator("alice"));
    let both = futures_util::future::join(
        here.issue(&alice, wish("alice", "laptop")),
        there.issue(&alice, wish("alice", "laptop")),
    );
    let (one, other) = both.await;
    assert_eq!(counts(&store).await, (2, 0), "both saw two");
    assert!(crowded(&one) && crowded(&other));
    sink.assert_told_in_any_order(&[
        "issue refused too_many_tokens user:alice",
        "issue refused too_many_tokens user:alice",
        "revoke allowed - system:withdrawn",
        "revoke allowed - system:withdrawn",
    ]);
    assert!(here.issue(&alice, wish("alice", "laptop")).await.is_ok());
    assert!(crowded(&there.issue(&alice, wish("alice", "laptop")).await));
}

#[tokio::test]
async fn a_rule_that_panics_allows_nothing() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let policy = IssuePolicy::default().rule("broken", |wish| match wish.label().as_str() {
        "laptop" => panic!("a mistake in a rule"),
        _ => Ok(()),
    });
    let desk = builder(&store, policy, &sink).build().unwrap();
    let answer = desk.issue(&creator("alice"), wish("alice", "laptop")).await;
    assert!(matches!(answer, Err(IssueError::Policy(_))));
    assert!(desk.issue(&creator("alice"), wish("alice", "desktop")).await.is_ok());
    sink.assert_told(&["issue unavailable policy_failed user:alice", "issue allowed - user:alice"]);
}

#[tokio::test]
async fn what_needs_the_policy_fails_without_it_and_what_does_not_goes_on() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let id = desk(&store).issue(&creator("alice"), wish("alice", "laptop")).await.unwrap().summary().id;
    let desk = builder(&store, Untold, &sink).build().unwrap();
    assert!(desk.pause(&creator("alice"), &id).await.is_ok());
    assert!(matches!(desk.resume(&creator("alice"), &id).await, Err(ManageError::Policy(_))));
    assert!(matches!(desk.rename(&creator("alice"), &id, "desktop").await, Err(ManageError::Policy(_))));
    let rotated = desk.rotate(&creator("alice"), &id, std::time::Duration::ZERO).await;
    assert!(matches!(rotated, Err(ManageError::Policy(_))));
    sink.assert_told(&[
        "pause allowed - user:alice",
        "resume unavailable policy_failed user:alice",
        "rename unavailable policy_failed user:alice",
        "rotate unavailable policy_failed user:alice",
    ]);
}

#[tokio::test]
async fn a_rotation_that_cannot_be_recorded_is_repeated_without_loss() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let desk = builder(&store, IssuePolicy::default(), &sink).on_audit_failure(OnAuditFailure::Refuse).build().unwrap();
    let issued = desk.issue(&creator("alice"), wish("alice", "laptop")).await.unwrap();
    let (id, hour) = (issued.summary().id, std::time::Duration::from_secs(3600));
    let old = record(&store, id).await.secret().clone();
    sink.1.store(true, Ordering::SeqCst);
    assert!(matches!(desk.rotate(&creator("alice"), &id, hour).await, Err(ManageError::Audit)));
    let lost = record(&store, id).await;
    assert_eq!(lost.retiring().unwrap().secret(), &old, "the old text works on");
    sink.1.store(false, Ordering::SeqCst);
    let rotated = desk.rotate(&creator("alice"), &id, hour).await.unwrap();
    let record = record(&store, id).await;
    assert_eq!(record.retiring(), lost.retiring());
    assert_ne!(record.secret(), lost.secret());
    assert_eq!(rotated.summary().retiring_until, lost.retiring().map(crate::token::RetiringSecret::until));
}

/// Issues a token whenever the desk has revoked one, as often as told.
#[derive(Clone)]
struct Hydra(Lossy, Arc<AtomicUsize>);

impl TokenStore for Hydra {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.0.find(id).await
    }
}

impl TokenRegistry for Hydra {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        self.0.insert(record).await
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        let updated = self.0.update(id, expected, change).await?;
        let another = |left: usize| left.checked_sub(1);
        if self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, another).is_ok() {
            // The lowest id of all: behind every cursor.
            let lowest: TokenId = format!("{:016}", self.1.load(Ordering::SeqCst)).parse().unwrap();
            let (owner, label) = (updated.owner().clone(), updated.label().clone());
            let (scope, secret, at) = (updated.scope(), updated.secret().clone(), updated.created_at());
            self.0.insert(TokenRecord::new(lowest, owner, label, scope, secret, at)).await.unwrap();
        }
        Ok(updated)
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        match self.1.load(Ordering::SeqCst) {
            usize::MAX => Err(StoreError::new("no listing today")),
            _ => self.0.list(filter, cursor).await,
        }
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        self.0.touch(uses).await
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.0.bar_owner(owner).await
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        self.0.lift_owner(owner).await
    }
}

impl Hydra {
    /// With so many heads to grow, and seven of bob's and alice's each to begin with.
    async fn new(heads: usize) -> (Self, TokenIssuer) {
        let hydra = Self(Lossy::default(), Arc::new(AtomicUsize::new(heads)));
        let desk = builder(&hydra, IssuePolicy::default(), &Sink::default()).build().unwrap();
        for _ in 0..7 {
            for owner in ["alice", "bob"] {
                desk.issue(&Actor::system("x"), wish(owner, "laptop")).await.unwrap();
            }
        }
        (hydra, desk)
    }

    async fn live(&self, owner: &str) -> usize {
        let all = self.0.store.list(&TokenFilter::all(), None).await.unwrap().records;
        let alive = |record: &&TokenRecord| record.owner().as_str() == owner && record.state() == TokenState::Active;
        all.iter().filter(alive).count()
    }
}

#[tokio::test]
async fn what_is_issued_while_all_are_revoked_is_revoked_too() {
    let (hydra, desk) = Hydra::new(9).await;
    let alices = TokenFilter::all().owner(OwnerId::new("alice").unwrap());
    let report = desk.revoke_matching(&Actor::system("x"), alices).await.unwrap();
    assert!(report.is_complete());
    assert_eq!(report.revoked.len(), 7 + 9);
    assert_eq!((hydra.live("alice").await, hydra.live("bob").await), (0, 7));
}

#[tokio::test]
async fn revoking_all_ends_where_others_never_stop_issuing() {
    let (_hydra, desk) = Hydra::new(5000).await;
    let report = desk.revoke_matching(&creator("alice"), TokenFilter::all()).await.unwrap();
    assert!(matches!(report.interrupted, Some(ManageError::Conflict)) && report.failed.is_empty());
    assert!(!report.is_complete());
}

#[tokio::test]
async fn revoking_all_goes_on_after_single_failures() {
    let (hydra, desk) = Hydra::new(0).await;
    // As many conflicts as one token's tries.
    hydra.0.conflicts.store(64, Ordering::SeqCst);
    let report = desk.revoke_matching(&creator("alice"), TokenFilter::all()).await.unwrap();
    assert!(report.is_complete(), "the next pass has mended it: {report:?}");
    assert_eq!((report.revoked.len(), hydra.live("alice").await), (7, 0));
    hydra.0.fails.store(true, Ordering::SeqCst);
    let report = desk.revoke_matching(&creator("bob"), TokenFilter::all()).await.unwrap();
    assert_eq!((report.revoked.len(), report.failed.len()), (0, 7));
    assert!(report.failed.iter().all(|(_, error)| matches!(error, ManageError::Store(_))) && !report.is_complete());
    hydra.1.store(usize::MAX, Ordering::SeqCst);
    let report = desk.revoke_matching(&creator("bob"), TokenFilter::all()).await.unwrap();
    assert!(matches!(report.interrupted, Some(ManageError::Store(_))));
}

#[tokio::test]
async fn revoking_all_is_on_record_where_it_comes_to_nothing() {
    let (hydra, sink) = (Hydra(Lossy::default(), Arc::default()), Sink::default());
    let desk = builder(&hydra, IssuePolicy::default(), &sink).build().unwrap();
    let nameless = desk.revoke_matching(&creator(""), TokenFilter::all()).await;
    assert!(matches!(nameless, Err(ManageError::Actor(_))));
    sink.assert_told(&["revoke refused unacceptable nobody"]);
    assert!(desk.revoke_matching(&creator("alice"), TokenFilter::all()).await.unwrap().is_complete());
    sink.assert_told(&[]);
    hydra.1.store(usize::MAX, Ordering::SeqCst);
    assert!(!desk.revoke_matching(&creator("alice"), TokenFilter::all()).await.unwrap().is_complete());
    sink.assert_told(&["revoke unavailable store_failed user:alice"]);
}

#[tokio::test]
async fn a_registry_that_cannot_prune_has_not_failed() {
    let (store, sink) = (Lossy::default(), Sink::default());
    let hydra = Hydra(store.clone(), Arc::default());
    let unable = builder(&hydra, IssuePolicy::default(), &sink).build().unwrap();
    let answer = unable.prune(&Actor::system("x"), std::time::Duration::ZERO).await;
    assert!(matches!(answer, Err(ManageError::Unsupported(_))));
    sink.assert_told(&["prune refused unsupported system:x"]);
    let able = builder(&store, IssuePolicy::default(), &sink).build().unwrap();
    assert_eq!(able.prune(&Actor::system("x"), std::time::Duration::ZERO).await.unwrap(), 0);
    store.fails.store(true, Ordering::SeqCst);
    let answer = able.prune(&Actor::system("x"), std::time::Duration::ZERO).await;
    assert!(matches!(answer, Err(ManageError::Store(_))));
    sink.assert_told(&["prune allowed - system:x", "prune unavailable store_failed system:x"]);
}

#[tokio::test]
async fn an_ensured_token_that_cannot_be_recorded_is_not_lost_to_its_deployment() {
    let (store, sink) = (MemoryStore::new(), Sink::default());
    let desk = builder(&store, IssuePolicy::default(), &sink).on_audit_failure(OnAuditFailure::Refuse).build().unwrap();
    let ops = Actor::system("bootstrap");
    sink.1.store(true, Ordering::SeqCst);
    assert!(matches!(desk.ensure(&ops, wish("ops", "first")).await, Err(IssueError::Audit)));
    sink.1.store(false, Ordering::SeqCst);
    let Ensured::Exists(found) = desk.ensure(&ops, wish("ops", "first")).await.unwrap() else {
        panic!("it exists already");
    };
    assert_eq!(found.state, TokenState::Paused, "nobody has its text");
    sink.assert_told(&[]);
    desk.rotate(&ops, &found.id, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(desk.resume(&ops, &found.id).await.unwrap().state, TokenState::Active);
}

/// What an error says, and what its cause says.
fn told(error: &dyn std::error::Error) -> (String, Option<String>) {
    (error.to_string(), error.source().map(ToString::to_string))
}

const BACKEND: &str = "the backend failed";
const UNIX: Timestamp = Timestamp::from_unix_seconds(0);

fn no_name() -> crate::text::TextError {
    OwnerId::new("").unwrap_err()
}

fn failed() -> StoreError {
    StoreError::new("connection refused")
}

#[test]
fn why_nothing_is_issued_is_one_phrase_with_its_cause_apart() {
    use crate::hash::HashError;
    let no_name_told = no_name().to_string();
    let hash = || HashError::Failed("out of memory".into());
    let hash_told = hash().to_string();
    for (error, text, cause) in [
        (IssueError::Owner(no_name()), "the owner's name is not acceptable", Some(&*no_name_told)),
        (IssueError::Label(no_name()), "the label is not acceptable", Some(&no_name_told)),
        (IssueError::Actor(no_name()), "the actor's name is not acceptable", Some(&no_name_told)),
        (IssueError::Refused(IssueRefusal::Rule("ask first")), "the token may not be issued", Some("ask first")),
        (IssueError::IdTaken, "no free token id was found", None),
        (IssueError::Hash(hash()), "the secret could not be hashed", Some(&hash_told)),
        (IssueError::Busy, "the hash workers are busy", None),
        (IssueError::Store(failed()), "the token store could not answer", Some(BACKEND)),
        (IssueError::Policy(failed()), "the issue policy could not be read", Some(BACKEND)),
        (IssueError::Audit, "the audit event could not be recorded", None),
    ] {
        assert_eq!(told(&error), (text.to_owned(), cause.map(str::to_owned)));
    }
    assert_eq!(told(&ReadError::Store(failed())).0, "the tokens could not be read");
    assert_eq!(told(&failed()), (BACKEND.to_owned(), Some("connection refused".to_owned())));
}

#[test]
fn why_nothing_is_changed_is_one_phrase_with_its_cause_apart() {
    use crate::hash::HashError;
    let no_name_told = no_name().to_string();
    let hash = || HashError::Failed("out of memory".into());
    let hash_told = hash().to_string();
    let crowded = IssueRefusal::TooManyTokens { max: 3 };
    let unable = StoreError::unsupported("this policy is fixed");
    for (error, text, cause) in [
        (ManageError::Actor(no_name()), "the actor's name is not acceptable", Some(&*no_name_told)),
        (ManageError::Label(no_name()), "the label is not acceptable", Some(&no_name_told)),
        (ManageError::NotFound, "there is no such token", None),
        (
            ManageError::Refused(crowded),
            "the rules of the desk do not allow it",
            Some("an owner may have 3 live tokens, and has them"),
        ),
        (ManageError::Revoked, "the token is revoked", None),
        (
            ManageError::ExpiryNotEarlier { expires_at: UNIX },
            "the expiry can only move to before 1970-01-01T00:00:00.000Z",
            None,
        ),
        (
            ManageError::RotationUnderway { until: UNIX },
            "the token's new secret is in use, and the old one works until 1970-01-01T00:00:00.000Z",
            None,
        ),
        (ManageError::Conflict, "somebody else kept changing it at the same time", None),
        (ManageError::Hash(hash()), "the secret could not be hashed", Some(&hash_told)),
        (ManageError::Busy, "the hash workers are busy", None),
        (ManageError::Policy(failed()), "the issue policy could not be read or changed", Some(BACKEND)),
        (ManageError::Unsupported(unable), "it is not supported here", Some(BACKEND)),
        (ManageError::Store(failed()), "the token store could not answer", Some(BACKEND)),
        (ManageError::Audit, "it is done, and the audit event could not be recorded", None),
    ] {
        assert_eq!(told(&error), (text.to_owned(), cause.map(str::to_owned)));
    }
}

#[test]
fn every_act_can_be_spawned() {
    fn are_send(acts: &[&dyn Send]) {
        assert_eq!(acts.len(), 20, "all of them");
    }
    let (desk, actor) = (desk(&MemoryStore::new()), creator("alice"));
    let (id, owner, no_time) =
        (TokenId::generate().unwrap(), OwnerId::new("alice").unwrap(), std::time::Duration::ZERO);
    are_send(&[
        &desk.policy(),
        &desk.issue(&actor, wish("alice", "laptop")),
        &desk.ensure(&actor, wish("alice", "laptop")),
        &desk.revoke(&actor, &id),
        &desk.pause(&actor, &id),
        &desk.resume(&actor, &id),
        &desk.expire_at(&actor, &id, UNIX),
        &desk.narrow(&actor, &id),
        &desk.rename(&actor, &id, "desktop"),
        &desk.rotate(&actor, &id, no_time),
        &desk.revoke_matching(&actor, TokenFilter::all()),
        &desk.change_policy(&actor, IssuePolicy::default()),
        &desk.bar_owner(&actor, &owner),
        &desk.lift_owner(&actor, &owner),
        &desk.prune(&actor, no_time),
        &desk.find(&actor, &id),
        &desk.list(&actor, TokenFilter::all(), None),
        &desk.expiring(&actor, no_time, None),
        &desk.unused(&actor, no_time, None),
        &desk.only_reading(&actor, None),
    ]);
}
