//! What responses tell of the token: on answers to proved requests, where it is asked for.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{
    Access, Change, IssuePolicy, OnAuditFailure, OnForeign, OnMissing, PlaintextToken, RetiringSecret, Scope,
    TOKEN_EXPIRES_AT, TOKEN_SCOPE, TokenAuthBuilder, TokenAuthLayer, TokenRegistry,
};

use crate::cache_rules::bench::{Bench, bearer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn bench() -> Bench {
    Bench::with(TokenAuthBuilder::token_headers)
}

/// A token that expires a day after the clock's start.
async fn expiring(bench: &Bench, scope: Scope) -> PlaintextToken {
    let (token, record) = bench.draft(scope);
    bench.store.insert(record.with_expiry(Some(ManualClock::START + DAY))).await.unwrap();
    token
}

fn write(token: &PlaintextToken) -> Request<Body> {
    let mut request = bearer(token);
    *request.method_mut() = Method::POST;
    request
}

type Told = (u16, Option<String>, Option<String>);

/// The status of an answer, and what it says of the token; `inner` is what the inner service answers.
async fn ask(auth: &TokenAuthLayer, request: Request<Body>, inner: fn() -> Response<Body>) -> Told {
    let service = service_fn(move |_: Request<Body>| async move { Ok::<_, Infallible>(inner()) });
    let response = auth.layer(service).oneshot(request).await.unwrap();
    let told = |name: HeaderName| {
        let lines: Vec<_> = response.headers().get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
        (!lines.is_empty()).then(|| lines.join(" and "))
    };
    (response.status().as_u16(), told(TOKEN_SCOPE), told(TOKEN_EXPIRES_AT))
}

async fn send(bench: &Bench, request: Request<Body>) -> Told {
    ask(&bench.auth, request, || Response::new(Body::empty())).await
}

fn tells(status: u16, scope: &str, end: Option<&str>) -> Told {
    (status, Some(scope.to_owned()), end.map(str::to_owned))
}

fn silent(status: u16) -> Told {
    (status, None, None)
}

fn a_day_later() -> String {
    (ManualClock::START + DAY).to_string()
}

#[test]
fn the_names_are_kept() {
    assert_eq!((TOKEN_SCOPE.as_str(), TOKEN_EXPIRES_AT.as_str()), ("token-scope", "token-expires-at"));
}

#[tokio::test]
async fn an_admitted_request_is_told_of_its_token() {
    let bench = bench();
    let (short, endless) = (expiring(&bench, Scope::ReadOnly).await, bench.token(Scope::ReadWrite).await);
    for _cold_then_hot in 0..2 {
        assert_eq!(send(&bench, bearer(&short)).await, tells(200, "read-only", Some(&a_day_later())));
        assert_eq!(send(&bench, bearer(&endless)).await, tells(200, "read-write", None));
    }
}

#[tokio::test]
async fn nothing_is_told_unless_it_is_asked_for() {
    let bench = Bench::new();
    let token = expiring(&bench, Scope::ReadOnly).await;
    for _cold_then_hot in 0..2 {
        assert_eq!(send(&bench, bearer(&token)).await, silent(200));
        assert_eq!(send(&bench, write(&token)).await, silent(403));
    }
}

#[tokio::test]
async fn times_are_in_utc_as_rfc_3339_writes_them() {
    let bench = bench();
    let token = expiring(&bench, Scope::ReadOnly).await;
    let (_, _, told) = send(&bench, bearer(&token)).await;
    let told = told.unwrap();
    assert_eq!(humantime::parse_rfc3339(&told).unwrap(), (ManualClock::START + DAY).into());
    assert!(told.ends_with('Z'), "{told}");
}

/// An inner service that fails, and has its own words on tokens.
fn own_words() -> Response<Body> {
    let response = Response::builder().status(500).header("token-scope", "all").header("token-scope", "more");
    response.header("token-expires-at", "never").header("x-own", "kept").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn whatever_the_inner_service_answers_the_gate_knows_better() {
    let bench = bench();
    let (short, endless) = (expiring(&bench, Scope::ReadOnly).await, bench.token(Scope::ReadOnly).await);
    for _cold_then_hot in 0..2 {
        let told = ask(&bench.auth, bearer(&short), own_words).await;
        assert_eq!(told, tells(500, "read-only", Some(&a_day_later())));
        assert_eq!(ask(&bench.auth, bearer(&endless), own_words).await, tells(500, "read-only", None));
    }
    let off = Bench::new();
    let token = off.token(Scope::ReadOnly).await;
    assert_eq!(ask(&off.auth, bearer(&token), own_words).await, tells(500, "all and more", Some("never")));
}

#[tokio::test]
async fn who_is_forbidden_is_told_why() {
    let bench = Bench::with(|builder| {
        builder.token_headers().policy_at_use(IssuePolicy::default().force_read_only(true)).grpc()
    });
    let (read_only, limited) = (expiring(&bench, Scope::ReadOnly).await, expiring(&bench, Scope::ReadWrite).await);
    for token in [&read_only, &limited] {
        for _cold_then_hot in 0..2 {
            assert_eq!(send(&bench, write(token)).await, tells(403, "read-only", Some(&a_day_later())));
        }
        assert_eq!(send(&bench, bearer(token)).await, tells(200, "read-only", Some(&a_day_later())));
        let mut grpc = write(token);
        grpc.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        assert_eq!(send(&bench, grpc).await, tells(200, "read-only", Some(&a_day_later())), "7 in gRPC");
    }
}

#[tokio::test]
async fn a_renderer_has_no_say_in_it() {
    let renders = |_: &tower_token_auth::Refusal| own_words().map(|_| Bytes::new());
    let bench = Bench::with(|builder| builder.token_headers().refusal(renders));
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(send(&bench, write(&token)).await, tells(403, "read-only", None));
}

#[tokio::test]
async fn who_proves_nothing_is_told_nothing() {
    let bench = bench();
    let token = expiring(&bench, Scope::ReadOnly).await;
    let with = |line: &str| Request::get("/").header(AUTHORIZATION, line).body(Body::empty()).unwrap();
    assert_eq!(send(&bench, Request::new(Body::empty())).await, silent(401));
    assert_eq!(send(&bench, with("Bearer two words")).await, silent(400));
    assert_eq!(send(&bench, bearer(&bench.stranger())).await, silent(401));
    bench.revoke(&token).await;
    assert_eq!(send(&bench, bearer(&token)).await, silent(401));
    bench.store.fail();
    assert_eq!(send(&bench, bearer(&bench.stranger())).await, silent(503));
}

#[tokio::test]
async fn a_503_tells_nothing_of_a_token_that_was_proved() {
    let bench = Bench::with(|builder| builder.token_headers().on_audit_failure(OnAuditFailure::Refuse));
    let token = bench.hot(Scope::ReadOnly).await;
    bench.sink.fail_all(true);
    assert_eq!(send(&bench, bearer(&token)).await, silent(503));
    let bench = Bench::with(|builder| builder.token_headers().access(|_| panic!("as told")));
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(send(&bench, bearer(&token)).await, silent(503));
}

#[tokio::test]
async fn a_passed_request_is_told_nothing() {
    let bench = Bench::with(|builder| builder.token_headers().on_missing(OnMissing::Pass).on_foreign(OnForeign::Pass));
    assert_eq!(send(&bench, Request::new(Body::empty())).await, silent(200));
    let foreign = Request::get("/").header(AUTHORIZATION, "Basic eDp5").body(Body::empty()).unwrap();
    assert_eq!(send(&bench, foreign).await, silent(200));
}

#[tokio::test]
async fn a_secret_that_is_being_replaced_ends_sooner_than_its_token() {
    let bench = bench();
    let token = expiring(&bench, Scope::ReadOnly).await;
    let (_, other) = bench.draft(Scope::ReadOnly);
    let until = ManualClock::START + Duration::from_secs(60);
    let retiring = RetiringSecret::new(bench.record(&token).await.secret().clone(), until);
    bench.change(&token, Change::Secrets { secret: other.secret().clone(), retiring: Some(retiring) }).await;
    assert_eq!(send(&bench, bearer(&token)).await, tells(200, "read-only", Some(&until.to_string())));
}

#[tokio::test]
async fn a_gate_met_twice_tells_it_once() {
    let bench = bench();
    let token = bench.token(Scope::ReadOnly).await;
    for (inner, status) in [(Access::Read, 200), (Access::Write, 403)] {
        let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let gates = bench.auth.layer(bench.auth.requiring(inner).layer(service));
        let response = gates.oneshot(bearer(&token)).await.unwrap();
        assert_eq!(response.status(), status);
        let lines: Vec<_> = response.headers().get_all(TOKEN_SCOPE).iter().collect();
        assert_eq!(lines, ["read-only"]);
    }
}

/// As many headers as a map can hold.
fn full() -> Response<Body> {
    let mut headers = HeaderMap::new();
    for at in 0_u32.. {
        let name = HeaderName::try_from(format!("x-{at}")).unwrap();
        if headers.try_insert(name, HeaderValue::from_static("full")).is_err() {
            break;
        }
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response
}

#[tokio::test]
async fn an_answer_without_room_goes_without() {
    let bench = bench();
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(ask(&bench.auth, bearer(&token), full).await, silent(200));
}
