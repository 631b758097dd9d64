//! This crate, as it is used.

use std::sync::Arc;

use tower::Layer;
use tower_token_auth::test_util::mint;
use tower_token_auth::{
    AuditHistory, AuditSink, JsonLinesSink, MemoryStore, NoAudit, QueuedSink, Scope, Sha256Hasher, TokenAuthBuilder,
    TokenAuthLayer, TracingSink,
};

use crate::rounds::Contender;
use crate::{Bare, Template, call};

/// A gate over one token, and the token's text.
#[derive(Debug, Clone)]
pub struct Ours {
    pub layer: TokenAuthLayer,
    pub token: String,
}

impl Ours {
    /// # Panics
    /// Where the configuration is not valid.
    pub async fn new(scope: Scope, configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> Self {
        let store = MemoryStore::new();
        let token = mint(&store, "alice", scope).await.expect("a memory store takes a token");
        let builder = TokenAuthLayer::builder(store).hasher(Sha256Hasher::new());
        let layer = configure(builder).build().expect("the configuration is valid");
        Self { layer, token: token.expose().to_owned() }
    }

    /// A gate with this sink, over a token that may write.
    pub async fn audited(sink: impl AuditSink) -> Self {
        Self::new(Scope::ReadWrite, |builder| builder.audit(sink)).await
    }

    /// This gate before the bare service, asked with what `template` makes of its token, once it is hot.
    pub fn contender(
        &self,
        group: &'static str,
        name: &'static str,
        template: impl FnOnce(&str) -> Template,
        status: u16,
    ) -> Contender {
        let mut service = self.layer.layer(Bare);
        assert_eq!(call(&mut service, Template::bearer(&self.token).request()), 200, "warm");
        Contender::new(group, name, service, template(&self.token), status)
    }
}

/// Hits under each audit sink, the first under the default one. What waits in a queue is written between the rounds:
/// what is measured is the hand-off, on the thread of the request.
///
/// # Panics
/// Where the system has no thread for a queue.
pub async fn hits() -> Vec<Contender> {
    let hit = |ours: &Ours, name| ours.contender("ours", name, Template::bearer, 200);
    let default = Ours::audited(TracingSink::new()).await;
    let plain = Ours::new(Scope::ReadWrite, TokenAuthBuilder::without_extension).await;
    let queue = QueuedSink::builder(JsonLinesSink::new(std::io::sink())).capacity(100_000).build();
    let queue = queue.expect("the system has a thread for the queue");
    let history = Arc::new(AuditHistory::new());
    vec![
        hit(&default, "ours: hit, audit to tracing, nobody listens"),
        default.contender("ours", "ours: hit, extensions in use", |t| Template::bearer(t).with_extension(), 200),
        hit(&plain, "ours: hit, without extension"),
        hit(&Ours::audited(NoAudit::new()).await, "ours: hit, no audit"),
        hit(&Ours::audited(queue.clone()).await, "ours: hit, audit in JSON through a queue")
            .settling(move || flush(&queue)),
        hit(
            &Ours::audited(JsonLinesSink::new(std::io::sink())).await,
            "ours: hit, audit in JSON on the request's thread",
        ),
        hit(&Ours::audited(Arc::clone(&history)).await, "ours: hit, audit into the history"),
    ]
}

fn flush(queue: &QueuedSink) {
    let written = futures_executor::block_on(queue.shutdown(std::time::Duration::from_secs(10)));
    written.expect("the queue is written within ten seconds");
}

/// What is refused before the store is asked, and what the cache refuses.
pub async fn refusals() -> Vec<Contender> {
    let gate = Ours::audited(NoAudit::new()).await;
    let reading = Ours::new(Scope::ReadOnly, |builder| builder.audit(NoAudit::new())).await;
    let refused = |name, template: fn(&str) -> Template, status| gate.contender("refusal", name, template, status);
    vec![
        refused("ours: no header", |_| Template::anonymous(), 401),
        refused("ours: another scheme", |_| Template::authorization("Basic YWxpY2U6c2VjcmV0"), 401),
        refused("ours: two words", |_| Template::authorization("Bearer two words"), 400),
        refused(
            "ours: a token of somebody else",
            |_| Template::bearer("ghp_0123456789abcdef0123456789abcdef0123"),
            401,
        ),
        refused("ours: bad checksum", Template::mistyped, 401),
        reading.contender("refusal", "ours: a write with a read-only token", |t| Template::bearer(t).post(), 403),
    ]
}
