//! Every refusal as its client sees it: status, all headers, body.
//!
//! The files in `snapshots/` are the contract. `UPDATE_SNAPSHOTS=1 cargo test` rewrites them; read the difference.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::{
    IssuePolicy, PlaintextToken, Refusal, Scope, TokenAuthBuilder, TokenAuthLayer, TokenRegistry, TokenState,
};

use crate::cache_rules::bench::{Bench, forge};

/// The whole response as text, headers sorted.
async fn answer(auth: &TokenAuthLayer, request: Request<Body>) -> String {
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("inner"))) });
    let response = auth.layer(inner).oneshot(request).await.unwrap();
    let mut text = format!("{}\n", response.status());
    let mut headers: Vec<_> = response.headers().iter().collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in headers {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    write!(text, "\n{}", std::str::from_utf8(&body).unwrap()).unwrap();
    text
}

fn get(credentials: &str) -> Request<Body> {
    Request::get("/").header(AUTHORIZATION, credentials).body(Body::empty()).unwrap()
}

fn grpc(credentials: &str, content_type: &str) -> Request<Body> {
    let request = Request::post("/pkg.Service/Method").header(CONTENT_TYPE, content_type);
    request.header(AUTHORIZATION, credentials).body(Body::empty()).unwrap()
}

#[track_caller]
fn assert_snapshot(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, kept, "{name}: not what {} says", path.display());
}

fn with(token: &PlaintextToken) -> String {
    format!("Bearer {}", token.expose())
}

/// One set of credentials for each row, in the order of the table.
async fn rows(bench: &Bench) -> Vec<(&'static str, String)> {
    let read_only = bench.hot(Scope::ReadOnly).await;
    vec![
        ("missing", String::new()),
        ("other_scheme", "Basic YWxpY2U6MTIz".to_owned()),
        ("malformed", "Bearer two words".to_owned()),
        ("bad_format", "Bearer somebody.elses.token".to_owned()),
        ("unknown", with(&bench.stranger())),
        ("forbidden", with(&read_only)),
    ]
}

/// A gate that applies a policy at use, and a token which that limits to reading.
async fn limited(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> (Bench, String) {
    let policy = IssuePolicy::default().force_read_only(true);
    let bench = Bench::with(|builder| configure(builder.policy_at_use(policy)));
    let token = bench.hot(Scope::ReadWrite).await;
    let credentials = with(&token);
    (bench, credentials)
}

#[tokio::test]
async fn http_refusals_by_policy_are_as_kept() {
    let (bench, credentials) = limited(|builder| builder).await;
    let mut request = get(&credentials);
    *request.method_mut() = http::Method::DELETE;
    assert_snapshot("http_policy", &answer(&bench.auth, request).await);
    for (name, header, value) in [("upgrade", "upgrade", "websocket"), ("override", "x-http-method", "PUT")] {
        let mut request = get(&credentials);
        request.headers_mut().insert(header, HeaderValue::from_static(value));
        assert_snapshot(&format!("http_policy_{name}"), &answer(&bench.auth, request).await);
    }
    assert!(answer(&bench.auth, get(&credentials)).await.starts_with("200"), "the twin");
}

#[tokio::test]
async fn grpc_refusals_by_policy_are_as_kept() {
    let (bench, credentials) = limited(TokenAuthBuilder::grpc).await;
    assert_snapshot("grpc_policy", &answer(&bench.auth, grpc(&credentials, "application/grpc")).await);
    bench.assert_last("refused policy");
}

#[tokio::test]
async fn http_refusals_are_as_kept() {
    let bench = Bench::new();
    for (name, credentials) in rows(&bench).await {
        let mut request = get(&credentials);
        *request.method_mut() = http::Method::DELETE;
        assert_snapshot(&format!("http_{name}"), &answer(&bench.auth, request).await);
    }
    let token = bench.hot(Scope::ReadOnly).await;
    for (name, header, value) in [("upgrade", "upgrade", "websocket"), ("override", "x-http-method", "PUT")] {
        let mut request = get(&with(&token));
        request.headers_mut().insert(header, HeaderValue::from_static(value));
        assert_snapshot(&format!("http_forbidden_{name}"), &answer(&bench.auth, request).await);
    }
    bench.store.fail();
    assert_snapshot("http_unavailable", &answer(&bench.auth, get(&with(&bench.stranger()))).await);
}

#[tokio::test]
async fn grpc_refusals_are_as_kept() {
    let bench = Bench::with(TokenAuthBuilder::grpc);
    for (name, credentials) in rows(&bench).await {
        for content_type in ["application/grpc", "application/grpc+proto", "Application/GRPC; a=b"] {
            let found = answer(&bench.auth, grpc(&credentials, content_type)).await;
            assert_snapshot(&format!("grpc_{name}"), &found);
        }
    }
    bench.store.fail();
    let request = grpc(&with(&bench.stranger()), "application/grpc");
    assert_snapshot("grpc_unavailable", &answer(&bench.auth, request).await);
}

#[tokio::test]
async fn grpc_answers_are_opt_in_and_for_grpc_only() {
    let (off, on) = (Bench::new(), Bench::with(TokenAuthBuilder::grpc));
    let credentials = with(&off.stranger());
    let kept = answer(&off.auth, get(&credentials)).await;
    assert_eq!(answer(&off.auth, grpc(&credentials, "application/grpc")).await, kept, "not asked for");
    for content_type in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "text/plain"] {
        assert_eq!(answer(&on.auth, grpc(&credentials, content_type)).await, kept, "{content_type}");
    }
    let mut by_get = grpc(&credentials, "application/grpc");
    *by_get.method_mut() = http::Method::GET;
    assert_eq!(answer(&on.auth, by_get).await, kept, "gRPC is POST");
    let mut twice = grpc(&credentials, "application/grpc");
    twice.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(answer(&on.auth, twice).await, kept, "two content types");
    assert_ne!(answer(&on.auth, grpc(&credentials, "application/grpc")).await, kept, "the twin");
}

#[tokio::test]
async fn why_a_token_does_not_work_is_not_told() {
    for configure in [(|builder| builder) as fn(TokenAuthBuilder) -> TokenAuthBuilder, TokenAuthBuilder::grpc] {
        let bench = Bench::with(configure);
        let credentials = dead_tokens(&bench).await;
        for make in [(|credentials| get(credentials)) as fn(&str) -> Request<Body>, |credentials| {
            grpc(credentials, "application/grpc")
        }] {
            let first = answer(&bench.auth, make(&credentials[0].1)).await;
            for (reason, credentials) in &credentials {
                assert_eq!(answer(&bench.auth, make(credentials)).await, first, "{reason}");
                bench.assert_last(&format!("refused {reason}"));
            }
        }
        let live = bench.token(Scope::ReadOnly).await;
        assert!(answer(&bench.auth, get(&with(&live))).await.starts_with("200"), "the twin");
    }
}

/// Credentials that are dead for each reason.
async fn dead_tokens(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut dead = vec![("unknown", with(&bench.stranger()))];
    let live = bench.token(Scope::ReadOnly).await;
    dead.push(("mismatch", format!("Bearer {}", forge(&live.id(), &bench.stranger()))));
    for (reason, state) in [("revoked", TokenState::Revoked), ("paused", TokenState::Paused)] {
        let (token, record) = bench.draft(Scope::ReadOnly);
        bench.store.insert(record.with_state(state)).await.unwrap();
        dead.push((reason, with(&token)));
    }
    let (expired, record) = bench.draft(Scope::ReadOnly);
    let end = record.created_at();
    bench.store.insert(record.with_expiry(Some(end))).await.unwrap();
    bench.clock.advance(Duration::from_secs(1));
    dead.push(("expired", with(&expired)));
    let (barred, record) = bench.draft(Scope::ReadOnly);
    let record = with_owner(&record, "mallory");
    bench.store.bar_owner(record.owner()).await.unwrap();
    bench.store.insert(record).await.unwrap();
    dead.push(("owner_barred", with(&barred)));
    dead
}

fn with_owner(record: &tower_token_auth::TokenRecord, owner: &str) -> tower_token_auth::TokenRecord {
    let (label, hash) = (record.label().clone(), record.secret().clone());
    let owner = tower_token_auth::OwnerId::new(owner).unwrap();
    tower_token_auth::TokenRecord::new(record.id(), owner, label, record.scope(), hash, record.created_at())
}

#[tokio::test]
async fn nothing_of_the_request_is_echoed() {
    for (bench, content_type) in
        [(Bench::new(), "text/echo-me"), (Bench::with(TokenAuthBuilder::grpc), "application/grpc+echo-me")]
    {
        for (name, credentials) in rows(&bench).await {
            let found = answer(&bench.auth, telling(&credentials, content_type)).await;
            let presented = credentials.split(' ').next_back().filter(|text| !text.is_empty());
            let echoes = |text: &str| text.contains("echo-me") || presented.is_some_and(|word| text.contains(word));
            assert!(!echoes(&found), "{name}: {found}");
            assert!(
                echoes(&format!("{:?}", telling(&credentials, content_type))),
                "the same search finds it in {name}"
            );
        }
    }
}

/// A request that names itself wherever it can.
fn telling(credentials: &str, content_type: &str) -> Request<Body> {
    let request = Request::post("/echo-me?echo-me").header("x-echo-me", "echo-me").header(CONTENT_TYPE, content_type);
    request.header(AUTHORIZATION, credentials).body(Body::empty()).unwrap()
}

/// A renderer that says the opposite of everything.
fn contrary(_: &Refusal) -> Response<Bytes> {
    Response::builder()
        .status(StatusCode::OK)
        .header(WWW_AUTHENTICATE, "Basic realm=\"elsewhere\"")
        .header(CACHE_CONTROL, "public")
        .header(VARY, "Accept")
        .header(RETRY_AFTER, "9999")
        .header(CONTENT_TYPE, "text/plain")
        .header(CONTENT_LENGTH, "7")
        .header("x-own", "kept")
        .body(Bytes::from_static(b"our own words"))
        .unwrap()
}

#[tokio::test]
async fn a_renderer_makes_the_body_and_nothing_that_matters() {
    let bench = Bench::with(|builder| builder.refusal(contrary));
    let token = bench.hot(Scope::ReadOnly).await;
    let mut delete = get(&with(&token));
    *delete.method_mut() = http::Method::DELETE;
    assert_snapshot("renderer_forbidden", &answer(&bench.auth, delete).await);
    bench.store.fail();
    assert_snapshot("renderer_unavailable", &answer(&bench.auth, get(&with(&bench.stranger()))).await);
}

#[tokio::test]
async fn a_renderer_that_panics_costs_its_body_only() {
    let plain = Bench::new();
    let bench = Bench::with(|builder| builder.refusal(|_| panic!("as told")));
    let expected = answer(&plain.auth, get("Basic x")).await;
    assert_eq!(answer(&bench.auth, get("Basic x")).await, expected);
}

#[tokio::test]
async fn a_renderer_cannot_change_the_head_of_any_row() {
    let (plain, bench) = (Bench::new(), Bench::with(|builder| builder.refusal(contrary)));
    for ((name, ours), (_, theirs)) in rows(&plain).await.into_iter().zip(rows(&bench).await) {
        let delete = |credentials: &str| {
            let mut request = get(credentials);
            *request.method_mut() = http::Method::DELETE;
            request
        };
        let (kept, found) = (answer(&plain.auth, delete(&ours)).await, answer(&bench.auth, delete(&theirs)).await);
        assert_eq!(fixed(&found), fixed(&kept), "{name}");
        assert!(found.ends_with("x-own: kept\n\nour own words"), "the twin: the rest is the renderer's: {found}");
    }
}

/// The lines of an answer that are nobody's to change: the status, and what caches and clients act upon.
fn fixed(answer: &str) -> Vec<&str> {
    let names = ["www-authenticate:", "cache-control:", "vary:", "retry-after:", "content-length:"];
    let is_fixed = |(at, line): &(usize, &str)| *at == 0 || names.iter().any(|name| line.starts_with(name));
    answer.lines().enumerate().filter(is_fixed).map(|(_, line)| line).collect()
}
