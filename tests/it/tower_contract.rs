//! G12: the gate keeps tower's contract, and fits where tower services go.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, poll_fn};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use tower::buffer::Buffer;
use tower::util::{BoxCloneService, BoxCloneSyncService};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::cors::{Any, CorsLayer};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tower_token_auth::{PlaintextToken, ResponseBody, Scope, TokenAuthLayer};

use crate::cache_rules::bench::{Bench, bearer};

/// What became of the readiness a [`Strict`] service handed out.
#[derive(Debug, Default)]
struct Counts {
    taken: AtomicUsize,
    used: AtomicUsize,
    given_back: AtomicUsize,
}

impl Counts {
    fn all(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (read(&self.taken), read(&self.used), read(&self.given_back))
    }
}

/// A service that panics when it is called without having been made ready. A clone of it is not ready.
struct Strict {
    ready: bool,
    counts: Arc<Counts>,
}

impl Strict {
    fn new() -> (Self, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Self { ready: false, counts: Arc::clone(&counts) }, counts)
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, counts: Arc::clone(&self.counts) }
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        if self.ready {
            self.counts.given_back.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl<B> Service<Request<B>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !std::mem::replace(&mut self.ready, true) {
            self.counts.taken.fetch_add(1, Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::replace(&mut self.ready, false), "called without having been made ready");
        self.counts.used.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::new(Full::from("done"))))
    }
}

async fn make_ready<S: Service<Request<Body>, Error = Infallible>>(gate: &mut S) {
    poll_fn(|cx| gate.poll_ready(cx)).await.unwrap();
}

fn anonymous() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

async fn done(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("done")))
}

#[tokio::test]
async fn on_a_hit_the_readiness_taken_is_the_readiness_used() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let (inner, counts) = Strict::new();
    let mut gate = bench.auth.layer(inner);
    for calls in 1..=3 {
        make_ready(&mut gate).await;
        let response = gate.call(bearer(&token)).now_or_never().expect("a hit is answered on the first poll").unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(counts.all(), (calls, calls, 0), "(taken, used, given back)");
    }
}

#[tokio::test]
async fn on_a_cold_path_the_readiness_is_given_back_and_taken_again() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let (inner, counts) = Strict::new();
    let mut gate = bench.auth.layer(inner);
    make_ready(&mut gate).await;
    let response = gate.call(bearer(&token));
    assert_eq!(counts.all(), (1, 0, 1), "given back while the store is asked");
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    assert_eq!(counts.all(), (2, 1, 1), "(taken, used, given back)");
}

#[tokio::test]
async fn a_refusal_gives_the_readiness_back_before_it_is_polled() {
    let bench = Bench::new();
    let (inner, counts) = Strict::new();
    let mut gate = bench.auth.layer(inner);
    make_ready(&mut gate).await;
    let refusal = gate.call(anonymous());
    assert_eq!(counts.all(), (1, 0, 1), "(taken, used, given back)");
    assert_eq!(refusal.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(counts.all(), (1, 0, 1), "(taken, used, given back)");
}

#[tokio::test]
async fn a_cold_request_that_is_refused_takes_no_second_readiness() {
    let bench = Bench::new();
    let (inner, counts) = Strict::new();
    let response = bench.auth.layer(inner).oneshot(bearer(&bench.stranger())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(counts.all(), (1, 0, 1), "(taken, used, given back)");
}

#[tokio::test]
async fn an_inner_service_that_is_not_ready_makes_the_gate_wait() {
    let bench = Bench::new();
    let (inner, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    handle.allow(0);
    let mut gate = bench.auth.layer(inner);
    assert!(poll_fn(|cx| gate.poll_ready(cx)).now_or_never().is_none(), "not ready");
    handle.allow(1);
    assert!(poll_fn(|cx| gate.poll_ready(cx)).now_or_never().is_some(), "ready");
}

#[tokio::test]
async fn an_error_of_the_inner_service_comes_through() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let gate = bench.auth.layer(service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>("broken") }));
    assert_eq!(gate.clone().oneshot(bearer(&token)).await.unwrap_err(), "broken", "cold");
    assert_eq!(gate.oneshot(bearer(&token)).await.unwrap_err(), "broken", "hot");
}

#[tokio::test]
async fn a_cold_request_whose_store_hangs_holds_no_capacity() {
    let bench = Bench::new();
    let (hot, cold) = (bench.hot(Scope::ReadOnly).await, bench.token(Scope::ReadOnly).await);
    let mut gate = ServiceBuilder::new().layer(bench.auth.clone()).concurrency_limit(1).service_fn(done);
    bench.store.hang();
    make_ready(&mut gate).await;
    let mut waiting = std::pin::pin!(gate.call(bearer(&cold)));
    assert!(waiting.as_mut().now_or_never().is_none(), "the store hangs");
    assert_eq!(admitted(&mut gate, &hot), Some(StatusCode::OK));
    assert!(waiting.as_mut().now_or_never().is_none(), "the store hangs still");
}

#[tokio::test]
async fn a_refusal_that_nobody_polls_holds_no_capacity() {
    let bench = Bench::new();
    let hot = bench.hot(Scope::ReadOnly).await;
    let mut gate = ServiceBuilder::new().layer(bench.auth.clone()).concurrency_limit(1).service_fn(done);
    make_ready(&mut gate).await;
    let _unpolled = gate.call(anonymous());
    assert_eq!(admitted(&mut gate, &hot), Some(StatusCode::OK));
}

#[tokio::test]
async fn an_admitted_request_holds_its_capacity_until_it_is_done() {
    let bench = Bench::new();
    let hot = bench.hot(Scope::ReadOnly).await;
    let mut gate = ServiceBuilder::new().layer(bench.auth.clone()).concurrency_limit(1).service_fn(done);
    make_ready(&mut gate).await;
    let unfinished = gate.call(bearer(&hot));
    assert_eq!(admitted(&mut gate, &hot), None, "the one place is taken");
    drop(unfinished);
    assert_eq!(admitted(&mut gate, &hot), Some(StatusCode::OK));
}

/// The answer of a service that gives one at once; `None` where it is not ready.
#[track_caller]
fn admitted<S, R>(gate: &mut S, token: &PlaintextToken) -> Option<StatusCode>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
{
    poll_fn(|cx| gate.poll_ready(cx)).now_or_never()?.unwrap();
    let response = gate.call(bearer(token)).now_or_never().expect("a hit is answered on the first poll");
    Some(response.unwrap().status())
}

/// Anonymous requests are refused, cold and hot ones admitted.
async fn assert_guards<S, R>(bench: &Bench, service: S)
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: std::fmt::Debug,
{
    let token = bench.token(Scope::ReadOnly).await;
    for (request, expected) in [(anonymous(), 401), (bearer(&token), 200), (bearer(&token), 200)] {
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
    }
}

#[tokio::test]
async fn it_works_in_a_buffer() {
    let bench = Bench::new();
    let (inner, _) = Strict::new();
    assert_guards(&bench, Buffer::new(bench.auth.layer(inner), 4)).await;
}

#[tokio::test]
async fn it_works_over_a_buffer() {
    let bench = Bench::new();
    let (inner, _) = Strict::new();
    assert_guards(&bench, bench.auth.layer(Buffer::new(inner, 4))).await;
}

#[tokio::test]
async fn it_works_boxed() {
    let bench = Bench::new();
    let (inner, _) = Strict::new();
    assert_guards(&bench, BoxCloneService::new(bench.auth.layer(inner.clone()))).await;
    assert_guards(&bench, BoxCloneSyncService::new(bench.auth.layer(inner.clone()))).await;
    assert_guards(&bench, bench.auth.layer(BoxCloneService::new(inner))).await;
}

#[tokio::test]
async fn it_works_in_a_service_builder() {
    let bench = Bench::new();
    let (inner, _) = Strict::new();
    let service = ServiceBuilder::new()
        .map_request(|request: Request<Body>| request)
        .layer(bench.auth.clone())
        .map_response(|response: Response<Full<Bytes>>| response)
        .concurrency_limit(8)
        .service(inner);
    assert_guards(&bench, service).await;
}

fn routes() -> Router {
    Router::new().route("/", get(|| async { "done" }))
}

#[tokio::test]
async fn a_router_can_be_layered() {
    let bench = Bench::new();
    let app = routes().layer(bench.auth.clone());
    assert_guards(&bench, app.clone()).await;
    let elsewhere = Request::get("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(elsewhere).await.unwrap().status(), 401, "`layer` covers the fallback");
}

#[tokio::test]
async fn a_routers_routes_can_be_layered() {
    let bench = Bench::new();
    let app = routes().route_layer(bench.auth.clone());
    assert_guards(&bench, app.clone()).await;
    let elsewhere = Request::get("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(elsewhere).await.unwrap().status(), 404, "`route_layer` leaves the fallback open");
}

#[tokio::test]
async fn a_nested_router_can_be_layered() {
    let bench = Bench::new();
    let app =
        Router::new().nest("/api", routes().route_layer(bench.auth.clone())).route("/open", get(|| async { "open" }));
    let token = bench.token(Scope::ReadOnly).await;
    let ask = |path: &str, token: Option<&PlaintextToken>| {
        let mut request = token.map_or_else(anonymous, bearer);
        *request.uri_mut() = path.parse().unwrap();
        let app = app.clone();
        async move { app.oneshot(request).await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("/api", None).await, 401);
    assert_eq!(ask("/api", Some(&token)).await, 200);
    assert_eq!(ask("/open", None).await, 200);
}

#[tokio::test]
async fn bodies_and_futures_of_the_inner_service_need_not_be_send() {
    #[derive(Clone)]
    struct Local(Rc<()>);
    impl Service<Request<Rc<str>>> for Local {
        type Response = Response<Rc<str>>;
        type Error = Infallible;
        type Future = LocalBoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Rc<str>>) -> Self::Future {
            let held = Rc::clone(&self.0);
            async move {
                tokio::task::yield_now().await;
                drop(held);
                Ok(Response::new(request.into_body()))
            }
            .boxed_local()
        }
    }
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    for _cold_then_hot in 0..2 {
        let request = bearer(&token).map(|_| Rc::from("local"));
        let response = bench.auth.layer(Local(Rc::new(()))).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_tonic_server_can_be_layered() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let inner = service_fn(|request: Request<tonic::body::Body>| async {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    for _cold_then_hot in 0..2 {
        let request = bearer(&token).map(tonic::body::Body::new);
        assert_eq!(bench.auth.layer(inner).oneshot(request).await.unwrap().status(), StatusCode::OK);
    }
    let server = tonic::transport::Server::builder().layer(bench.auth.clone());
    // That it compiles is what it shows: nothing is bound before the first poll.
    drop({ server }.add_routes(tonic::service::Routes::default()).serve(([127, 0, 0, 1], 0).into()));
}

fn cross_origin(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert(ORIGIN, HeaderValue::from_static("https://app.example"));
    request
}

#[tokio::test]
async fn cors_outside_answers_the_preflight_and_marks_refusals() {
    let bench = Bench::new();
    let (inner, counts) = Strict::new();
    let cors = CorsLayer::new().allow_origin(Any).allow_methods([Method::GET]).allow_headers([AUTHORIZATION]);
    let service = ServiceBuilder::new().layer(cors).layer(bench.auth.clone()).service(inner);

    let mut preflight = cross_origin(anonymous());
    *preflight.method_mut() = Method::OPTIONS;
    preflight.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
    preflight.headers_mut().insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization"));
    let answer = service.clone().oneshot(preflight).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "authorization");

    let refusal = service.clone().oneshot(cross_origin(anonymous())).await.unwrap();
    assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refusal.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(refusal.headers().contains_key(WWW_AUTHENTICATE));
    assert_eq!(counts.used.load(Ordering::SeqCst), 0);

    let token = bench.token(Scope::ReadOnly).await;
    let admitted = service.oneshot(cross_origin(bearer(&token))).await.unwrap();
    assert_eq!(admitted.status(), StatusCode::OK);
    assert_eq!(admitted.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
}

/// What a subscriber at TRACE has written.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[track_caller]
fn assert_no_secret(text: &str, token: &PlaintextToken) {
    let secret = token.secret().expose();
    for at in 0..=secret.len() - 8 {
        assert!(!text.contains(&secret[at..at + 8]), "8 bytes of the secret, from {at}, in:\n{text}");
    }
}

#[tokio::test]
async fn trace_outside_shows_no_credentials() {
    let bench = Bench::with(|builder| builder.audit(tower_token_auth::TracingSink::new()));
    let token = bench.token(Scope::ReadOnly).await;
    let captured = Captured::default();
    let _listening = captured.listen();
    let service = ServiceBuilder::new().layer(TraceLayer::new_for_http()).layer(bench.auth.clone()).service_fn(done);
    for (request, expected) in [(bearer(&token), 200), (bearer(&token), 200), (bearer(&bench.stranger()), 401)] {
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
        response.into_body().collect().await.unwrap();
    }
    let text = captured.text();
    assert!(text.contains("finished processing request"), "the layer outside did trace:\n{text}");
    assert!(text.contains("tower_token_auth::audit"), "the gate did trace:\n{text}");
    assert_no_secret(&text, &token);
}

#[tokio::test]
async fn trace_inside_shows_no_credentials_even_with_headers() {
    for keep in [false, true] {
        let bench = Bench::with(|builder| if keep { builder.keep_authorization() } else { builder });
        let token = bench.token(Scope::ReadOnly).await;
        let captured = Captured::default();
        let _listening = captured.listen();
        let spans = DefaultMakeSpan::new().include_headers(true).level(tracing::Level::INFO);
        let service = ServiceBuilder::new()
            .layer(bench.auth.clone())
            .layer(TraceLayer::new_for_http().make_span_with(spans))
            .service_fn(done);
        for _cold_then_hot in 0..2 {
            assert_eq!(service.clone().oneshot(bearer(&token)).await.unwrap().status(), StatusCode::OK);
        }
        let text = captured.text();
        assert!(text.contains("headers="), "the layer inside did trace headers:\n{text}");
        assert_eq!(text.contains("Sensitive"), keep, "kept headers are marked:\n{text}");
        assert_no_secret(&text, &token);
    }
}

#[test]
fn a_default_body_is_empty() {
    let body = ResponseBody::<Full<Bytes>>::default();
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    let body = body.collect().now_or_never().expect("nothing to wait for").unwrap();
    assert!(body.to_bytes().is_empty());
}

#[tokio::test]
async fn a_refusals_body_knows_its_size() {
    let bench = Bench::new();
    let (inner, _) = Strict::new();
    let body = bench.auth.layer(inner).oneshot(anonymous()).await.unwrap().into_body();
    let size = body.size_hint().exact().expect("a known size");
    assert!(!body.is_end_stream());
    assert_eq!(body.collect().await.unwrap().to_bytes().len() as u64, size);
}

#[tokio::test]
async fn the_inner_services_body_comes_through_with_its_size_and_trailers() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let gate = bench.auth.layer(service_fn(|_: Request<Body>| async {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))]);
        let body = Full::new(Bytes::from("done")).with_trailers(ready(Some(Ok(trailers))));
        Ok::<_, Infallible>(Response::new(body))
    }));
    for _cold_then_hot in 0..2 {
        let body = gate.clone().oneshot(bearer(&token)).await.unwrap().into_body();
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()[http::header::ETAG], "\"1\"");
        assert_eq!(collected.to_bytes(), "done");
    }
    let sized = bench.auth.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("done"))))
    }));
    let body = sized.oneshot(bearer(&token)).await.unwrap().into_body();
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
}

#[tokio::test]
async fn head_is_judged_and_answered_like_get() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let app = routes().route_layer(bench.auth.clone());
    let head = |mut request: Request<Body>| {
        *request.method_mut() = Method::HEAD;
        app.clone().oneshot(request)
    };
    let admitted = head(bearer(&token)).await.unwrap();
    assert_eq!(admitted.status(), StatusCode::OK);
    assert!(admitted.into_body().collect().await.unwrap().to_bytes().is_empty());
    let (by_head, by_get) = (head(anonymous()).await.unwrap(), app.clone().oneshot(anonymous()).await.unwrap());
    assert_eq!(by_head.status(), by_get.status());
    assert_eq!(by_head.headers()[WWW_AUTHENTICATE], by_get.headers()[WWW_AUTHENTICATE]);
}

#[test]
fn layer_and_service_can_be_sent_shared_and_cloned() {
    fn assert_all<T: Send + Sync + Clone + 'static>() {}
    assert_all::<TokenAuthLayer>();
    assert_all::<tower_token_auth::TokenAuth<Strict>>();
}
