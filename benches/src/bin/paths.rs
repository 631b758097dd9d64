//! One path, many times, to be counted by callgrind: `.ci/counts` does so for each of them.
//!
//! `paths` names them all; `valgrind --tool=callgrind --toggle-collect='paths::counted' paths hit 1000` counts one.

use benches::{Bare, Body, Template, call};
use http::{Request, Response};
use tower::{Layer, Service};
use tower_token_auth::test_util::mint;
use tower_token_auth::{
    MemoryStore, NoAudit, PlaintextToken, Prefix, Scope, Sha256Hasher, TokenAuth, TokenAuthBuilder, TokenAuthLayer,
};

/// What can be counted, and what it is answered.
const PATHS: [(&str, u16); 12] = [
    ("bare", 200),
    ("hit", 200),
    ("hit_extensions_in_use", 200),
    ("hit_without_extension", 200),
    ("hit_audit_to_tracing", 200),
    ("missing", 401),
    ("other_scheme", 401),
    ("malformed", 400),
    ("foreign", 401),
    ("bad_checksum", 401),
    ("unknown_id", 401),
    ("forbidden", 403),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        return PATHS.iter().for_each(|(path, _)| println!("{path}"));
    };
    let times = arguments.next().map_or(1, |times| times.parse().expect("a number of calls"));
    let (_, status) = PATHS.into_iter().find(|(name, _)| *name == path).expect("a path that there is");
    let scope = if path == "forbidden" { Scope::ReadOnly } else { Scope::ReadWrite };
    let (gate, token) = gate(scope, |builder| match path.as_str() {
        "hit_audit_to_tracing" => builder,
        "hit_without_extension" => builder.audit(NoAudit::new()).without_extension(),
        _ => builder.audit(NoAudit::new()),
    });
    let template = template(&path, &token);
    match path.as_str() {
        "bare" => repeat(Bare, &template, status, times),
        _ => repeat(gate, &template, status, times),
    }
}

/// A gate that has proved its one token, and the token.
fn gate(scope: Scope, configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> (TokenAuth<Bare>, String) {
    let store = MemoryStore::new();
    let token = futures_executor::block_on(mint(&store, "alice", scope)).expect("a memory store takes a token");
    let builder = configure(TokenAuthLayer::builder(store).hasher(Sha256Hasher::new()));
    let mut gate = builder.build().expect("the configuration is valid").layer(Bare);
    assert_eq!(call(&mut gate, Template::bearer(token.expose()).request()), 200, "warm");
    (gate, token.expose().to_owned())
}

fn template(path: &str, token: &str) -> Template {
    match path {
        "missing" => Template::anonymous(),
        "other_scheme" => Template::authorization("Basic YWxpY2U6c2VjcmV0"),
        "malformed" => Template::authorization("Bearer two words"),
        "foreign" => Template::bearer("ghp_0123456789abcdef0123456789abcdef0123"),
        "bad_checksum" => Template::mistyped(token),
        "unknown_id" => Template::bearer(stranger().expose()),
        "forbidden" => Template::bearer(token).post(),
        "hit_extensions_in_use" => Template::bearer(token).with_extension(),
        _ => Template::bearer(token),
    }
}

fn stranger() -> PlaintextToken {
    PlaintextToken::generate(&Prefix::default()).expect("the system has random bytes")
}

/// Once to warm up, and then as often as it is counted.
fn repeat<S, R>(mut service: S, template: &Template, status: u16, times: usize)
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
{
    assert_eq!(call(&mut service, template.request()), status, "warm");
    counted(&mut || assert_eq!(call(&mut service, template.request()), status), times);
}

/// What callgrind collects. A name to find, so neither generic nor inlined.
#[inline(never)]
fn counted(call: &mut dyn FnMut(), times: usize) {
    for _ in 0..times {
        call();
    }
}
