//! Every scope, method, header and declaration, through the whole layer, cold, hot and refreshed.
//!
//! What is expected is written down here once more, from the rules in the documentation and not from the code.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::{Access, Scope, TokenAuthLayer};

use crate::cache_rules::bench::Bench;

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
