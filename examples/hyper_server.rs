//! A plain hyper server behind the gate: no axum, no router.
//!
//! `cargo run --example hyper_server` serves one echo service on a free loopback port, asks it over HTTP, and ends.
#![expect(clippy::print_stdout, reason = "a demonstration talks to whoever started it")]

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_token_auth::{
    Actor, AuthenticatedToken, IssuePolicy, IssuedToken, MemoryStore, NewToken, Scope, TokenAuthLayer,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// The service to be guarded: says who asked for what.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let owner = request.extensions().get::<AuthenticatedToken>().map_or("nobody", |token| token.owner().as_str());
    let text = format!("{} {} by {owner}\n", request.method(), request.uri().path());
    Ok(Response::new(Full::from(text)))
}

/// Accepts connections for as long as the program runs.
async fn serve(listener: TcpListener, auth: TokenAuthLayer) -> Result<(), AnyError> {
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(ServiceBuilder::new().layer(auth.clone()).service(service_fn(echo)));
        tokio::spawn(async move {
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        });
    }
}

/// Sends one request and says whether its status is the expected one.
async fn check(url: &str, method: Method, token: Option<&IssuedToken>, expected: u16) -> Result<bool, AnyError> {
    let mut request = reqwest::Client::new().request(method.clone(), url);
    if let Some(token) = token {
        request = request.bearer_auth(token.plaintext().expose());
    }
    let response = request.send().await?;
    let status = response.status().as_u16();
    let who = token.map_or("nobody".to_owned(), |token| token.summary().scope.to_string());
    println!("{:<4}  {who:<10}  →  {status}  {}", method.as_str(), response.text().await?.trim());
    Ok(status == expected)
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let store = MemoryStore::new();
    let auth = TokenAuthLayer::new(store.clone());
    let desk = auth.issuer(store, IssuePolicy::default());
    let system = Actor::system("example");
    let reader = desk.issue(&system, NewToken::new("alice", "reader", Scope::ReadOnly)).await?;
    let writer = desk.issue(&system, NewToken::new("alice", "writer", Scope::ReadWrite)).await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/things", listener.local_addr()?);
    tokio::spawn(serve(listener, auth));

    let mut good = true;
    good &= check(&url, Method::GET, None, 401).await?;
    good &= check(&url, Method::GET, Some(&reader), 200).await?;
    good &= check(&url, Method::POST, Some(&reader), 403).await?;
    good &= check(&url, Method::POST, Some(&writer), 200).await?;
    if good { Ok(()) } else { Err("an answer differs from what it should be".into()) }
}
