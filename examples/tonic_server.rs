//! A tonic server behind the gate, and a real client that meets gRPC's own statuses.
//!
//! `cargo run --example tonic_server` serves two calls on a free loopback port and asks both as nobody, with a
//! read-only and with a read-write token. Every gRPC call is a POST, so what a call does is declared: `List` reads.
#![expect(clippy::print_stdout, reason = "a demonstration talks to whoever started it")]

use std::convert::Infallible;
use std::error::Error;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_token_auth::{
    Access, Actor, AuthenticatedToken, IssuePolicy, IssuedToken, MemoryStore, NewToken, Scope, TokenAuthLayer,
};

type AnyError = Box<dyn Error + Send + Sync>;

const LIST: &str = "/notes.Notes/List";
const ADD: &str = "/notes.Notes/Add";

/// The one message of the service, as prost would generate it.
#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

/// The service, as tonic would generate it.
#[derive(Clone)]
struct Notes;

impl NamedService for Notes {
    const NAME: &'static str = "notes.Notes";
}

impl Service<http::Request<Body>> for Notes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Note, Note>::default());
            Ok(match request.uri().path() {
                LIST => grpc.unary(tower::service_fn(list), request).await,
                ADD => grpc.unary(tower::service_fn(add), request).await,
                _ => Status::unimplemented("no such call").into_http(),
            })
        })
    }
}

async fn list(request: Request<Note>) -> Result<Response<Note>, Status> {
    Ok(Response::new(Note { text: format!("the notes of {}", owner(&request)?) }))
}

async fn add(request: Request<Note>) -> Result<Response<Note>, Status> {
    Ok(Response::new(Note { text: format!("added for {}: {}", owner(&request)?, request.get_ref().text) }))
}

/// Whose token it is: what the gate put into the request's extensions.
fn owner(request: &Request<Note>) -> Result<String, Status> {
    let token = request.extensions().get::<AuthenticatedToken>();
    token.map(|token| token.owner().to_string()).ok_or_else(|| Status::internal("the gate is missing"))
}

fn gate(store: MemoryStore) -> Result<TokenAuthLayer, AnyError> {
    let reads = |path: &str| (path == LIST).then_some(Access::Read);
    Ok(TokenAuthLayer::builder(store).grpc().access(move |head| reads(head.uri.path())).build()?)
}

/// Makes one call and says whether its status is the expected one.
async fn check(
    channel: &Channel,
    call: &'static str,
    token: Option<&IssuedToken>,
    expected: Code,
) -> Result<bool, AnyError> {
    let mut request = Request::new(Note { text: "buy milk".to_owned() });
    if let Some(token) = token {
        let bearer = format!("Bearer {}", token.plaintext().expose());
        request.metadata_mut().insert("authorization", bearer.parse()?);
    }
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let codec = ProstCodec::<Note, Note>::default();
    let answer = client.unary(request, PathAndQuery::from_static(call), codec).await;
    let (code, text) = match answer {
        Ok(response) => (Code::Ok, response.into_inner().text),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    let who = token.map_or("nobody".to_owned(), |token| token.summary().scope.to_string());
    println!("{call:<17}  {who:<10}  →  {:<16}  {text}", format!("{code:?}"));
    Ok(code == expected)
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let store = MemoryStore::new();
    let auth = gate(store.clone())?;
    let desk = auth.issuer(store, IssuePolicy::default());
    let system = Actor::system("example");
    let reader = desk.issue(&system, NewToken::new("alice", "reader", Scope::ReadOnly)).await?;
    let writer = desk.issue(&system, NewToken::new("alice", "writer", Scope::ReadWrite)).await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = Server::builder().layer(auth).add_service(Notes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Endpoint::from_shared(url)?.connect().await?;

    let mut good = true;
    for call in [LIST, ADD] {
        good &= check(&channel, call, None, Code::Unauthenticated).await?;
        let with_reader = if call == LIST { Code::Ok } else { Code::PermissionDenied };
        good &= check(&channel, call, Some(&reader), with_reader).await?;
        good &= check(&channel, call, Some(&writer), Code::Ok).await?;
    }
    if good { Ok(()) } else { Err("an answer differs from what it should be".into()) }
}
