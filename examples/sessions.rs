//! A service that has cookie sessions beside tokens: the gate passes what is not its own.
//!
//! `cargo run --example sessions` asks one route as a browser, as a program, and as nobody.
//!
//! Passing is the weaker setting: a route whose handler forgets to ask is open. Keep such routes few.
#![expect(clippy::print_stdout, reason = "a demonstration talks to whoever started it")]

use std::error::Error;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::{Router, routing::get};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_token_auth::{
    Actor, AuthenticatedToken, IssuePolicy, MemoryStore, NewToken, OnForeign, OnMissing, Scope, TokenAuthLayer,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// Who has a session; a session store in earnest.
fn session_of(headers: &HeaderMap) -> Option<&'static str> {
    let cookie = headers.get(header::COOKIE)?.to_str().ok()?;
    (cookie == "session=bobs-session").then_some("bob")
}

/// A token counts before a session; with neither there is nothing to see.
async fn whoami(token: Option<AuthenticatedToken>, headers: HeaderMap) -> Result<String, StatusCode> {
    match (token, session_of(&headers)) {
        (Some(token), _) => Ok(format!("{} by token", token.owner())),
        (None, Some(user)) => Ok(format!("{user} by session")),
        (None, None) => Err(StatusCode::UNAUTHORIZED),
    }
}

fn app(auth: TokenAuthLayer) -> Router {
    Router::new().route("/whoami", get(whoami)).route_layer(auth)
}

type Header<'a> = (header::HeaderName, &'a str);

async fn check(app: &Router, what: &str, lines: &[Header<'_>], expected: (u16, &str)) -> Result<bool, AnyError> {
    let mut request = Request::get("/whoami");
    for &(ref name, value) in lines {
        request = request.header(name, value);
    }
    let response = app.clone().oneshot(request.body(Body::empty())?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    let body = if status == 200 { String::from_utf8_lossy(&body).into_owned() } else { String::new() };
    println!("{what:<36} {status}  {body}");
    Ok((status, body.as_str()) == expected)
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let store = MemoryStore::new();
    let auth =
        TokenAuthLayer::builder(store.clone()).on_missing(OnMissing::Pass).on_foreign(OnForeign::Pass).build()?;
    let desk = auth.issuer(store, IssuePolicy::default());
    let issued = desk.issue(&Actor::system("example"), NewToken::new("alice", "script", Scope::ReadOnly)).await?;
    let bearer = format!("Bearer {}", issued.plaintext().expose());
    let mistyped = format!("{bearer}0");
    let app = app(auth);

    let session = (header::COOKIE, "session=bobs-session");
    let (ours, broken) = ((header::AUTHORIZATION, &*bearer), (header::AUTHORIZATION, &*mistyped));
    let foreign = (header::AUTHORIZATION, "Bearer eyJhbGciOi.J9.sig");

    let mut good = true;
    good &= check(&app, "a token", &[ours], (200, "alice by token")).await?;
    good &= check(&app, "a session", std::slice::from_ref(&session), (200, "bob by session")).await?;
    good &= check(&app, "neither", &[], (401, "")).await?;
    // Beside a session, so that passing and refusing do not look alike.
    good &= check(&app, "a bad token of ours, and a session", &[broken, session.clone()], (401, "")).await?;
    good &= check(&app, "a foreign token, and a session", &[foreign, session], (200, "bob by session")).await?;
    if good { Ok(()) } else { Err("an answer differs from what it should be".into()) }
}
