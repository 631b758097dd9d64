//! The desk against a store that can fail, a policy that changes and a sink that remembers.

use std::sync::atomic::{AtomicBool, Ordering};
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
        self.0.lock().unwrap().push(format!("{action} {outcome} {reason} {}", event.actor().unwrap()));
        Ok(())
    }
}

impl Sink {
    #[track_caller]
    fn assert_told(&self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut *self.0.lock().unwrap()), expected);
    }
}

/// Changes records as asked and, where told so, answers all the same that it failed.
#[derive(Clone, Default)]
struct Lossy(MemoryStore, Arc<AtomicBool>);

impl TokenStore for Lossy {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.0.find(id).await
    }
}

impl TokenRegistry for Lossy {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        self.0.insert(record).await
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        let updated = self.0.update(id, expected, change).await;
        if self.1.load(Ordering::SeqCst) { Err(StoreError::new("the connection broke").into()) } else { updated }
    }

    /// Overlooks the filter.
    async fn list(&self, _: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        self.0.list(&TokenFilter::all(), cursor).await
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

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        self.0.prune(time).await
    }
}

struct Untold;

impl PolicyProvider for Untold {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Err(StoreError::new("connection refused"))
    }
}

fn builder(store: &MemoryStore, policy: impl PolicyProvider + 'static, sink: &Sink) -> TokenIssuerBuilder {
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
        assert!(matches!(desk.revoke(&creator("bob"), &absent).await, Err(RevokeError::NotFound)));
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
    let policy = move || IssuePolicy::default().force_read_only(switched.load(Ordering::SeqCst));
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

/// A desk and its gate over one store.
fn desk_with_gate(store: &Lossy) -> (TokenIssuer, Authenticator) {
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
        policy: Arc::new(IssuePolicy::default()),
        prefix: Prefix::default(),
        hasher,
        crew: Crew::for_limits(&limits),
        limits,
        clock,
        recorder: Recorder::new(Arc::new(Sink::default())),
        on_audit_failure: OnAuditFailure::Continue,
        gate: Some(gate.clone()),
    });
    (desk, gate)
}

#[tokio::test]
async fn a_gate_asks_again_after_a_revocation_that_may_have_happened() {
    let store = Lossy::default();
    let (desk, gate) = desk_with_gate(&store);
    let issued = desk.issue(&creator("alice"), wish("alice", "laptop")).await.unwrap();
    let (id, secret) = (issued.plaintext().id(), issued.plaintext().secret());
    let attempt = async || match gate.authenticate(ParsedToken { id, secret: secret.clone() }) {
        Attempt::Decided(verdict) => verdict,
        Attempt::Pending(verdict) => verdict.await,
    };
    assert!(attempt().await.is_ok());
    store.1.store(true, Ordering::SeqCst);
    assert!(matches!(desk.revoke(&creator("alice"), &id).await, Err(RevokeError::Store(_))));
    assert_eq!(attempt().await.unwrap_err(), Reason::Revoked);
}
