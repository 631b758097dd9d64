//! One path, many times: to be counted by callgrind.
//!
//! `valgrind --tool=callgrind target/release/paths hit 1000`

use benches::{Bare, Template, call};
use tower::Layer;
use tower_token_auth::test_util::mint;
use tower_token_auth::{MemoryStore, NoAudit, Scope, Sha256Hasher, TokenAuthLayer};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let times: usize = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(1_000);
    let store = MemoryStore::new();
    let token = mint(&store, "alice", Scope::ReadWrite).await.expect("a memory store takes a token");
    let builder = TokenAuthLayer::builder(store).hasher(Sha256Hasher::new()).audit(NoAudit::new());
    let mut service = builder.build().expect("the configuration is valid").layer(Bare);
    let hit = Template::bearer(token.expose());
    assert_eq!(call(&mut service, hit.request()), 200, "warm");
    let (template, status) = match path.as_str() {
        "hit" => (hit, 200),
        "missing" => (Template::anonymous(), 401),
        "bare" => {
            (0..times).for_each(|_| assert_eq!(call(&mut Bare, hit.request()), 200));
            return;
        }
        other => panic!("no path {other:?}: hit, missing, bare"),
    };
    for _ in 0..times {
        assert_eq!(call(&mut service, template.request()), status);
    }
}
