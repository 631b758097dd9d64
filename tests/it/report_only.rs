//! Report-only: what a scope or a policy forbids goes on, and is on record; nothing else does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token_auth::test_util::RecordingSink;
use tower_token_auth::{
    Access, AuthenticatedToken, BuildError, IssuePolicy, MemoryStore, OnAuditFailure, PlaintextToken, Scope,
    TokenAuthBuilder, TokenAuthLayer, TokenRegistry, TokenState,
};
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::cache_rules::bench::{Bench, bearer, forge};

type Configure = fn(TokenAuthBuilder) -> TokenAuthBuilder;

fn switched(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    builder.policy_at_use(IssuePolicy::default().force_read_only(true))
}

fn plain(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    switched(builder)
}

fn scope(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    switched(builder).insecure_report_only_scope()
}

fn policy(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    switched(builder).insecure_report_only_policy()
}

fn all(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    policy(builder).insecure_report_only_scope()
}

/// What one request comes to: its status, whether the inner service ran, and its events.
async fn send(bench: &Bench, request: Request<Body>) -> (u16, bool, Vec<String>) {
    let ran = Arc::new(AtomicUsize::new(0));
    let service = bench.auth.layer(counting(&ran));
    told(bench, service, request, &ran).await
}

fn counting(
    ran: &Arc<AtomicUsize>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone {
    let ran = Arc::clone(ran);
    service_fn(move |_: Request<Body>| {
        ran.fetch_add(1, Ordering::SeqCst);
        async { Ok(Response::new(Body::empty())) }
    })
}

async fn told<R>(
    bench: &Bench,
    service: impl Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    request: Request<Body>,
    ran: &AtomicUsize,
) -> (u16, bool, Vec<String>) {
    bench.sink.take();
    let status = service.oneshot(request).await.unwrap().status().as_u16();
    (status, ran.load(Ordering::SeqCst) > 0, bench.outcomes())
}

fn write(token: &PlaintextToken) -> Request<Body> {
    let mut request = bearer(token);
    *request.method_mut() = Method::POST;
    request
}

fn allowed() -> (u16, bool, Vec<String>) {
    (200, true, vec!["allowed".to_owned()])
}

fn reported(reason: &str) -> (u16, bool, Vec<String>) {
    (200, true, vec![format!("would_forbid {reason}")])
}

fn refused(reason: &str) -> (u16, bool, Vec<String>) {
    (403, false, vec![format!("refused {reason}")])
}

#[tokio::test]
async fn what_would_be_forbidden_goes_on_and_is_told_once() {
    let answer = |is_reported, reason| if is_reported { reported(reason) } else { refused(reason) };
    for (configure, by_scope, by_policy) in
        [(plain as Configure, false, false), (scope, true, false), (policy, false, true), (all, true, true)]
    {
        let bench = Bench::with(configure);
        let (read_only, limited) = (bench.token(Scope::ReadOnly).await, bench.token(Scope::ReadWrite).await);
        for _cold_then_hot in 0..2 {
            assert_eq!(send(&bench, write(&read_only)).await, answer(by_scope, "forbidden"));
            assert_eq!(send(&bench, write(&limited)).await, answer(by_policy, "policy"));
            assert_eq!(send(&bench, bearer(&read_only)).await, allowed());
            assert_eq!(send(&bench, bearer(&limited)).await, allowed());
        }
    }
}

#[tokio::test]
async fn an_event_of_what_would_be_forbidden_is_about_a_proved_token() {
    let bench = Bench::with(all);
    let token = bench.token(Scope::ReadOnly).await;
    send(&bench, write(&token)).await;
    let event = bench.sink.take().pop().unwrap();
    assert_eq!((event.token_id, event.claimed_id), (Some(token.id()), None));
    assert_eq!((event.scope, event.access), (Some(Scope::ReadOnly), Some(Access::Write)));
}

#[tokio::test]
async fn upgrades_and_overrides_are_reported_as_writes_are() {
    let bench = Bench::with(all);
    let token = bench.hot(Scope::ReadOnly).await;
    for (name, value) in [("upgrade", "websocket"), ("x-http-method", "PUT")] {
        let mut request = bearer(&token);
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        assert_eq!(send(&bench, request).await, reported("forbidden"), "{name}");
    }
}

#[tokio::test]
async fn nothing_but_scope_and_policy_is_only_reported() {
    let bench = Bench::with(all);
    let live = bench.token(Scope::ReadWrite).await;
    let text = live.expose();
    for (reason, status, request) in [
        ("missing", 401, Request::post("/").body(Body::empty()).unwrap()),
        ("malformed", 400, presenting(&format!("Bearer {text} {text}"))),
        ("bad_format", 401, presenting("Bearer somebody.elses.token")),
        ("unknown", 401, write(&bench.stranger())),
        ("mismatch", 401, presenting(&format!("Bearer {}", forge(&live.id(), &bench.stranger())))),
        ("paused", 401, write(&in_state(&bench, TokenState::Paused).await)),
        ("revoked", 401, write(&in_state(&bench, TokenState::Revoked).await)),
        ("expired", 401, write(&expired(&bench).await)),
    ] {
        let refused = (status, false, vec![format!("refused {reason}")]);
        assert_eq!(send(&bench, request).await, refused, "{reason}");
    }
    let owner = bench.record(&live).await.owner().clone();
    bench.store.bar_owner(&owner).await.unwrap();
    bench.auth.handle().invalidate_owner(&owner);
    assert_eq!(send(&bench, write(&live)).await, (401, false, vec!["refused owner_barred".to_owned()]));
    bench.store.fail();
    bench.auth.handle().invalidate_all();
    assert_eq!(send(&bench, write(&live)).await, (503, false, vec!["unavailable store_failed".to_owned()]));
}

fn presenting(credentials: &str) -> Request<Body> {
    Request::post("/").header(AUTHORIZATION, credentials).body(Body::empty()).unwrap()
}

async fn in_state(bench: &Bench, state: TokenState) -> PlaintextToken {
    let (token, record) = bench.draft(Scope::ReadWrite);
    bench.store.insert(record.with_state(state)).await.unwrap();
    token
}

async fn expired(bench: &Bench) -> PlaintextToken {
    let (token, record) = bench.draft(Scope::ReadWrite);
    let end = record.created_at();
    bench.store.insert(record.with_expiry(Some(end))).await.unwrap();
    bench.clock.advance(Duration::from_secs(1));
    token
}

#[tokio::test]
async fn what_is_only_reported_has_to_be_on_record_where_that_is_required() {
    for (on_failure, status, ran) in [(OnAuditFailure::Continue, 200, true), (OnAuditFailure::Refuse, 503, false)] {
        for order in [RecordingSink::fail_all, RecordingSink::panic_all] {
            let bench = Bench::with(|builder| all(builder).on_audit_failure(on_failure));
            let token = bench.token(Scope::ReadOnly).await;
            order(&bench.sink, true);
            for _cold_then_hot in 0..2 {
                assert_eq!(send(&bench, write(&token)).await, (status, ran, vec![]), "{on_failure:?}");
            }
            order(&bench.sink, false);
            assert_eq!(send(&bench, write(&token)).await, reported("forbidden"), "it recovers");
        }
    }
}

#[tokio::test]
async fn a_handler_is_told_what_the_token_permits() {
    let bench = Bench::with(all);
    let token = bench.token(Scope::ReadWrite).await;
    let inner = service_fn(|request: Request<Body>| async move {
        let token = request.extensions().get::<AuthenticatedToken>().unwrap();
        let status = if token.permits(Access::Write) { 200 } else { 409 };
        Ok::<_, Infallible>(Response::builder().status(status).body(Body::empty()).unwrap())
    });
    let response = bench.auth.layer(inner).oneshot(write(&token)).await.unwrap();
    assert_eq!(response.status(), 409, "it is only reported, and not permitted");
}

/// A request through an outer layer and a route's own, of the same gate.
async fn met_twice(bench: &Bench, inner: &TokenAuthLayer, request: Request<Body>) -> (u16, bool, Vec<String>) {
    let ran = Arc::new(AtomicUsize::new(0));
    let service = bench.auth.layer(inner.layer(counting(&ran)));
    told(bench, service, request, &ran).await
}

#[tokio::test]
async fn a_gate_met_twice_tells_it_once() {
    let bench = Bench::with(all);
    let token = bench.hot(Scope::ReadOnly).await;
    let writes = bench.auth.requiring(Access::Write);
    assert_eq!(met_twice(&bench, &bench.auth, write(&token)).await, reported("forbidden"));
    assert_eq!(met_twice(&bench, &writes, write(&token)).await, reported("forbidden"));
    let tightened = (200, true, vec!["allowed".to_owned(), "would_forbid forbidden".to_owned()]);
    assert_eq!(met_twice(&bench, &writes, bearer(&token)).await, tightened, "where the inner one only objects");
    assert_eq!(met_twice(&bench, &bench.auth, bearer(&token)).await, allowed());
}

/// Takes events as long as they say that a request was allowed.
#[derive(Clone, Default)]
struct OnlyAllowed(RecordingSink);

impl tower_token_auth::AuditSink for OnlyAllowed {
    fn record(&self, event: &tower_token_auth::AuditEvent<'_>) -> Result<(), tower_token_auth::AuditError> {
        match event.outcome() {
            tower_token_auth::Outcome::Allowed => self.0.record(event),
            _ => Err(tower_token_auth::AuditError::new("told to fail")),
        }
    }
}

#[tokio::test]
async fn an_inner_layers_report_has_to_be_on_record_too() {
    for (on_failure, status) in [(OnAuditFailure::Continue, 200), (OnAuditFailure::Refuse, 503)] {
        let bench = Bench::with(|builder| all(builder).audit(OnlyAllowed::default()).on_audit_failure(on_failure));
        let token = bench.hot(Scope::ReadOnly).await;
        let (found, ran, _) = met_twice(&bench, &bench.auth.requiring(Access::Write), bearer(&token)).await;
        assert_eq!((found, ran), (status, status == 200), "{on_failure:?}");
        let (found, ran, _) = met_twice(&bench, &bench.auth, bearer(&token)).await;
        assert_eq!((found, ran), (200, true), "the twin");
    }
}

#[test]
fn a_policy_that_is_not_applied_cannot_be_reported() {
    let builder = || TokenAuthLayer::builder(MemoryStore::new());
    let error = builder().insecure_report_only_policy().build().unwrap_err();
    assert!(matches!(error, BuildError::NoPolicyAtUse));
    assert!(error.to_string().contains("set policy_at_use"), "{error}");
    assert!(policy(builder()).build().is_ok(), "the twin");
}

/// The warnings that were logged: what is only reported.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0.remove("report_only").unwrap_or_default());
        }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

#[test]
fn building_says_once_what_is_only_reported() {
    for (configure, expected) in
        [(plain as Configure, None), (scope, Some("scope")), (policy, Some("policy")), (all, Some("scope, policy"))]
    {
        let warnings = Warnings::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(warnings.clone()), || {
            let auth = configure(TokenAuthLayer::builder(MemoryStore::new())).build().unwrap();
            drop(auth.clone());
        });
        let warned = warnings.0.lock().unwrap().clone();
        assert_eq!(warned.iter().map(String::as_str).collect::<Vec<_>>(), Vec::from_iter(expected));
    }
}
