//! What passes without a token, what never does, and what the inner service and closures see of credentials.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_token_auth::{
    Access, AuthenticatedToken, OnForeign, OnMissing, PlaintextToken, Prefix, Scope, TokenAuthBuilder, TokenAuthLayer,
};

use crate::cache_rules::bench::{Bench, bearer};

const JWT: &str = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln";
const BASIC: &str = "Basic YWxhZGRpbjpvcGVuc2VzYW1l";

/// What the inner service saw of one request.
#[derive(Debug)]
struct Seen {
    lines: Vec<(Vec<u8>, bool)>,
    token: Option<AuthenticatedToken>,
}

impl Seen {
    fn of(request: &Request<Body>) -> Self {
        let lines = request.headers().get_all(AUTHORIZATION);
        Self {
            lines: lines.iter().map(|line| (line.as_bytes().to_vec(), line.is_sensitive())).collect(),
            token: request.extensions().get().cloned(),
        }
    }
}

fn request(lines: &[&str]) -> Request<Body> {
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    for line in lines {
        request.headers_mut().append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
    }
    request
}

/// Sends one request through the layer: its status, and what the inner service saw where it was reached.
async fn send(auth: &TokenAuthLayer, request: Request<Body>) -> (u16, Option<Seen>) {
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<Body>| {
        *keep.lock().unwrap() = Some(Seen::of(&request));
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let response = auth.layer(inner).oneshot(request).await.unwrap();
    let seen = seen.lock().unwrap().take();
    (response.status().as_u16(), seen)
}

#[track_caller]
fn assert_refused((status, seen): (u16, Option<Seen>), expected: u16) {
    assert_eq!(status, expected);
    assert!(seen.is_none(), "the inner service was reached: {seen:?}");
}

#[track_caller]
fn assert_passed((status, seen): (u16, Option<Seen>), lines: &[&str]) {
    let seen = seen.expect("the inner service is reached");
    let values: Vec<_> = seen.lines.iter().map(|(value, _)| std::str::from_utf8(value).unwrap()).collect();
    assert_eq!((status, values.as_slice()), (200, lines));
    assert!(seen.token.is_none(), "passed without a token: {seen:?}");
}

fn pass_missing(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    builder.on_missing(OnMissing::Pass)
}

fn pass_foreign(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    builder.on_foreign(OnForeign::Pass)
}

fn pass_both(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    pass_foreign(pass_missing(builder))
}

#[tokio::test]
async fn by_default_nothing_passes() {
    let bench = Bench::new();
    for lines in [&[][..], &[""], &[BASIC], &[JWT]] {
        assert_refused(send(&bench.auth, request(lines)).await, 401);
    }
}

#[tokio::test]
async fn missing_credentials_pass_where_the_builder_says_so() {
    let bench = Bench::with(pass_missing);
    assert_passed(send(&bench.auth, request(&[])).await, &[]);
    assert_passed(send(&bench.auth, request(&[""])).await, &[""]);
    assert_refused(send(&bench.auth, request(&[BASIC])).await, 401);
    assert_refused(send(&bench.auth, request(&[JWT])).await, 401);
    assert_eq!(bench.outcomes(), ["passed missing", "passed missing", "refused missing", "refused bad_format"]);
}

#[tokio::test]
async fn foreign_credentials_pass_untouched_where_the_builder_says_so() {
    let bench = Bench::with(pass_foreign);
    assert_passed(send(&bench.auth, request(&[BASIC])).await, &[BASIC]);
    assert_passed(send(&bench.auth, request(&[JWT])).await, &[JWT]);
    assert_refused(send(&bench.auth, request(&[])).await, 401);
    assert_eq!(bench.outcomes(), ["passed missing", "passed bad_format", "refused missing"]);
}

#[tokio::test]
async fn a_passed_header_is_marked_as_sensitive() {
    let bench = Bench::with(pass_foreign);
    let (_, seen) = send(&bench.auth, request(&[JWT])).await;
    assert!(seen.unwrap().lines.iter().all(|(_, sensitive)| *sensitive));
}

#[tokio::test]
async fn a_bad_token_of_ours_never_passes() {
    let bench = Bench::with(pass_both);
    let good = bench.token(Scope::ReadOnly).await;
    let text = good.expose();
    let flipped = if text.ends_with('0') { '1' } else { '0' };
    let wrong_checksum = format!("{}{flipped}", &text[..text.len() - 1]);
    let unknown = bench.stranger();
    for bad in [&wrong_checksum, &text[..text.len() - 1], "tta_", unknown.expose()] {
        assert_refused(send(&bench.auth, request(&[&format!("Bearer {bad}")])).await, 401);
    }
    bench.revoke(&good).await;
    assert_refused(send(&bench.auth, bearer(&good)).await, 401);
}

#[tokio::test]
async fn a_good_token_is_admitted_in_every_pass_mode() {
    for mode in [pass_missing, pass_foreign, pass_both] {
        let bench = Bench::with(mode);
        let good = bench.token(Scope::ReadOnly).await;
        let (status, seen) = send(&bench.auth, bearer(&good)).await;
        assert_eq!(status, 200);
        assert_eq!(seen.unwrap().token.expect("an admitted token").id(), good.id());
    }
}

#[tokio::test]
async fn malformed_credentials_never_pass() {
    let bench = Bench::with(pass_both);
    let good = bench.token(Scope::ReadOnly).await;
    let two_words = format!("Bearer {} x", good.expose());
    for malformed in ["Bearer", "Bearer ", "Bearer\ttoken", "Bearer a=b", "Bearer a b", &two_words] {
        assert_refused(send(&bench.auth, request(&[malformed])).await, 400);
    }
}

#[tokio::test]
async fn two_lines_never_pass() {
    let bench = Bench::with(pass_both);
    let ours = format!("Bearer {}", bench.token(Scope::ReadOnly).await.expose());
    for lines in [[BASIC, JWT], [BASIC, BASIC], [&ours, BASIC], [JWT, &ours], [&ours, &ours], ["", ""]] {
        assert_refused(send(&bench.auth, request(&lines)).await, 400);
    }
}

#[tokio::test]
async fn another_prefix_is_foreign_until_it_is_accepted() {
    let prefix: Prefix = "acme".parse().unwrap();
    let token = PlaintextToken::generate(&prefix).unwrap();
    let line = format!("Bearer {}", token.expose());
    let bench = Bench::with(pass_foreign);
    assert_passed(send(&bench.auth, request(&[&line])).await, &[&line]);
    let bench = Bench::with(|builder| pass_foreign(builder).accept_prefix("acme"));
    assert_refused(send(&bench.auth, request(&[&line])).await, 401);
    bench.keep(&token, Scope::ReadOnly).await;
    bench.auth.handle().invalidate(&token.id());
    assert_eq!(send(&bench.auth, request(&[&line])).await.0, 200);
}

#[tokio::test]
async fn admission_takes_the_header_away() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    for _cold_then_hot in 0..2 {
        let (status, seen) = send(&bench.auth, bearer(&token)).await;
        assert_eq!((status, seen.unwrap().lines), (200, vec![]));
    }
}

#[tokio::test]
async fn kept_headers_are_marked_as_sensitive() {
    let bench = Bench::with(TokenAuthBuilder::keep_authorization);
    let token = bench.token(Scope::ReadOnly).await;
    let line = format!("Bearer {}", token.expose()).into_bytes();
    for _cold_then_hot in 0..2 {
        let (status, seen) = send(&bench.auth, bearer(&token)).await;
        assert_eq!((status, seen.unwrap().lines), (200, vec![(line.clone(), true)]));
    }
}

#[tokio::test]
async fn closures_never_see_the_header() {
    let sights = Arc::new(Mutex::new(Vec::new()));
    let look = |name: &'static str| {
        let sights = Arc::clone(&sights);
        move |head: &tower_token_auth::RequestHead<'_>| {
            sights.lock().unwrap().push((name, head.headers.contains_key(AUTHORIZATION)))
        }
    };
    let (access, address, route, id) = (look("access"), look("address"), look("route"), look("id"));
    let bench = Bench::with(move |builder| {
        pass_both(builder)
            .keep_authorization()
            .access(move |head| {
                access(head);
                None
            })
            .client_address(move |head| {
                address(head);
                None
            })
            .route(move |head| {
                route(head);
                None
            })
            .request_id(move |head| {
                id(head);
                None
            })
    });
    let token = bench.token(Scope::ReadOnly).await;
    let mut forbidden = bearer(&token);
    *forbidden.method_mut() = Method::POST;
    let admitted = [bearer(&token), bearer(&token)];
    let others = [forbidden, bearer(&bench.stranger()), request(&[]), request(&[BASIC]), request(&["Bearer a b"])];
    for request in admitted.into_iter().chain(others) {
        let twice = ServiceBuilder::new().layer(bench.auth.clone()).layer(bench.auth.clone());
        let inner = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        twice.service(inner).oneshot(request).await.unwrap();
    }
    let sights = sights.lock().unwrap();
    for name in ["access", "address", "route", "id"] {
        assert!(sights.iter().any(|(seen, _)| *seen == name), "{name} was asked");
    }
    assert!(sights.iter().all(|(_, header)| !header), "{sights:?}");
}

/// The statuses of GET and POST with a read-only and a read-write token, under two layers of one gate.
async fn under_two(outer: &TokenAuthLayer, inner: &TokenAuthLayer, bench: &Bench) -> [u16; 4] {
    let mut statuses = [0; 4];
    let tokens = [bench.token(Scope::ReadOnly).await, bench.token(Scope::ReadWrite).await];
    let cases = tokens.iter().flat_map(|token| [(token, Method::GET), (token, Method::POST)]);
    for (status, (token, method)) in statuses.iter_mut().zip(cases) {
        let mut request = bearer(token);
        *request.method_mut() = method;
        let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let stack = ServiceBuilder::new().layer(outer.clone()).layer(inner.clone()).service(service);
        *status = stack.oneshot(request).await.unwrap().status().as_u16();
    }
    statuses
}

#[tokio::test]
async fn the_same_gate_met_twice_only_tightens() {
    let bench = Bench::new();
    let (plain, reading, writing) =
        (bench.auth.clone(), bench.auth.requiring(Access::Read), bench.auth.requiring(Access::Write));
    assert_eq!(under_two(&plain, &plain, &bench).await, [200, 403, 200, 200]);
    assert_eq!(under_two(&plain, &writing, &bench).await, [403, 403, 200, 200], "tightened");
    assert_eq!(under_two(&plain, &reading, &bench).await, [200, 403, 200, 200], "not loosened");
    assert_eq!(under_two(&writing, &reading, &bench).await, [403, 403, 200, 200], "not loosened");
    assert_eq!(under_two(&reading, &plain, &bench).await, [200, 403, 200, 200], "tightened");
    assert_eq!(under_two(&reading, &reading, &bench).await, [200, 200, 200, 200], "the twin that differs");
}

#[tokio::test]
async fn the_same_gate_met_twice_writes_a_second_event_only_to_refuse() {
    let bench = Bench::new();
    let writing = bench.auth.requiring(Access::Write);
    under_two(&bench.auth, &writing, &bench).await;
    let read_only = ["allowed", "refused forbidden", "refused forbidden"];
    assert_eq!(bench.outcomes(), [&read_only[..], &["allowed", "allowed"]].concat());
}

#[tokio::test]
async fn another_gates_admission_does_not_count() {
    let (ours, theirs) = (Bench::new(), Bench::new());
    let token = theirs.token(Scope::ReadWrite).await;
    let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let under = |outer: &TokenAuthLayer, inner: &TokenAuthLayer| {
        ServiceBuilder::new().layer(outer.clone()).layer(inner.clone()).service(service).oneshot(bearer(&token))
    };
    assert_eq!(under(&theirs.auth, &ours.auth).await.unwrap().status().as_u16(), 401);
    assert_eq!(under(&theirs.auth, &theirs.auth).await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn a_passed_request_meets_the_same_gate_again_without_a_second_event() {
    let bench = Bench::with(pass_both);
    let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let stack = ServiceBuilder::new().layer(bench.auth.clone()).layer(bench.auth.clone()).service(service);
    assert_eq!(stack.oneshot(request(&[])).await.unwrap().status().as_u16(), 200);
    assert_eq!(bench.outcomes(), ["passed missing"]);
}
