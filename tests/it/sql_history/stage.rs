//! A gate and a desk that make events.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::ready;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{
    Actor, AuditError, AuditEvent, AuditSink, IssuePolicy, MemoryStore, NewToken, Permissions, PlaintextToken, Scope,
    Sha256Hasher, SharedPolicy, TokenAuthLayer, TokenId, TokenIssuer,
};

use crate::cache_rules::bench::forge;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<AuditEvent<'static>>>>);

impl AuditSink for Kept {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(event.clone().into_owned());
        Ok(())
    }
}

pub(super) struct Stage {
    pub(super) clock: ManualClock,
    auth: TokenAuthLayer,
    desk: TokenIssuer,
    kept: Kept,
}

impl Stage {
    pub(super) fn new() -> Self {
        let (clock, kept, store) = (ManualClock::default(), Kept::default(), MemoryStore::new());
        let policy = SharedPolicy::new(IssuePolicy::default());
        let auth = TokenAuthLayer::builder(store.clone())
            .clock(clock.clone())
            .hasher(Sha256Hasher::new())
            .audit(kept.clone())
            .policy_at_use(policy.clone())
            .client_address(|_| Some(IpAddr::V4(Ipv4Addr::LOCALHOST)))
            .route(|head| Some(format!("{{{}}}", head.uri.path())))
            .request_id(|head| head.headers.get("x-request-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into()))
            .build()
            .unwrap();
        let desk = auth.issuer(store, policy);
        Self { clock, auth, desk, kept }
    }

    /// What happened since this was asked last.
    pub(super) fn events(&self) -> Vec<AuditEvent<'static>> {
        std::mem::take(&mut *self.kept.0.lock().unwrap())
    }

    pub(super) async fn token(&self, owner: &str, scope: Scope) -> PlaintextToken {
        let issued = self.desk.issue(&Actor::system("stage"), NewToken::new(owner, "export", scope)).await;
        issued.unwrap().into_plaintext()
    }

    /// One request, a second after the last.
    pub(super) async fn send(&self, method: Method, text: Option<&str>, agent: Option<&[u8]>) -> u16 {
        self.clock.advance(Duration::from_secs(1));
        let inner =
            service_fn(|_: Request<Body>| ready(Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))));
        let mut request = Request::builder().method(method).uri("/issues/e%20?q=1");
        if let Some(text) = text {
            request = request.header(AUTHORIZATION, format!("Bearer {text}")).header("x-request-id", text.len());
        }
        if let Some(agent) = agent {
            request = request.header(USER_AGENT, agent);
        }
        let request = request.body(Body::empty()).unwrap();
        self.auth.layer(inner).oneshot(request).await.unwrap().status().as_u16()
    }

    pub(super) async fn read(&self, token: &PlaintextToken, agent: &str) {
        assert_eq!(self.send(Method::GET, Some(token.expose()), Some(agent.as_bytes())).await, 200);
    }

    pub(super) async fn guess(&self, id: &TokenId) {
        let stranger = PlaintextToken::generate(&Default::default()).unwrap();
        assert_eq!(self.send(Method::GET, Some(&forge(id, &stranger)), Some(b"evil/1")).await, 401);
    }

    /// Something of everything: oldest first, a second or more apart where it is of the gate.
    pub(super) async fn story(&self) -> Vec<AuditEvent<'static>> {
        let root = Actor::user("root", Permissions::none().and_create().and_on_behalf().and_administer());
        let alice = Actor::user("alice", Permissions::none().and_create());
        let (reading, writing) =
            (self.token("alice", Scope::ReadOnly).await, self.token("bob", Scope::ReadWrite).await);
        self.read(&reading, "export/1").await;
        assert_eq!(self.send(Method::POST, Some(reading.expose()), None).await, 403);
        let hostile = b"\"\\ '; -- \xff\xe2\x80\xae end";
        assert_eq!(self.send(Method::POST, Some(writing.expose()), Some(hostile)).await, 200);
        self.guess(&reading.id()).await;
        assert_eq!(self.send(Method::GET, None, Some(b"crawler")).await, 401);
        assert_eq!(self.send(Method::GET, Some("tta_mistyped"), None).await, 401);
        let rotated = self.desk.rotate(&root, &writing.id(), DAY).await.unwrap();
        self.read(rotated.plaintext(), "new/1").await;
        self.read(&writing, "old/1").await;
        let policy = IssuePolicy::default().max_lifetime(Some(90 * DAY)).rule("friday", |_| Err("not on a Friday"));
        self.desk.change_policy(&root, policy).await.unwrap();
        let wish = || NewToken::new("alice", "late", Scope::ReadOnly);
        self.desk.issue(&alice, wish()).await.unwrap_err();
        let until = self.clock_in(10);
        self.desk.issue(&alice, wish().expires_at(until)).await.unwrap_err();
        self.desk.issue(&Actor::user("eve", Permissions::none()), wish()).await.unwrap_err();
        let importer = NewToken::new("carol", "importer", Scope::ReadWrite).expires_at(until);
        let carol = Actor::user("carol", Permissions::none().and_create());
        self.desk.change_policy(&root, IssuePolicy::default()).await.unwrap();
        let narrowed = self.desk.issue(&carol, importer).await.unwrap().into_plaintext();
        self.desk
            .change_policy(&root, IssuePolicy::default().force_read_only(true).max_live_tokens(Some(1)))
            .await
            .unwrap();
        assert_eq!(self.send(Method::POST, Some(rotated.plaintext().expose()), None).await, 200, "made on behalf");
        assert_eq!(self.send(Method::POST, Some(narrowed.expose()), None).await, 403, "not made on behalf");
        self.desk.issue(&alice, wish()).await.unwrap_err();
        self.desk.rename(&root, &reading.id(), "renamed").await.unwrap();
        self.desk.expire_at(&root, &reading.id(), until).await.unwrap();
        self.read(&reading, "export/2").await;
        self.desk.bar_owner(&root, &"alice".parse().unwrap()).await.unwrap();
        assert_eq!(self.send(Method::GET, Some(reading.expose()), None).await, 401);
        self.desk.issue(&root, wish()).await.unwrap_err();
        self.desk.revoke(&root, &writing.id()).await.unwrap();
        self.events()
    }

    fn clock_in(&self, days: u32) -> tower_token_auth::Timestamp {
        use tower_token_auth::Clock;
        self.clock.wall() + DAY * days
    }
}
