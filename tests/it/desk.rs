//! The desk and its gate: what is issued works at once, what is revoked is refused by the next request.

use std::time::Duration;

use tower_token_auth::test_util::{ManualClock, RecordingSink, ScriptedStore};
use tower_token_auth::{
    Actor, Clock, Ensured, IssuePolicy, IssuedToken, MemoryStore, NewToken, NoAudit, Permissions, Scope,
    TokenAuthLayer, TokenFilter, TokenIssuer, TokenRegistry, TokenState,
};

use crate::cache_rules::bench::{Bench, status};

const HOUR: Duration = Duration::from_secs(3600);

fn system() -> Actor {
    Actor::system("test")
}

fn new_token(label: &str) -> NewToken {
    NewToken::new("alice", label, Scope::ReadOnly)
}

impl Bench {
    fn desk(&self) -> TokenIssuer {
        self.auth.issuer(self.store.clone(), IssuePolicy::default())
    }
}

#[tokio::test]
async fn an_issued_token_works_at_once() {
    let bench = Bench::new();
    let issued = bench.desk().issue(&system(), new_token("first")).await.unwrap();
    assert_eq!(issued.summary().id, issued.plaintext().id());
    assert_eq!(bench.status(issued.plaintext()).await, 200);
    assert_eq!(bench.status(&bench.stranger()).await, 401, "one that nobody issued");
}

#[tokio::test]
async fn a_full_memory_of_unknown_ids_does_not_hide_an_issued_token() {
    let bench = Bench::new();
    for _ in 0..100 {
        assert_eq!(bench.status(&bench.stranger()).await, 401);
    }
    let issued = bench.desk().issue(&system(), new_token("first")).await.unwrap();
    assert_eq!(bench.status(issued.plaintext()).await, 200);
}

#[tokio::test]
async fn the_record_is_what_was_asked_for() {
    let bench = Bench::new();
    let issued = bench.desk().issue(&system(), new_token("laptop").expires_in(HOUR)).await.unwrap();
    let record = bench.record(issued.plaintext()).await;
    assert_eq!((record.owner().as_str(), record.label().as_str()), ("alice", "laptop"));
    assert_eq!((record.scope(), record.state()), (Scope::ReadOnly, TokenState::Active));
    assert_eq!(record.expires_at(), Some(bench.clock.wall() + HOUR));
    assert_eq!(record.created_at(), bench.clock.wall());
    assert_eq!(record.created_by().to_string(), "system:test");
    assert!(record.secret().to_text().starts_with("$tta$"), "it carries a precheck");
    assert_eq!(bench.status(issued.plaintext()).await, 200);
    bench.clock.advance(HOUR);
    assert_eq!(bench.status(issued.plaintext()).await, 401);
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_the_next_request() {
    let bench = Bench::new();
    let desk = bench.desk();
    let (revoked, kept) = (issue(&desk, "revoked").await, issue(&desk, "kept").await);
    for token in [&revoked, &kept] {
        assert_eq!(bench.status(token.plaintext()).await, 200);
    }
    desk.revoke(&system(), &revoked.plaintext().id()).await.unwrap();
    assert_eq!(bench.status(revoked.plaintext()).await, 401);
    bench.assert_last("refused revoked");
    assert_eq!(bench.status(kept.plaintext()).await, 200);
}

async fn issue(desk: &TokenIssuer, label: &str) -> IssuedToken {
    desk.issue(&system(), new_token(label)).await.unwrap()
}

#[tokio::test]
async fn a_revoked_token_is_refused_while_a_lagging_look_up_is_in_flight() {
    let bench = Bench::new();
    let desk = bench.desk();
    let issued = issue(&desk, "revoked").await;
    assert_eq!(bench.status(issued.plaintext()).await, 200);
    bench.clock.advance(Duration::from_secs(30));
    bench.store.hold();
    let mut waiting = Box::pin(bench.status(issued.plaintext()));
    assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none(), "the look-up waits");
    // The desk's own look-up is not the gate's: it must not wait behind it.
    bench.store.work();
    desk.revoke(&system(), &issued.plaintext().id()).await.unwrap();
    bench.store.release();
    assert_eq!(waiting.await, 401);
    assert_eq!(bench.status(issued.plaintext()).await, 401);
}

#[tokio::test]
async fn revoking_twice_changes_nothing() {
    let bench = Bench::new();
    let desk = bench.desk();
    let issued = issue(&desk, "revoked").await;
    for _ in 0..2 {
        desk.revoke(&system(), &issued.plaintext().id()).await.unwrap();
        assert_eq!(bench.record(issued.plaintext()).await.state(), TokenState::Revoked);
        assert_eq!(bench.status(issued.plaintext()).await, 401);
    }
}

#[tokio::test]
async fn an_unknown_token_cannot_be_revoked() {
    let bench = Bench::new();
    assert!(bench.desk().revoke(&system(), &bench.stranger().id()).await.is_err());
}

#[tokio::test]
async fn ensuring_twice_makes_one_token() {
    let bench = Bench::new();
    let desk = bench.desk();
    let Ensured::Created(issued) = desk.ensure(&system(), new_token("bootstrap")).await.unwrap() else {
        panic!("nothing exists yet");
    };
    assert_eq!(bench.status(issued.plaintext()).await, 200);
    let Ensured::Exists(summary) = desk.ensure(&system(), new_token("bootstrap")).await.unwrap() else {
        panic!("it exists already");
    };
    assert_eq!(summary.id, issued.plaintext().id());
    assert_eq!(bench.store.list(&TokenFilter::all(), None).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn a_token_that_was_unknown_works_once_it_is_issued() {
    // The id of an ensured token follows from its owner and label, so another deployment has it before this one.
    let (ours, theirs) = (Bench::new(), Bench::new());
    let Ensured::Created(elsewhere) = theirs.desk().ensure(&system(), new_token("bootstrap")).await.unwrap() else {
        panic!("nothing exists yet");
    };
    assert_eq!(ours.status(elsewhere.plaintext()).await, 401);
    ours.assert_last("refused unknown");
    let Ensured::Created(issued) = ours.desk().ensure(&system(), new_token("bootstrap")).await.unwrap() else {
        panic!("nothing exists yet");
    };
    assert_eq!(issued.plaintext().id(), elsewhere.plaintext().id());
    assert_eq!(ours.status(issued.plaintext()).await, 200);
    assert_eq!(ours.status(elsewhere.plaintext()).await, 401, "the other deployment's secret");
}

#[tokio::test]
async fn ensuring_another_token_makes_one_and_a_revoked_one_stays_revoked() {
    let bench = Bench::new();
    let desk = bench.desk();
    let Ensured::Created(first) = desk.ensure(&system(), new_token("bootstrap")).await.unwrap() else {
        panic!("nothing exists yet");
    };
    assert!(matches!(desk.ensure(&system(), new_token("another")).await.unwrap(), Ensured::Created(_)));
    desk.revoke(&system(), &first.plaintext().id()).await.unwrap();
    assert!(matches!(desk.ensure(&system(), new_token("bootstrap")).await.unwrap(), Ensured::Exists(_)));
    assert_eq!(bench.status(first.plaintext()).await, 401);
}

#[tokio::test]
async fn a_refused_issue_stores_nothing() {
    let bench = Bench::new();
    let desk = bench.desk();
    let nobody = Actor::user("alice", Permissions::none());
    assert!(desk.issue(&nobody, new_token("first")).await.is_err());
    assert!(bench.store.list(&TokenFilter::all(), None).await.unwrap().records.is_empty());
    let creator = Actor::user("alice", Permissions::none().and_create());
    let issued = desk.issue(&creator, new_token("first")).await.unwrap();
    assert_eq!(bench.status(issued.plaintext()).await, 200);
}

#[tokio::test]
async fn a_token_issued_without_a_gate_works_at_one() {
    let store = ScriptedStore::new(MemoryStore::new());
    let desk = TokenIssuer::builder(store.clone(), IssuePolicy::default()).build().unwrap();
    let issued = desk.issue(&system(), new_token("offline")).await.unwrap();
    let auth = TokenAuthLayer::builder(store.clone()).audit(NoAudit::new()).build().unwrap();
    for _cold_then_hot in 0..2 {
        assert_eq!(status(&auth, issued.plaintext().expose()).await, 200);
    }
    assert_eq!(store.finds(), 1);
}

#[tokio::test]
async fn the_defaults_work_end_to_end() {
    let (store, sink) = (MemoryStore::new(), RecordingSink::new());
    let auth = TokenAuthLayer::builder(store.clone()).audit(sink.clone()).build().unwrap();
    let desk = auth.issuer(store.clone(), IssuePolicy::default());
    let issued = desk.issue(&system(), NewToken::new("ops", "first token", Scope::ReadWrite)).await.unwrap();
    let text = issued.plaintext().expose();
    assert!(text.starts_with("tta_"), "the default prefix");
    let page = store.list(&TokenFilter::all(), None).await.unwrap();
    assert_eq!(page.records[0].secret().scheme(), "argon2id");
    for _cold_then_hot in 0..2 {
        assert_eq!(status(&auth, text).await, 200);
    }
    desk.revoke(&system(), &issued.plaintext().id()).await.unwrap();
    assert_eq!(status(&auth, text).await, 401);
    let outcomes: Vec<_> = sink.events().iter().map(|event| (event.action.as_str(), event.outcome.as_str())).collect();
    assert_eq!(
        outcomes,
        [
            ("issue", "allowed"),
            ("authenticate", "allowed"),
            ("authenticate", "allowed"),
            ("revoke", "allowed"),
            ("authenticate", "refused"),
        ]
    );
}

#[tokio::test]
async fn a_desk_goes_by_its_gates_clock() {
    let clock = ManualClock::default();
    clock.advance(HOUR);
    let bench = Bench::with(|builder| builder.clock(clock.clone()));
    let issued = bench.desk().issue(&system(), new_token("first")).await.unwrap();
    assert_eq!(bench.record(issued.plaintext()).await.created_at(), clock.wall());
}
