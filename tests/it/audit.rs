//! The audit trail: one event per decision, true in every field, and what happens when it cannot be kept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::{RecordedEvent, RecordingSink};
use tower_token_auth::{
    Access, Action, AuditEvent, AuditSink, Clock, FanOut, NoAudit, OnAuditFailure, OnMissing, Outcome, PlaintextToken,
    Reason, Scope, TokenAuthBuilder, TracingSink,
};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::cache_rules::bench::{Bench, bearer, forge};

const OUTCOMES: [Outcome; 4] = [Outcome::Allowed, Outcome::Passed, Outcome::Refused, Outcome::Unavailable];

impl Bench {
    /// The answer's status, and how often the inner service ran for it.
    async fn send(&self, request: Request<Body>) -> (u16, usize) {
        let calls = AtomicUsize::new(0);
        let inner = service_fn(|_: Request<Body>| {
            calls.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        let status = self.auth.layer(inner).oneshot(request).await.unwrap().status().as_u16();
        (status, calls.load(Ordering::Relaxed))
    }

    /// The one event of a request with the expected answer.
    async fn event(&self, request: Request<Body>, expected: u16) -> RecordedEvent {
        self.sink.take();
        assert_eq!(self.send(request).await.0, expected);
        let mut events = self.sink.take();
        assert_eq!(events.len(), 1, "one decision, one event");
        events.remove(0)
    }
}

fn with_authorization(text: &str) -> Request<Body> {
    Request::get("/").header(AUTHORIZATION, text).body(Body::empty()).unwrap()
}

fn anonymous() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

fn at(token: &PlaintextToken, path: &str) -> Request<Body> {
    let mut request = bearer(token);
    *request.uri_mut() = path.parse().unwrap();
    request
}

fn with_header(token: &PlaintextToken, name: &'static str, value: &[u8]) -> Request<Body> {
    let mut request = bearer(token);
    request.headers_mut().insert(name, HeaderValue::from_bytes(value).unwrap());
    request
}

fn assert_proves_nothing(event: &RecordedEvent) {
    assert_eq!((event.token_id, event.scope), (None, None));
    assert_eq!((&event.owner, &event.label, &event.actor), (&None, &None, &None));
}

#[tokio::test]
async fn an_admitted_request_says_who_did_what() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadWrite).await;
    let record = bench.record(&token).await;
    for _ in ["cold", "hot"] {
        let mut request = at(&token, "/issues/7?token=secret");
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("curl/8"));
        let event = bench.event(request, 200).await;
        assert_eq!((event.action, event.outcome, event.reason), (Action::Authenticate, Outcome::Allowed, None));
        assert_eq!((event.token_id, event.claimed_id), (Some(token.id()), None));
        assert_eq!(event.owner.as_deref(), Some("alice"));
        assert_eq!(event.label.as_deref(), Some(record.label().as_str()));
        assert_eq!((event.scope, event.access), (Some(Scope::ReadWrite), Some(Access::Write)));
        assert_eq!((event.method.as_deref(), event.path.as_deref()), (Some("POST"), Some("/issues/7")));
        assert_eq!(event.user_agent.as_deref(), Some("curl/8"));
        assert_eq!((event.at, event.actor), (bench.clock.wall(), None));
    }
}

#[tokio::test]
async fn a_forbidden_request_is_about_a_proved_token() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let mut request = bearer(&token);
    *request.method_mut() = Method::DELETE;
    let event = bench.event(request, 403).await;
    assert_eq!((event.outcome, event.reason), (Outcome::Refused, Some(Reason::Forbidden)));
    assert_eq!((event.token_id, event.claimed_id), (Some(token.id()), None));
    assert_eq!((event.owner.as_deref(), event.access), (Some("alice"), Some(Access::Write)));
}

#[tokio::test]
async fn a_wrong_secret_claims_an_id_and_proves_none() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let forged = forge(&token.id(), &bench.stranger());
    let event = bench.event(with_authorization(&format!("Bearer {forged}")), 401).await;
    assert_eq!((event.outcome, event.reason), (Outcome::Refused, Some(Reason::Mismatch)));
    assert_eq!(event.claimed_id, Some(token.id()));
    assert_proves_nothing(&event);
}

#[tokio::test]
async fn an_undecided_request_claims_an_id_and_proves_none() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    bench.store.fail();
    let event = bench.event(bearer(&token), 503).await;
    assert!(matches!(event.reason, Some(Reason::Unavailable(_))));
    assert_eq!((event.outcome, event.claimed_id), (Outcome::Unavailable, Some(token.id())));
    assert_proves_nothing(&event);
}

#[tokio::test]
async fn requests_without_a_token_are_about_nobody() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let text = token.expose();
    for (request, expected, reason) in [
        (anonymous(), 401, Reason::Missing),
        (with_authorization(&format!("Basic {text}")), 401, Reason::Missing),
        (with_authorization(&format!("Bearer {text} {text}")), 400, Reason::Malformed),
        (with_authorization(&format!("Bearer {text}0")), 401, Reason::BadFormat),
    ] {
        let event = bench.event(request, expected).await;
        assert_eq!((event.outcome, event.reason), (Outcome::Refused, Some(reason)));
        assert_eq!(event.claimed_id, None);
        assert_proves_nothing(&event);
    }
}

#[tokio::test]
async fn a_hostile_user_agent_is_cleaned_and_capped() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let hostile = "a\tb\u{202e}c\u{9b}d".as_bytes();
    let event = bench.event(with_header(&token, "user-agent", hostile), 200).await;
    assert_eq!(event.user_agent.as_deref(), Some("a\u{fffd}b\u{fffd}c\u{fffd}d"));
    let event = bench.event(with_header(&token, "user-agent", b"a\xff"), 200).await;
    assert_eq!(event.user_agent.as_deref(), Some("a\u{fffd}"));
    for long in ["a".repeat(5000), "\u{202e}".repeat(2000)] {
        let event = bench.event(with_header(&token, "user-agent", long.as_bytes()), 200).await;
        let told = event.user_agent.unwrap();
        assert!(told.len() <= AuditEvent::MAX_USER_AGENT_LEN && told.ends_with('…'), "{told}");
    }
}

#[tokio::test]
async fn a_hostile_path_is_cleaned_and_capped() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let event = bench.event(at(&token, "/a\u{202e}b"), 200).await;
    assert_eq!(event.path.as_deref(), Some("/a\u{fffd}b"));
    let event = bench.event(at(&token, &format!("/{}", "a".repeat(5000))), 200).await;
    let told = event.path.unwrap();
    assert!(told.len() <= AuditEvent::MAX_PATH_LEN && told.ends_with("a…"), "{told}");
}

#[tokio::test]
async fn only_the_application_tells_address_route_and_request_id() {
    let spoofed = |token: &PlaintextToken| {
        let mut request = with_header(token, "x-forwarded-for", b"203.0.113.9");
        for (name, value) in [("forwarded", "for=203.0.113.9"), ("x-real-ip", "203.0.113.9"), ("x-request-id", "7")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request
    };
    let silent = Bench::new();
    let token = silent.token(Scope::ReadOnly).await;
    let event = silent.event(spoofed(&token), 200).await;
    assert_eq!((event.client_address, event.route, event.request_id), (None, None, None));

    let told = Bench::with(|builder| {
        builder
            .client_address(|_| Some(IpAddr::V4(Ipv4Addr::LOCALHOST)))
            .route(|head| Some(format!("{}\u{202e}", head.uri.path())))
            .request_id(|head| Some(head.headers.get("x-request-id")?.to_str().ok()?.repeat(5000)))
    });
    let token = told.token(Scope::ReadOnly).await;
    let event = told.event(spoofed(&token), 200).await;
    assert_eq!(event.client_address, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(event.route.as_deref(), Some("/\u{fffd}"));
    let id = event.request_id.unwrap();
    assert!(id.starts_with("777") && id.len() <= AuditEvent::MAX_REQUEST_ID_LEN, "{id}");
}

#[tokio::test]
async fn a_closure_that_panics_has_nothing_to_say() {
    let bench = Bench::with(|builder| {
        builder
            .client_address(|_| panic!("as told"))
            .route(|_| Some("/".to_owned()))
            .on_audit_failure(OnAuditFailure::Refuse)
    });
    let token = bench.token(Scope::ReadOnly).await;
    for _ in ["cold", "hot"] {
        let event = bench.event(bearer(&token), 200).await;
        assert_eq!((event.client_address, event.route.as_deref()), (None, Some("/")));
    }
}

/// With a sink that fails and one that panics: what an admitted request comes to, cold and hot, and a refused one.
async fn assert_failing(configure: fn(TokenAuthBuilder) -> TokenAuthBuilder, admitted: (u16, usize)) {
    for order in [RecordingSink::fail_all, RecordingSink::panic_all] {
        let bench = Bench::with(configure);
        let token = bench.token(Scope::ReadOnly).await;
        order(&bench.sink, true);
        for _ in ["cold", "hot"] {
            assert_eq!(bench.send(bearer(&token)).await, admitted);
        }
        let mut forbidden = bearer(&token);
        *forbidden.method_mut() = Method::POST;
        assert_eq!(bench.send(forbidden).await, (403, 0));
        assert_eq!(bench.send(anonymous()).await, (401, 0));
        assert_eq!(bench.send(bearer(&bench.stranger())).await, (401, 0));
        assert_eq!(bench.send(with_authorization("Bearer a b")).await, (400, 0));
        assert!(bench.sink.events().is_empty());
        order(&bench.sink, false);
        assert_eq!(bench.send(bearer(&token)).await, (200, 1), "it recovers");
    }
}

#[tokio::test]
async fn a_lost_event_is_let_go_by_default() {
    assert_failing(|builder| builder, (200, 1)).await;
    assert_failing(|builder| builder.on_audit_failure(OnAuditFailure::Continue), (200, 1)).await;
}

#[tokio::test]
async fn a_lost_event_refuses_what_would_be_admitted() {
    assert_failing(|builder| builder.on_audit_failure(OnAuditFailure::Refuse), (503, 0)).await;
}

#[tokio::test]
async fn all_sinks_get_every_event() {
    let sinks: [RecordingSink; 3] = std::array::from_fn(|_| RecordingSink::new());
    let fan_out = sinks.iter().cloned().fold(FanOut::default(), FanOut::and);
    let bench = Bench::with(|builder| builder.audit(fan_out).on_audit_failure(OnAuditFailure::Refuse));
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(bench.send(bearer(&token)).await, (200, 1));
    sinks[0].fail_all(true);
    assert_eq!(bench.send(bearer(&token)).await, (503, 0), "one failure is a failure");
    sinks[0].panic_all(true);
    assert_eq!(bench.send(bearer(&token)).await, (503, 0));
    assert_eq!(bench.send(anonymous()).await, (401, 0));
    let counts = sinks.each_ref().map(|sink| sink.events().len());
    assert_eq!(counts, [1, 4, 4]);
    assert_eq!(sinks[1].events(), sinks[2].events());
}

#[test]
fn no_audit_wants_nothing() {
    assert!(OUTCOMES.iter().all(|outcome| !NoAudit::new().wants(*outcome)));
    assert!(!NoAudit::new().can_fail());
    let both = FanOut::new([Arc::new(NoAudit::new()) as Arc<dyn AuditSink>, Arc::new(RecordingSink::new())]);
    assert!(both.can_fail() && OUTCOMES.iter().all(|outcome| both.wants(*outcome)));
}

/// An event of `tracing`: its level, its target, and its fields.
type Traced = (tracing::Level, String, BTreeMap<&'static str, String>);

/// Keeps what is traced.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Traced>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        self.0.lock().unwrap().push((*metadata.level(), metadata.target().to_owned(), fields.0));
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

#[test]
fn the_tracing_sink_speaks_in_levels() {
    let capture = Capture::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let id = tracing::subscriber::with_default(tracing_subscriber::registry().with(capture.clone()), || {
        runtime.block_on(async {
            let bench = Bench::with(|builder| builder.audit(TracingSink::new()));
            let token = bench.token(Scope::ReadOnly).await;
            assert_eq!(bench.send(bearer(&token)).await.0, 200);
            assert_eq!(bench.send(anonymous()).await.0, 401);
            bench.store.fail();
            assert_eq!(bench.send(bearer(&bench.token(Scope::ReadOnly).await)).await.0, 503);
            token.id().to_string()
        })
    });
    let mut events = capture.0.lock().unwrap().clone();
    events.retain(|(_, target, _)| target == TracingSink::TARGET);
    assert_eq!(TracingSink::TARGET, "tower_token_auth::audit");
    let levels: Vec<_> = events.iter().map(|(level, ..)| *level).collect();
    assert_eq!(levels, [tracing::Level::INFO, tracing::Level::WARN, tracing::Level::ERROR]);
    let told = |event: usize, field: &str| events[event].2.get(field).map(String::as_str);
    let outcomes = [0, 1, 2].map(|event| (told(event, "outcome"), told(event, "reason")));
    assert_eq!(outcomes[0], (Some("allowed"), None));
    assert_eq!(outcomes[1], (Some("refused"), Some("missing")));
    assert_eq!(outcomes[2], (Some("unavailable"), Some("store_failed")));
    assert_eq!((told(0, "token_id"), told(0, "claimed_id")), (Some(id.as_str()), None));
    assert_eq!((told(1, "token_id"), told(2, "token_id")), (None, None));
    assert!(told(2, "claimed_id").is_some());
    assert_eq!(told(0, "message"), Some("token admitted"));
}

#[tokio::test]
async fn a_passed_request_is_about_nobody() {
    let bench = Bench::with(|builder| builder.on_missing(OnMissing::Pass));
    let event = bench.event(anonymous(), 200).await;
    assert_eq!((event.outcome, event.reason, event.access), (Outcome::Passed, Some(Reason::Missing), None));
    assert_eq!((event.claimed_id, event.path.as_deref()), (None, Some("/")));
    assert_proves_nothing(&event);
}

#[tokio::test]
async fn a_lost_event_refuses_what_would_be_passed() {
    for (on_failure, passed) in [(OnAuditFailure::Continue, (200, 1)), (OnAuditFailure::Refuse, (503, 0))] {
        for order in [RecordingSink::fail_all, RecordingSink::panic_all] {
            let bench = Bench::with(|builder| builder.on_missing(OnMissing::Pass).on_audit_failure(on_failure));
            order(&bench.sink, true);
            assert_eq!(bench.send(anonymous()).await, passed, "{on_failure:?}");
            order(&bench.sink, false);
            assert_eq!(bench.send(anonymous()).await, (200, 1), "it recovers");
        }
    }
}

/// What one request leaves in `tracing`.
fn traced(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder, anonymously: bool) -> Traced {
    let capture = Capture::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(capture.clone()), || {
        runtime.block_on(async {
            let bench = Bench::with(|builder| configure(builder.audit(TracingSink::new())));
            let mut request = with_header(&bench.token(Scope::ReadOnly).await, "user-agent", b"curl/8");
            if anonymously {
                request.headers_mut().remove(AUTHORIZATION);
            }
            assert_eq!(bench.send(request).await.0, 200);
        });
    });
    let mut events = capture.0.lock().unwrap().clone();
    events.retain(|(_, target, _)| target == TracingSink::TARGET);
    assert_eq!(events.len(), 1, "one decision, one event");
    events.remove(0)
}

#[test]
fn the_tracing_sinks_fields_are_those_it_documents() {
    let told = |builder: TokenAuthBuilder| {
        builder
            .client_address(|_| Some(IpAddr::V4(Ipv4Addr::LOCALHOST)))
            .route(|_| Some("/{id}".to_owned()))
            .request_id(|_| Some("7".to_owned()))
    };
    let (_, _, fields) = traced(told, false);
    let mut expected = [
        "message",
        "version",
        "action",
        "outcome",
        "token_id",
        "owner",
        "label",
        "scope",
        "secret",
        "access",
        "method",
        "path",
        "route",
        "user_agent",
        "client_address",
        "request_id",
    ];
    expected.sort_unstable();
    assert_eq!(fields.keys().copied().collect::<Vec<_>>(), expected, "claimed_id, reason and actor have no value");
    let values = ["route", "client_address", "request_id"].map(|field| fields[field].as_str());
    assert_eq!(values, ["/{id}", "127.0.0.1", "7"]);
}

#[test]
fn a_passed_request_is_traced_as_information() {
    let (level, _, fields) = traced(|builder| builder.on_missing(OnMissing::Pass), true);
    assert_eq!(level, tracing::Level::INFO);
    assert_eq!((fields["outcome"].as_str(), fields["reason"].as_str()), ("passed", "missing"));
    assert_eq!(fields["message"], "request passed without a token");
    assert!(!fields.contains_key("token_id") && !fields.contains_key("claimed_id"));
}
