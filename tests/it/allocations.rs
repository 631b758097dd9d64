//! What a request costs in memory before there is an answer.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tower::{Layer, Service, service_fn};
use tower_token_auth::test_util::{ManualClock, ScriptedStore, mint};
use tower_token_auth::{
    IssuePolicy, MemoryStore, NoAudit, PlaintextToken, Prefix, ResponseBody, Scope, Sha256Hasher, TokenAuthBuilder,
    TokenAuthLayer,
};

use crate::cache_rules::bench::{Bench, bearer};
use crate::scripted::Scripted;

/// The allocations of one refused call, apart from those of the response: its renderer hands out one that has had its
/// memory before.
fn allocations(line: Option<&str>) -> u64 {
    let store = ScriptedStore::default();
    let builder = TokenAuthLayer::builder(store.clone()).audit(NoAudit::new()).refusal(|_| {
        let mut response = Response::new(Bytes::new());
        allocation_counter::opt_out(|| *response.headers_mut() = HeaderMap::with_capacity(16));
        response
    });
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut service = builder.build().unwrap().layer(inner);
    let mut count = 0;
    for _ in 0..100 {
        let mut request = Request::new(Body::empty());
        if let Some(line) = line {
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        let mut answer = None;
        count += allocation_counter::measure(|| answer = Some(service.call(request))).count_total;
        drop(answer);
    }
    assert_eq!(store.finds(), 0);
    count
}

#[test]
fn a_refusal_before_the_store_allocates_nothing_but_its_response() {
    let token = PlaintextToken::generate(&Prefix::default()).unwrap().expose().to_owned();
    let other = if token.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("Bearer {}{other}", &token[..token.len() - 1]);
    let lines = ["Bearer", "Bearer two words", "Bearer\ttab", "Basic dXNlcg==", "Bearer tta_short", mistyped.as_str()];
    for line in lines.map(Some).into_iter().chain([None]) {
        assert_eq!(allocations(line), 0, "{line:?}");
    }
}

/// The allocations of calls with a proved token, and of answering them.
fn hot_allocations(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> (u64, u64) {
    let bench = Bench::with(|builder| configure(builder.audit(NoAudit::new())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let token = runtime.block_on(bench.hot(Scope::ReadWrite));
    let mut service =
        bench.auth.layer(service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty())))));
    // The second of these is when this thread copies the entry, once.
    for _ in 0..3 {
        assert_eq!(service.call(bearer(&token)).now_or_never().unwrap().unwrap().status(), 200);
    }
    let (mut called, mut answered) = (0, 0);
    for _ in 0..100 {
        let request = bearer(&token);
        let mut answer = None;
        called += allocation_counter::measure(|| answer = Some(service.call(request))).count_total;
        let mut response = None;
        answered += allocation_counter::measure(|| response = answer.take().unwrap().now_or_never()).count_total;
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    (called, answered)
}

#[test]
fn what_is_asked_beside_the_store_costs_a_hot_token_nothing() {
    let plain = hot_allocations(|builder| builder);
    let asked = hot_allocations(|builder| {
        let policy = IssuePolicy::default().force_read_only(true);
        let reported = builder.policy_at_use(policy).insecure_report_only_scope().insecure_report_only_policy();
        reported.owners(Scripted::new(true))
    });
    assert_eq!(asked, plain);
    let stamped = hot_allocations(TokenAuthBuilder::token_headers);
    assert_eq!(plain.1, 0, "an answer that is not stamped");
    assert_eq!(stamped.0, plain.0);
    assert!(stamped.1 > 0, "the twin");
}

/// The allocations of 100 admitted calls with a token that is hot, in a second in which its use was noted.
async fn admissions(kept: bool) -> u64 {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
    let builder = TokenAuthLayer::builder(store.clone()).hasher(Sha256Hasher::new()).audit(NoAudit::new()).clock(clock);
    let auth = if kept { builder.upkeep(store).build() } else { builder.build() }.unwrap();
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut service = auth.layer(inner);
    // The third of these is when this thread copies the entry, once.
    for _ in 0..3 {
        assert_eq!(service.call(bearer(&token)).await.unwrap().status(), 200);
    }
    assert_eq!(auth.handle().stats().upkeep.noted, u64::from(kept));
    let mut count = 0;
    for _ in 0..100 {
        let request = bearer(&token);
        let mut answer = None;
        count += allocation_counter::measure(|| answer = Some(service.call(request))).count_total;
        assert_eq!(answer.unwrap().await.unwrap().status(), 200);
    }
    count
}

#[tokio::test]
async fn noting_uses_allocates_nothing_where_none_is_due() {
    assert_eq!(admissions(true).await, admissions(false).await);
}

/// The allocations of one call: of deciding on it, and of the inner service's or the gate's answer to it. Every one of
/// 100 calls has the same.
fn each_call(mut service: impl Gated, request: impl Fn() -> Request<Body>, status: u16) -> (u64, u64) {
    let counts = (0..103).map(|_| {
        let request = request();
        let (mut answer, mut response) = (None, None);
        let called = allocation_counter::measure(|| answer = Some(service.call(request))).count_total;
        let answered = allocation_counter::measure(|| response = answer.take().unwrap().now_or_never()).count_total;
        assert_eq!(response.unwrap().unwrap().status(), status);
        (called, answered)
    });
    // The first calls are those of a token that has just come.
    let counts: Vec<_> = counts.skip(3).collect();
    assert_eq!(counts, [counts[0]; 100], "every call is alike");
    counts[0]
}

trait Gated: Service<Request<Body>, Response = Response<ResponseBody<Body>>, Error = Infallible> {}

impl<S: Service<Request<Body>, Response = Response<ResponseBody<Body>>, Error = Infallible>> Gated for S {}

/// A gate over one token that it has met, before a service that allocates nothing.
fn met(scope: Scope, configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> (impl Gated, PlaintextToken) {
    let store = MemoryStore::new();
    let token = mint(&store, "alice", scope).now_or_never().unwrap().unwrap();
    let builder = configure(TokenAuthLayer::builder(store).hasher(Sha256Hasher::new()));
    let inner = service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::default()))));
    let mut service = builder.build().unwrap().layer(inner);
    assert_eq!(service.call(bearer(&token)).now_or_never().unwrap().unwrap().status(), 200);
    (service, token)
}

#[test]
fn a_hit_allocates_for_the_extension_only() {
    let hit = |in_use: bool, configure: fn(TokenAuthBuilder) -> TokenAuthBuilder| {
        let (service, token) = met(Scope::ReadOnly, configure);
        let request = || {
            let mut request = bearer(&token);
            if in_use {
                request.extensions_mut().insert("of an outer layer");
            }
            request
        };
        each_call(service, request, 200)
    };
    assert_eq!(hit(false, |builder| builder), (3, 0), "the extensions' map, its table and the token");
    assert_eq!(hit(true, |builder| builder), (1, 0), "the token");
    assert_eq!(hit(false, TokenAuthBuilder::without_extension), (0, 0));
}

#[test]
fn events_that_nobody_listens_to_allocate_nothing() {
    let hit = |builder: fn(TokenAuthBuilder) -> TokenAuthBuilder| {
        let (service, token) = met(Scope::ReadOnly, builder);
        each_call(service, || bearer(&token), 200)
    };
    assert_eq!(hit(|builder| builder), hit(|builder| builder.audit(NoAudit::new())));
}

#[test]
fn a_refusal_allocates_for_its_response_so_often() {
    let refusal = |line: Option<&str>, status| {
        let (service, _) = met(Scope::ReadOnly, |builder| builder.audit(NoAudit::new()));
        let request = || {
            let mut request = Request::new(Body::default());
            if let Some(line) = line {
                request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
            }
            request
        };
        each_call(service, request, status)
    };
    let lines = [
        (None, 401),
        (Some("Basic dXNlcg=="), 401),
        (Some("Bearer two words"), 400),
        (Some("Bearer ghp_of_somebody_else"), 401),
        (Some("Bearer tta_0123456789abcdef_short"), 401),
    ];
    for (line, status) in lines {
        assert_eq!(refusal(line, status), (2, 0), "{line:?}");
    }
    let (service, token) = met(Scope::ReadOnly, |builder| builder.audit(NoAudit::new()));
    let write = || {
        let mut request = bearer(&token);
        *request.method_mut() = Method::POST;
        request
    };
    assert_eq!(each_call(service, write, 403), (3, 0), "forbidden");
}

#[test]
fn a_proved_token_takes_no_more_memory_than_is_said() {
    const TOKENS: usize = 10_000;
    let store = MemoryStore::new();
    let mint = || mint(&store, "alice", Scope::ReadOnly).now_or_never().unwrap().unwrap();
    let tokens: Vec<PlaintextToken> = (0..TOKENS).map(|_| mint()).collect();
    // The system's timers are given back by a thread that is not counted.
    let builder = TokenAuthLayer::builder(store).hasher(Sha256Hasher::new()).clock(ManualClock::default());
    let inner = service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let mut service = builder.audit(NoAudit::new()).build().unwrap().layer(inner);
    let mut show = |token| assert_eq!(service.call(bearer(token)).now_or_never().unwrap().unwrap().status(), 200);
    show(&tokens[0]);
    let held = allocation_counter::measure(|| tokens[1..].iter().for_each(show)).bytes_current;
    let bytes = usize::try_from(held).unwrap() / (TOKENS - 1);
    // The owner's text is shared with the store; 26 bytes are of tables and queues that have room for more.
    assert!((150..=220).contains(&bytes), "{bytes} bytes");
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8])));
    assert_eq!(counted.count_total, 1);
}
