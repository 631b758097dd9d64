//! Every scope, method, header and declaration, through the whole layer, cold, hot and refreshed.
//!
//! What is expected is written down here once more, from the rules in the documentation and not from the code.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::{Access, PlaintextToken, Scope, TokenAuthLayer};

use crate::cache_rules::bench::{Bench, bearer, status};

const METHODS: [&str; 22] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "SEARCH",
    "REPORT",
    "CHECKIN",
    "get",
    "XYZZY",
];

type Header = (&'static str, &'static str);

/// A header, and whether a request that carries it asks for a protocol, or overrides its method to a write.
const HEADERS: [(Option<Header>, bool, bool); 15] = [
    (None, false, false),
    (Some(("upgrade", "websocket")), true, false),
    (Some(("upgrade", "WebSocket")), true, false),
    (Some(("upgrade", "h2c, websocket")), true, false),
    (Some(("upgrade", "TLS/1.0")), true, false),
    (Some(("upgrade", "h2c")), false, false),
    (Some(("upgrade", "H2C")), false, false),
    (Some(("upgrade", "")), false, false),
    (Some(("connection", "upgrade")), false, false),
    (Some(("x-http-method-override", "DELETE")), false, true),
    (Some(("x-http-method", "post")), false, true),
    (Some(("x-method-override", "PUT")), false, true),
    (Some(("x-http-method-override", "GET")), false, false),
    (Some(("x-http-method", "HEAD")), false, false),
    (Some(("x-method-override", "OPTIONS")), false, false),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Declared {
    Nothing,
    Required(Access),
    Classified(Access),
}

const DECLARED: [Declared; 5] = [
    Declared::Nothing,
    Declared::Required(Access::Read),
    Declared::Required(Access::Write),
    Declared::Classified(Access::Read),
    Declared::Classified(Access::Write),
];

fn writes(method: &str, upgrades: bool, overrides: bool, declared: Declared) -> bool {
    let by_method = !matches!(method, "GET" | "HEAD" | "OPTIONS");
    let base = match declared {
        Declared::Required(access) | Declared::Classified(access) => access == Access::Write,
        Declared::Nothing => by_method,
    };
    let opens = (upgrades || method == "CONNECT") && declared != Declared::Required(Access::Read);
    base || overrides || opens
}

struct Cells {
    bench: Bench,
    declared: Declared,
    layer: TokenAuthLayer,
    inner: Arc<AtomicUsize>,
}

impl Cells {
    fn new(declared: Declared) -> Self {
        let bench = Bench::with(|builder| match declared {
            Declared::Classified(access) => builder.access(move |_| Some(access)),
            _ => builder,
        });
        let layer = match declared {
            Declared::Required(access) => bench.auth.requiring(access),
            _ => bench.auth.clone(),
        };
        Self { bench, declared, layer, inner: Arc::default() }
    }

    /// The status of one request, and how often the inner service was called for it.
    async fn send(&self, token: &str, method: &str, header: Option<Header>) -> (u16, usize) {
        let mut request = Request::builder().method(method).uri("/").header(AUTHORIZATION, format!("Bearer {token}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let calls = Arc::clone(&self.inner);
        let inner = service_fn(move |_: Request<Body>| {
            calls.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        let before = self.inner.load(Ordering::Relaxed);
        let response = self.layer.layer(inner).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (response.status().as_u16(), self.inner.load(Ordering::Relaxed) - before)
    }

    /// The same request cold, hot and refreshed; each has to be answered alike.
    async fn check(&self, scope: Scope, method: &str, (header, upgrades, overrides): (Option<Header>, bool, bool)) {
        let token = self.bench.token(scope).await;
        let refused = scope == Scope::ReadOnly && writes(method, upgrades, overrides, self.declared);
        let expected = if refused { (403, 0) } else { (200, 1) };
        for temperature in ["cold", "hot", "refreshed"] {
            let finds = self.bench.store.finds();
            let answer = self.send(token.expose(), method, header).await;
            let cell = format!("{scope} {method} {header:?} {:?} {temperature}", self.declared);
            assert_eq!(answer, expected, "(status, inner calls) of {cell}");
            assert_eq!(self.bench.store.finds() - finds, usize::from(temperature != "hot"), "look-ups of {cell}");
            if temperature == "hot" {
                self.bench.clock.advance(Duration::from_secs(31));
            }
        }
    }
}

async fn matrix(declared: Declared) {
    let cells = Cells::new(declared);
    for method in METHODS {
        for header in HEADERS {
            // The read-write token is the twin of each refusal: one fact differs.
            cells.check(Scope::ReadOnly, method, header).await;
            cells.check(Scope::ReadWrite, method, header).await;
        }
    }
    assert_eq!(cells.bench.hasher.verifications(), METHODS.len() * HEADERS.len() * 2, "one hash a token");
}

#[tokio::test]
async fn every_cell_of_the_matrix_holds() {
    for declared in DECLARED {
        matrix(declared).await;
    }
}

#[test]
fn the_oracle_knows_both_answers() {
    assert!(!writes("GET", false, false, Declared::Nothing));
    assert!(writes("QUERY", false, false, Declared::Nothing));
    assert!(writes("GET", true, false, Declared::Classified(Access::Read)));
    assert!(!writes("CONNECT", true, false, Declared::Required(Access::Read)));
}

/// The headers that the inner service sees of a GET with these.
async fn seen(bench: &Bench, token: &PlaintextToken, headers: &[Header]) -> HeaderMap {
    let mut request = bearer(token);
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let seen = Arc::new(Mutex::new(None));
    let inner = service_fn(|request: Request<Body>| {
        *seen.lock().unwrap() = Some(request.headers().clone());
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    assert_eq!(bench.auth.layer(inner).oneshot(request).await.unwrap().status(), 200);
    let headers = seen.lock().unwrap().take();
    headers.expect("the inner service was called")
}

#[tokio::test]
async fn h2c_alone_goes_on_as_plain_http() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadWrite).await;
    for temperature in ["cold", "hot"] {
        let settings = ("http2-settings", "AAMAAABk");
        let plain = seen(&bench, &token, &[("upgrade", "h2c"), settings, ("accept", "*/*")]).await;
        assert_eq!(plain.keys().collect::<Vec<_>>(), ["accept"], "{temperature}");
        let socket = seen(&bench, &token, &[("upgrade", "websocket"), settings]).await;
        assert_eq!(
            (&socket["upgrade"], &socket[settings.0]),
            (&"websocket".parse().unwrap(), &settings.1.parse().unwrap())
        );
    }
}

/// The statuses of GET and POST with a read-only token, cold and hot.
async fn read_only_statuses(bench: &Bench) -> [[u16; 2]; 2] {
    let mut statuses = [[0; 2]; 2];
    for (statuses, method) in statuses.iter_mut().zip([Method::GET, Method::POST]) {
        let token = bench.token(Scope::ReadOnly).await;
        for status in statuses {
            let mut request = bearer(&token);
            *request.method_mut() = method.clone();
            let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
            *status = bench.auth.layer(inner).oneshot(request).await.unwrap().status().as_u16();
        }
    }
    statuses
}

#[tokio::test]
async fn a_classifier_that_answers_nothing_leaves_it_to_the_method() {
    let silent = Bench::with(|builder| builder.access(|_| None));
    assert_eq!(read_only_statuses(&silent).await, [[200; 2], [403; 2]]);
    let answering = Bench::with(|builder| builder.access(|_| Some(Access::Read)));
    assert_eq!(read_only_statuses(&answering).await, [[200; 2]; 2], "the twin");
}

#[tokio::test]
async fn a_classifier_that_panics_decides_nothing() {
    let panicking = Bench::with(|builder| builder.access(|_| panic!("as told")));
    assert_eq!(read_only_statuses(&panicking).await, [[503; 2]; 2]);
    panicking.assert_last("unavailable closure_panicked");
    let token = panicking.token(Scope::ReadOnly).await;
    let required = panicking.auth.requiring(Access::Read);
    assert_eq!(status(&required, token.expose()).await, 200, "the twin: nobody asks the classifier");
}
