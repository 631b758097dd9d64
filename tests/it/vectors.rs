//! Test vectors that other projects wrote, each driven through the whole layer.
//!
//! A line of `tests/vectors/authorization.jsonl` gives the `Authorization` lines of a request, each character one
//! octet, and what they are: `missing`, `malformed`, or a `token`. None of the tokens is ours.

use std::convert::Infallible;

use axum::body::Body;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use serde_json::Value;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::TokenAuthLayer;

use crate::cache_rules::bench::Bench;

const VECTORS: &str = include_str!("../vectors/authorization.jsonl");

/// The octets of each `Authorization` line.
fn octets(vector: &Value) -> Vec<Vec<u8>> {
    let octet = |char| u8::try_from(u32::from(char)).unwrap();
    let lines = vector["authorization"].as_array().unwrap();
    lines.iter().map(|line| line.as_str().unwrap().chars().map(octet).collect()).collect()
}

/// The request, unless a line can be no header value.
fn request(vector: &Value) -> Option<Request<Body>> {
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    for line in octets(vector) {
        request.headers_mut().append(AUTHORIZATION, HeaderValue::from_bytes(&line).ok()?);
    }
    Some(request)
}

async fn answer(auth: &TokenAuthLayer, request: Request<Body>) -> (u16, String) {
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let response = auth.layer(inner).oneshot(request).await.unwrap();
    let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned();
    (response.status().as_u16(), challenge)
}

fn expected(kind: &str) -> (u16, String, &'static str) {
    let challenge = |rest: &str| format!("Bearer realm=\"api\"{rest}");
    match kind {
        "missing" => (401, challenge(""), "refused missing"),
        "malformed" => (400, challenge(", error=\"invalid_request\""), "refused malformed"),
        _ => (401, challenge(", error=\"invalid_token\""), "refused bad_format"),
    }
}

#[tokio::test]
async fn every_vector_holds() {
    let bench = Bench::new();
    let (mut driven, mut no_header) = (0, 0);
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let kind = vector["expect"].as_str().unwrap();
        let Some(request) = request(&vector) else {
            // What the header type refuses reaches no server; all of these are malformed.
            assert_eq!(kind, "malformed", "{line}");
            no_header += 1;
            continue;
        };
        let (status, challenge, event) = expected(kind);
        assert_eq!(answer(&bench.auth, request).await, (status, challenge), "{line}");
        bench.assert_last(event);
        driven += 1;
    }
    assert_eq!((driven, no_header), (81, 1), "lines driven, and lines that are no header value");
    assert_eq!(bench.counts(), (0, 0), "look-ups and hashes");
}
