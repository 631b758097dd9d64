//! What one hot request costs, beside what people would use instead: complete tower services, interleaved.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin hot_path`

use benches::contenders;
use benches::{Bare, Contender, Template, call, measure, table};
use tower::Layer;
use tower_token_auth::test_util::mint;
use tower_token_auth::{
    MemoryStore, NoAudit, Scope, Sha256Hasher, TokenAuthBuilder, TokenAuthLayer, TracingSink,
};

/// A gate over one token, and its text.
async fn gate(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> (TokenAuthLayer, String) {
    let store = MemoryStore::new();
    let token = mint(&store, "alice", Scope::ReadWrite).await.expect("a memory store takes a token");
    let builder = TokenAuthLayer::builder(store).hasher(Sha256Hasher::new());
    (configure(builder).build().expect("the configuration is valid"), token.expose().to_owned())
}

async fn ours(
    name: &'static str,
    configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder,
    template: impl FnOnce(&str) -> Template,
    status: u16,
) -> Contender {
    let (auth, token) = gate(configure).await;
    let mut service = auth.layer(Bare);
    assert_eq!(call(&mut service, Template::bearer(&token).request()), 200, "warm");
    Contender::new(name, service, template(&token), status)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(41);
    let token = "tta_0123456789abcdef_0123456789abcdef0123456789abcdef012345";
    let broken = |text: &str| {
        let mut text = text.to_owned();
        let last = text.pop();
        text.push(if last == Some('0') { '1' } else { '0' });
        Template::bearer(&text)
    };
    let mut contenders = vec![
        contenders::bare(token),
        ours("ours, hit, tracing without subscriber", |b| b.audit(TracingSink::new()), Template::bearer, 200).await,
        ours("ours, hit, extensions in use", |b| b, |t| Template::bearer(t).with_extension(), 200).await,
        ours("ours, hit, no audit", |b| b.audit(NoAudit::new()), Template::bearer, 200).await,
        ours("ours, no header", |b| b.audit(NoAudit::new()), |_| Template::anonymous(), 401).await,
        ours("ours, bad checksum", |b| b.audit(NoAudit::new()), broken, 401).await,
        contenders::static_bearer(token),
        contenders::hand_written_dashmap(token),
        contenders::hand_written_moka(token),
        contenders::jwt(),
        contenders::boxed(),
    ];
    measure(&mut contenders, rounds, 20_000);
    table(&contenders);
}
