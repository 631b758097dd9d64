//! A canary: no part of a secret in any log, `Debug` form, event or answer, whatever becomes of the request.

use std::convert::Infallible;
use std::fmt::{Debug, Write as _};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::RecordingSink;
use tower_token_auth::{
    Actor, AuditSink, Change, Clock, FanOut, IssuePolicy, NewToken, OnAuditFailure, OnForeign, OnMissing,
    PlaintextToken, Scope, TokenAuthBuilder, TokenFilter, TokenIssuer, TokenRegistry, TracingSink,
};

use crate::cache_rules::bench::{Bench, forge};

const WINDOW: usize = 8;

/// What every subscriber of this process has written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The one log, to which everything goes from the first call on.
    fn global() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            log
        })
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether any [`WINDOW`] bytes in a row of `needle` are in `text`.
fn leaks(text: &str, needle: &str) -> bool {
    windows(needle).any(|window| text.contains(window))
}

fn windows(needle: &str) -> impl Iterator<Item = &str> {
    (0..=needle.len() - WINDOW).map(|start| &needle[start..start + WINDOW])
}

/// A gate that logs, everything it has shown so far, and the secrets that must not be in it.
struct Canary {
    bench: Bench,
    sink: RecordingSink,
    secrets: Vec<String>,
    seen: String,
}

impl Canary {
    fn new(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> Self {
        Log::global();
        let sink = RecordingSink::new();
        let sinks: [Arc<dyn AuditSink>; 2] = [Arc::new(TracingSink::new()), Arc::new(sink.clone())];
        let bench = Bench::with(|builder| configure(builder.audit(FanOut::new(sinks))));
        Self { bench, sink, secrets: Vec::new(), seen: String::new() }
    }

    /// What is seen as `Debug`, plain and pretty.
    fn see(&mut self, what: &dyn Debug) {
        write!(self.seen, "{what:?}\n{what:#?}\n").unwrap();
    }

    fn used(&mut self, token: &PlaintextToken) {
        self.secrets.push(token.secret().expose().to_owned());
        self.see(token);
        self.see(token.secret());
    }

    async fn token(&mut self) -> PlaintextToken {
        let token = self.bench.token(Scope::ReadOnly).await;
        self.used(&token);
        let record = self.bench.record(&token).await;
        self.see(&record);
        token
    }

    fn stranger(&mut self) -> PlaintextToken {
        let token = self.bench.stranger();
        self.used(&token);
        token
    }

    async fn changed(&mut self, change: Change) -> PlaintextToken {
        let token = self.token().await;
        self.bench.change(&token, change).await;
        token
    }

    /// Sends a request and sees the answer; the inner service answers with all that it is shown.
    async fn send(&mut self, method: Method, authorization: Option<String>, expected: u16) {
        let inner = service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(Body::from(format!("{request:?}"))))
        });
        let service = self.bench.auth.layer(inner);
        self.see(&service);
        let mut request = Request::builder().method(method).uri("/issues");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), expected);
        self.see(&response);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        self.seen.push_str(std::str::from_utf8(&body).unwrap());
    }

    async fn get(&mut self, token: &PlaintextToken, expected: u16) {
        self.send(Method::GET, Some(format!("Bearer {}", token.expose())), expected).await;
    }

    /// Nothing of any secret is anywhere; of the ids, which are not secret, something is.
    fn assert_silent(mut self, id: &str) {
        self.see(&self.bench.auth.clone());
        self.see(&self.sink.events());
        let log = Log::global().text();
        assert!(!self.secrets.is_empty());
        for secret in &self.secrets {
            assert!(!leaks(&log, secret), "a secret is in the log");
            assert!(!leaks(&self.seen, secret), "a secret is seen");
        }
        for text in [&log, &self.seen] {
            assert!(windows(id).all(|window| text.contains(window)), "the same search finds an id");
        }
    }
}

#[test]
fn the_search_finds_what_is_there() {
    assert!(leaks("… 23456789 …", "0123456789"));
    assert!(!leaks("… 3456789 …", "0123456789"));
}

#[tokio::test]
async fn admitted_requests_show_no_secret() {
    for keep in [false, true] {
        let mut canary = Canary::new(|builder| if keep { builder.keep_authorization() } else { builder });
        let token = canary.token().await;
        for _ in ["cold", "hot"] {
            canary.get(&token, 200).await;
        }
        canary.assert_silent(token.id().as_str());
    }
}

#[tokio::test]
async fn credentials_that_are_no_token_show_no_secret() {
    let mut canary = Canary::new(|builder| builder);
    let token = canary.token().await;
    let text = token.expose().to_owned();
    let last = if text.ends_with('0') { "1" } else { "0" };
    let broken = format!("{}{last}", &text[..text.len() - 1]);
    canary.get(&token, 200).await;
    canary.send(Method::GET, None, 401).await;
    for (authorization, expected) in [
        (format!("Basic {text}"), 401),
        (format!("Bearer {text} {text}"), 400),
        (format!("Bearer {broken}"), 401),
        (format!("Bearer x{text}"), 401),
        (text, 401),
    ] {
        canary.send(Method::GET, Some(authorization), expected).await;
    }
    canary.assert_silent(token.id().as_str());
}

#[tokio::test]
async fn passed_requests_show_no_secret() {
    let mut canary = Canary::new(|builder| builder.on_missing(OnMissing::Pass).on_foreign(OnForeign::Pass));
    let token = canary.token().await;
    canary.get(&token, 200).await;
    for scheme in ["Basic ", "Bearer x"] {
        canary.send(Method::GET, Some(format!("{scheme}{}", token.expose())), 200).await;
    }
    canary.assert_silent(token.id().as_str());
}

#[tokio::test]
async fn refused_tokens_show_no_secret() {
    let mut canary = Canary::new(|builder| builder);
    let (unknown, guess) = (canary.stranger(), canary.stranger());
    canary.get(&unknown, 401).await;
    let known = canary.token().await;
    for _ in ["cold", "hot"] {
        let forged = forge(&known.id(), &guess);
        canary.send(Method::GET, Some(format!("Bearer {forged}")), 401).await;
        canary.get(&known, 200).await;
    }
    let past = canary.bench.clock.wall();
    for change in [Change::Expiry(Some(past)), Change::Revoke { at: past }, Change::Pause] {
        let token = canary.changed(change).await;
        canary.get(&token, 401).await;
    }
    canary.send(Method::POST, Some(format!("Bearer {}", known.expose())), 403).await;
    canary.bench.store.bar_owner(canary.bench.record(&known).await.owner()).await.unwrap();
    canary.bench.invalidate(&known.id());
    canary.get(&known, 401).await;
    canary.assert_silent(known.id().as_str());
}

#[tokio::test]
async fn failures_show_no_secret() {
    let mut canary = Canary::new(|builder| builder.on_audit_failure(OnAuditFailure::Refuse));
    let orders: [fn(&Canary); 6] = [
        |canary| canary.bench.store.fail(),
        |canary| canary.bench.store.panic(),
        |canary| canary.bench.hasher.fail_next(),
        |canary| canary.bench.hasher.panic_next(),
        |canary| canary.sink.fail_all(true),
        |canary| canary.sink.panic_all(true),
    ];
    let mut last = None;
    for order in orders {
        let token = canary.token().await;
        order(&canary);
        canary.get(&token, 503).await;
        canary.bench.store.work();
        canary.sink.fail_all(false);
        canary.sink.panic_all(false);
        canary.get(&token, 200).await;
        last = Some(token);
    }
    canary.assert_silent(last.unwrap().id().as_str());
}

#[tokio::test]
async fn the_desk_shows_no_secret() {
    let mut canary = Canary::new(|builder| builder);
    let actor = Actor::system("test");
    let bare = TokenIssuer::builder(canary.bench.store.clone(), IssuePolicy::default());
    canary.see(&bare);
    canary.see(&bare.build().unwrap());
    let desk = canary.bench.auth.issuer(canary.bench.store.clone(), IssuePolicy::default());
    canary.see(&desk);
    let new = |label: &str| NewToken::new("alice", label, Scope::ReadOnly);
    let issued = desk.issue(&actor, new("first")).await.unwrap();
    canary.see(&issued);
    canary.see(issued.summary());
    canary.used(issued.plaintext());
    let record = canary.bench.record(issued.plaintext()).await;
    canary.see(&record);
    canary.get(issued.plaintext(), 200).await;
    let ensured = desk.ensure(&actor, new("second")).await.unwrap();
    canary.see(&ensured);
    canary.see(&desk.list(&actor, TokenFilter::default(), None).await.unwrap());
    canary.bench.hasher.fail_next();
    canary.see(&desk.issue(&actor, new("third")).await.unwrap_err());
    canary.bench.hasher.panic_next();
    canary.see(&desk.issue(&actor, new("fourth")).await.unwrap_err());
    let id = issued.plaintext().id();
    canary.see(&desk.revoke(&actor, &id).await.unwrap());
    canary.get(issued.plaintext(), 401).await;
    canary.sink.fail_all(true);
    canary.see(&desk.issue(&actor, new("fifth")).await);
    canary.see(&desk.revoke(&actor, &id).await);
    canary.sink.fail_all(false);
    canary.assert_silent(id.as_str());
}
