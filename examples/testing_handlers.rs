//! Testing handlers under the layer, with the feature `test-util`.
//!
//! `cargo run --example testing_handlers` runs four tests as an application would write them; each fails the program.
//! What a handler does with its token needs no gate; what the gate lets through needs no port and no argon2.
#![expect(clippy::print_stdout, reason = "a demonstration talks to whoever started it")]

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use axum::{Router, routing::get};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_token_auth::test_util::{ManualClock, RecordingSink, assert_refuses_anonymous, draft, mint};
use tower_token_auth::{
    AuthenticatedToken, Clock, MemoryStore, Outcome, Scope, Sha256Hasher, TokenAuthLayer, TokenRegistry,
};

type AnyError = Box<dyn Error + Send + Sync>;

async fn list(token: AuthenticatedToken) -> String {
    format!("the issues of {}", token.owner())
}

fn routes() -> Router {
    Router::new().route("/issues", get(list).post(|| async { "created" })).route("/about", get(|| async { "v1" }))
}

fn app(auth: TokenAuthLayer) -> Router {
    routes().route_layer(auth)
}

async fn send(app: &Router, method: Method, token: &str) -> Result<u16, AnyError> {
    let request = Request::builder().method(method).uri("/issues").header("authorization", format!("Bearer {token}"));
    Ok(app.clone().oneshot(request.body(Body::empty())?).await?.status().as_u16())
}

fn ensure(holds: bool, what: &str) -> Result<(), AnyError> {
    if !holds {
        return Err(format!("does not hold: {what}").into());
    }
    println!("holds: {what}");
    Ok(())
}

/// A handler by itself: the token is put where the gate would put it.
async fn a_handler_sees_its_owner() -> Result<(), AnyError> {
    let token = AuthenticatedToken::builder("alice", "laptop", Scope::ReadOnly).build()?;
    let request = Request::get("/issues").extension(token).body(Body::empty())?;
    let body = routes().oneshot(request).await?.into_body().collect().await?.to_bytes();
    ensure(body == "the issues of alice", "a handler sees whose token it is")
}

/// A token minted in one line, and a sink that remembers.
async fn a_read_only_token_cannot_create() -> Result<(), AnyError> {
    let (store, sink) = (MemoryStore::new(), RecordingSink::new());
    let auth = TokenAuthLayer::builder(store.clone()).hasher(Sha256Hasher::new()).audit(sink.clone()).build()?;
    let (app, token) = (app(auth), mint(&store, "alice", Scope::ReadOnly).await?);
    ensure(send(&app, Method::GET, token.expose()).await? == 200, "a read-only token may list")?;
    ensure(send(&app, Method::POST, token.expose()).await? == 403, "a read-only token cannot create")?;
    let outcomes: Vec<_> = sink.events().iter().map(|event| event.outcome).collect();
    ensure(outcomes == [Outcome::Allowed, Outcome::Refused], "both are on record")
}

/// Time is turned by hand.
async fn a_token_stops_at_its_expiry() -> Result<(), AnyError> {
    let (store, clock) = (MemoryStore::new(), ManualClock::default());
    let auth = TokenAuthLayer::builder(store.clone()).hasher(Sha256Hasher::new()).clock(clock.clone()).build()?;
    let (token, record) = draft("alice", Scope::ReadOnly)?;
    store.insert(record.with_expiry(Some(clock.wall() + Duration::from_secs(60)))).await?;
    let app = app(auth);
    ensure(send(&app, Method::GET, token.expose()).await? == 200, "a token works before its expiry")?;
    clock.advance(Duration::from_secs(60));
    ensure(send(&app, Method::GET, token.expose()).await? == 401, "a token stops at its expiry")
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    a_handler_sees_its_owner().await?;
    a_read_only_token_cannot_create().await?;
    a_token_stops_at_its_expiry().await?;
    let auth = TokenAuthLayer::builder(MemoryStore::new()).hasher(Sha256Hasher::new()).build()?;
    assert_refuses_anonymous::<_, Body, _>(app(auth), ["/issues", "/about"]).await;
    ensure(true, "no route is open to the anonymous")
}
