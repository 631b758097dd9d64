//! The layer: what an application puts before its service.

use std::future::Future;
use std::sync::Arc;

use tower_layer::Layer;

use super::builder::TokenAuthBuilder;
use super::gate::Gate;
use super::service::TokenAuth;
use crate::access::Access;
use crate::authenticator::AuthHandle;
use crate::config::VerifyLimits;
use crate::hash::SecretHasher;
use crate::issue::{DeskParts, PolicyProvider, TokenIssuer};
use crate::store::{ErasedRegistry, TokenRegistry, TokenStore};

/// Guards a tower HTTP service with API tokens.
///
/// A clone, and every [`layer`](Layer::layer) call, is the same gate: one cache, one audit trail, one set of limits.
///
/// # Example
/// ```
/// use axum::{Router, routing::get};
/// use tower_token_auth::{Actor, IssuePolicy, MemoryStore, NewToken, Scope, TokenAuthLayer};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let auth = TokenAuthLayer::new(store.clone());
/// let desk = auth.issuer(store, IssuePolicy::default());
/// let first = desk.issue(&Actor::system("bootstrap"), NewToken::new("ops", "first token", Scope::ReadWrite)).await?;
/// println!("shown once: {}", first.plaintext().expose());
/// let app: Router = Router::new().route("/issues", get(|| async { "[]" })).route_layer(auth);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TokenAuthLayer {
    gate: Arc<Gate>,
    desk: Arc<DeskDefaults>,
    required: Option<Access>,
}

/// What the gate's own desk shares with it.
pub(super) struct DeskDefaults {
    pub(super) hasher: Arc<dyn SecretHasher>,
    pub(super) limits: VerifyLimits,
}

impl std::fmt::Debug for DeskDefaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeskDefaults").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl TokenAuthLayer {
    /// A gate over a store, with the defaults: argon2id, prefix `tta`, audit to `tracing`.
    ///
    /// # Panics
    /// When the operating system has no random bytes; [`builder`](Self::builder) returns that as an error.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the defaults are valid; without randomness no process can guard anything")]
    pub fn new(store: impl TokenStore + 'static) -> Self {
        Self::builder(store).build().expect("the operating system's random source failed")
    }

    /// A gate over a store, to be configured.
    pub fn builder(store: impl TokenStore + 'static) -> TokenAuthBuilder {
        TokenAuthBuilder::new(Arc::new(store))
    }

    pub(super) fn of(gate: Gate, desk: DeskDefaults) -> Self {
        Self { gate: Arc::new(gate), desk: Arc::new(desk), required: None }
    }

    /// The same gate, declaring what the requests it sees do: for routes whose method says something else, such as a
    /// search by POST ([`Access::Read`]) or a GET that acts ([`Access::Write`]).
    ///
    /// Under an outer layer of the same gate this can only tighten. To loosen a route, guard it in a router of its own
    /// and `merge` the two.
    #[must_use]
    pub fn requiring(&self, access: Access) -> Self {
        Self { required: Some(access), ..self.clone() }
    }

    /// A desk that issues and revokes tokens for this gate: same prefix, hasher, clock and audit sink, and this gate
    /// obeys its changes at once. Where no other is set, the registry is also the one for the gate's
    /// [upkeep](TokenAuthBuilder::upkeep).
    ///
    /// Another gate over the same store, in this process or another, hears of its changes from a feed
    /// ([`AuthHandle::follow`]) or from the store, when what it remembers is due.
    pub fn issuer(&self, registry: impl TokenRegistry + 'static, policy: impl PolicyProvider + 'static) -> TokenIssuer {
        let authenticator = &self.gate.authenticator;
        let registry: Arc<dyn ErasedRegistry> = Arc::new(registry);
        authenticator.upkeep(Arc::clone(&registry));
        TokenIssuer::assemble(DeskParts {
            registry,
            policy: Arc::new(policy),
            prefix: self.gate.prefixes.first().cloned().unwrap_or_default(),
            hasher: Arc::clone(&self.desk.hasher),
            crew: Arc::clone(authenticator.crew()),
            limits: self.desk.limits,
            clock: Arc::clone(authenticator.clock()),
            recorder: self.gate.recorder.clone(),
            on_audit_failure: self.gate.on_audit_failure,
            gate: Some(authenticator.clone()),
        })
    }

    /// What is better done while no request waits for it. Spawn the future once, beside the server. It
    /// * looks tokens in use up again ahead of their TTL, as
    ///   [`CacheConfig::refresh_ahead`](crate::CacheConfig::refresh_ahead) says;
    /// * writes when tokens were last used, every 30 s in one batch
    ///   ([`flush_last_used`](TokenAuthBuilder::flush_last_used));
    /// * hashes secrets anew that were proved by a hash of other parameters than today's, of another pepper, or without
    ///   a precheck;
    /// * tells a rotation that its new secret is in use, so that a repeated one leaves that secret alone;
    /// * publishes the gate's numbers every 10 s, with the feature `metrics`.
    ///
    /// What it writes goes to the registry of the gate's [upkeep](TokenAuthBuilder::upkeep).
    ///
    /// No request depends on it: without it the first one after a TTL makes the look-up and waits for it, and nothing is
    /// written. It ends when the last clone of the layer, and of what it guards, is gone, or at
    /// [`AuthHandle::shutdown`], after a last batch.
    ///
    /// # Cancellation
    /// Dropped, it gives up the look-ups it has begun, which requests make when they are due, and the re-hashes. Last
    /// uses that the store may not have taken are kept for the next background or for `shutdown`.
    ///
    /// # Example
    /// ```
    /// use tower_token_auth::{MemoryStore, TokenAuthLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let auth = TokenAuthLayer::new(MemoryStore::new());
    /// let background = tokio::spawn(auth.background());
    /// // … serve …
    /// drop(auth);
    /// background.await.unwrap();
    /// # }
    /// ```
    pub fn background(&self) -> impl Future<Output = ()> + Send + use<> {
        self.gate.authenticator.background()
    }

    /// A handle to tell the gate of changes that were made past its desk.
    #[must_use]
    pub fn handle(&self) -> AuthHandle {
        self.gate.authenticator.handle()
    }
}

impl<S> Layer<S> for TokenAuthLayer {
    type Service = TokenAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TokenAuth::new(inner, Arc::clone(&self.gate), self.required)
    }
}
