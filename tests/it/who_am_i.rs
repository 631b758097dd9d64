//! The handler that tells clients of their own token.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_token_auth::test_util::{ManualClock, assert_refuses_anonymous};
use tower_token_auth::{
    AuthenticatedToken, Change, IssuePolicy, Label, PlaintextToken, RetiringSecret, Scope, TokenRegistry, who_am_i,
};

use crate::cache_rules::bench::{Bench, bearer};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn app() -> Router {
    Router::new().route("/", get(who_am_i))
}

async fn ask(app: Router, request: Request<Body>) -> (u16, HeaderMap, Vec<u8>) {
    let response = app.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

/// What the handler says, as somebody else's parser reads it.
async fn told(bench: &Bench, token: &PlaintextToken) -> Value {
    let (status, _, body) = ask(app().route_layer(bench.auth.clone()), bearer(token)).await;
    assert_eq!(status, 200);
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn a_client_is_told_of_its_token() {
    let bench = Bench::new();
    let (token, record) = bench.draft(Scope::ReadOnly);
    bench.store.insert(record.with_expiry(Some(ManualClock::START + DAY))).await.unwrap();
    let expected = json!({
        "id": token.id().as_str(),
        "label": "test token",
        "scope": "read-only",
        "expires_at": (ManualClock::START + DAY).to_string(),
    });
    for _cold_then_hot in 0..2 {
        assert_eq!(told(&bench, &token).await, expected);
    }
}

#[tokio::test]
async fn a_token_that_never_ends_says_so() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadWrite).await;
    let told = told(&bench, &token).await;
    assert_eq!((&told["scope"], told.get("expires_at")), (&json!("read-write"), Some(&Value::Null)));
}

#[tokio::test]
async fn a_limited_token_is_told_what_was_issued() {
    let bench = Bench::with(|builder| builder.policy_at_use(IssuePolicy::default().force_read_only(true)));
    let limited = told(&bench, &bench.token(Scope::ReadWrite).await).await;
    assert_eq!((&limited["scope"], &limited["issued_scope"]), (&json!("read-only"), &json!("read-write")));
    let read_only = told(&bench, &bench.token(Scope::ReadOnly).await).await;
    assert_eq!(read_only.get("issued_scope"), None, "the twin");
}

#[tokio::test]
async fn who_presents_a_replaced_secret_is_told_its_end() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(told(&bench, &token).await.get("works_until"), None);
    let (_, other) = bench.draft(Scope::ReadOnly);
    let until = ManualClock::START + DAY;
    let retiring = RetiringSecret::new(bench.record(&token).await.secret().clone(), until);
    bench.change(&token, Change::Secrets { secret: other.secret().clone(), retiring: Some(retiring) }).await;
    bench.invalidate(&token.id());
    let told = told(&bench, &token).await;
    assert_eq!((&told["works_until"], &told["expires_at"]), (&json!(until.to_string()), &Value::Null));
}

#[tokio::test]
async fn every_label_comes_out_as_it_is() {
    let bench = Bench::new();
    for label in
        ["a \"quoted\" \\ label", "</script><script>", "čaj 茶 🫖", "{\"scope\":\"read-write\"}", "%00 \\u0000", "'"]
    {
        let (token, record) = bench.draft(Scope::ReadOnly);
        bench.store.insert(record.with_label(Label::new(label).unwrap())).await.unwrap();
        let told = told(&bench, &token).await;
        assert_eq!((&told["label"], &told["scope"]), (&json!(label), &json!("read-only")), "{told}");
    }
}

#[tokio::test]
async fn nothing_of_it_is_cached_and_it_is_json() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let (_, headers, _) = ask(app().route_layer(bench.auth.clone()), bearer(&token)).await;
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert_eq!(headers[CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn it_is_for_who_has_a_token() {
    let bench = Bench::new();
    assert_refuses_anonymous::<_, Body, _>(app().route_layer(bench.auth.clone()), ["/"]).await;
    let (status, _, body) = ask(app(), Request::new(Body::empty())).await;
    assert_eq!(status, 500);
    assert!(String::from_utf8(body).unwrap().contains("not under a TokenAuthLayer"));
}

#[tokio::test]
async fn a_token_made_for_a_test_can_be_told_of() {
    let token = AuthenticatedToken::builder("alice", "laptop", Scope::ReadOnly).build().unwrap();
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(token);
    let (status, _, body) = ask(app(), request).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &told["label"]), (200, &json!("laptop")));
}
