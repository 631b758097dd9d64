//! What can be set, apart from the judgement: that is in `judging`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::closures::Closures;
use super::gate::Gate;
use super::judging::Judging;
use super::layer::{DeskDefaults, TokenAuthLayer};
use super::refusal::Refusal;
use super::render::{Render, Renderer};
use crate::audit::{AuditSink, OnAuditFailure, Recorder, TracingSink};
use crate::authenticator::{Authenticator, Setup};
use crate::clock::{Clock, SystemClock};
use crate::config::{BuildError, CacheConfig, LookupLimits, VerifyLimits};
use crate::hash::{Argon2Hasher, SecretHasher};
use crate::request::RequestHead;
use crate::store::{ErasedRegistry, ErasedStore, TokenRegistry};
use crate::token::{Cut, Prefix};

/// What becomes of a request without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnMissing {
    /// 401.
    #[default]
    Refuse,
    /// It goes on without a token, and is audited as passed.
    Pass,
}

/// What becomes of credentials that are not ours: another scheme, or a bearer token without one of our prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnForeign {
    /// 401.
    #[default]
    Refuse,
    /// It goes on as it is, and is audited as passed. A broken or dead token of ours is refused all the same.
    Pass,
}

/// Configures a [`TokenAuthLayer`].
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{CacheConfig, MemoryStore, TokenAuthLayer};
///
/// let auth = TokenAuthLayer::builder(MemoryStore::new())
///     .prefix("acme")
///     .realm("acme issues")
///     .cache(CacheConfig::default().ttl(Duration::from_secs(10)))
///     .build()?;
///
/// let wrong = TokenAuthLayer::builder(MemoryStore::new()).realm("a \"quoted\" realm").build();
/// assert!(wrong.unwrap_err().to_string().contains("realm"));
/// # Ok::<(), tower_token_auth::BuildError>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct TokenAuthBuilder {
    store: Arc<dyn ErasedStore>,
    realm: String,
    prefix: String,
    accepted: Vec<String>,
    cache: CacheConfig,
    lookup: LookupLimits,
    verification: VerifyLimits,
    hasher: Arc<dyn SecretHasher>,
    also_accepted: Vec<Arc<dyn SecretHasher>>,
    audit: Arc<dyn AuditSink>,
    on_audit_failure: OnAuditFailure,
    on_missing: OnMissing,
    on_foreign: OnForeign,
    pub(super) judging: Judging,
    pub(super) closures: Closures,
    renderer: Option<Renderer>,
    grpc: bool,
    keep_authorization: bool,
    extension: bool,
    clock: Arc<dyn Clock>,
    registry: Option<Arc<dyn ErasedRegistry>>,
    flush_last_used: Duration,
}

impl TokenAuthBuilder {
    pub(super) fn new(store: Arc<dyn ErasedStore>) -> Self {
        Self {
            store,
            realm: "api".to_owned(),
            prefix: Prefix::default().to_string(),
            accepted: Vec::new(),
            cache: CacheConfig::default(),
            lookup: LookupLimits::default(),
            verification: VerifyLimits::default(),
            hasher: Arc::new(Argon2Hasher::new()),
            also_accepted: Vec::new(),
            audit: Arc::new(TracingSink::new()),
            on_audit_failure: OnAuditFailure::default(),
            on_missing: OnMissing::default(),
            on_foreign: OnForeign::default(),
            judging: Judging::default(),
            closures: Closures::default(),
            renderer: None,
            grpc: false,
            keep_authorization: false,
            extension: true,
            clock: Arc::new(SystemClock::new()),
            registry: None,
            flush_last_used: Duration::from_secs(30),
        }
    }

    /// The realm of challenges (RFC 9110 §11.5). Default `api`.
    pub fn realm(self, realm: impl Into<String>) -> Self {
        Self { realm: realm.into(), ..self }
    }

    /// The prefix of this deployment's tokens, see [`Prefix`]. Default `tta`.
    pub fn prefix(self, prefix: impl AsRef<str>) -> Self {
        Self { prefix: prefix.as_ref().to_owned(), ..self }
    }

    /// Another prefix that is accepted, for a change of prefix. At most 255 beside the one that is issued.
    pub fn accept_prefix(mut self, prefix: impl AsRef<str>) -> Self {
        self.accepted.push(prefix.as_ref().to_owned());
        self
    }

    /// How long and how much is remembered.
    pub fn cache(self, cache: CacheConfig) -> Self {
        Self { cache, ..self }
    }

    /// How much is asked of the store at once.
    pub fn lookup(self, lookup: LookupLimits) -> Self {
        Self { lookup, ..self }
    }

    /// How much hashing is asked for.
    pub fn verification(self, verification: VerifyLimits) -> Self {
        Self { verification, ..self }
    }

    /// The hasher for new secrets, and the first to be asked about stored ones. Default [`Argon2Hasher`].
    pub fn hasher(self, hasher: impl SecretHasher) -> Self {
        Self { hasher: Arc::new(hasher), ..self }
    }

    /// Another hasher whose stored hashes are accepted.
    pub fn also_accept(mut self, hasher: impl SecretHasher) -> Self {
        self.also_accepted.push(Arc::new(hasher));
        self
    }

    /// Where audit events go. Default [`TracingSink`].
    pub fn audit(self, sink: impl AuditSink) -> Self {
        Self { audit: Arc::new(sink), ..self }
    }

    /// What becomes of an admitted request whose event cannot be recorded. Default: it goes on.
    pub fn on_audit_failure(self, on_audit_failure: OnAuditFailure) -> Self {
        Self { on_audit_failure, ..self }
    }

    /// What becomes of a request without credentials. Default: 401.
    pub fn on_missing(self, on_missing: OnMissing) -> Self {
        Self { on_missing, ..self }
    }

    /// What becomes of credentials that are not ours. Default: 401.
    pub fn on_foreign(self, on_foreign: OnForeign) -> Self {
        Self { on_foreign, ..self }
    }

    /// Tells the client's address, for the audit trail. Default: none.
    ///
    /// # Security
    /// `X-Forwarded-For` says what the client wants it to say, unless a proxy of yours has written it.
    pub fn client_address(
        mut self,
        address: impl Fn(&RequestHead<'_>) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.closures.client_address = Some(Arc::new(address));
        self
    }

    /// Tells the route a request matched, for the audit trail. Default: none. With axum, under `route_layer`:
    /// `|head| head.extensions.get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned())`.
    pub fn route(mut self, route: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        self.closures.route = Some(Arc::new(route));
        self
    }

    /// Tells a request's id, for the audit trail. Default: none.
    pub fn request_id(mut self, id: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        self.closures.request_id = Some(Arc::new(id));
        self
    }

    /// Makes the body of refusals, in place of problem details. Status, challenge, `Cache-Control`, `Vary` and
    /// `Retry-After` are set afterwards, whatever the renderer says of them.
    pub fn refusal(self, render: impl Fn(&Refusal) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self { renderer: Some(Arc::new(render)), ..self }
    }

    /// Answers gRPC requests in gRPC: HTTP 200 with a `grpc-status`.
    ///
    /// # Security
    /// Not behind a proxy that asks this service whether to let a request through and reads the HTTP status: a client
    /// could turn its 401 into a 200 by naming a content type.
    pub fn grpc(self) -> Self {
        Self { grpc: true, ..self }
    }

    /// Leaves `Authorization` on admitted requests, marked as sensitive. By default it is removed.
    pub fn keep_authorization(self) -> Self {
        Self { keep_authorization: true, ..self }
    }

    /// Does not tell the inner service whose token it is: no [`AuthenticatedToken`](crate::AuthenticatedToken) is put into
    /// the request's extensions, which spares a hot request one insertion and its allocations.
    ///
    /// For services that ask nothing of it. Extractors fail behind such a gate, and [`OnMissing::Pass`] is an error of
    /// [`build`](Self::build) beside it. The same gate must not be met twice on one request: the inner one does not learn
    /// that the outer has admitted it, finds no `Authorization`, and refuses; with
    /// [`keep_authorization`](Self::keep_authorization) it proves the token again, and writes an event of its own.
    pub fn without_extension(self) -> Self {
        Self { extension: false, ..self }
    }

    /// The clock. Default [`SystemClock`].
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Where the gate writes what it learns from requests: when tokens were last used, and secrets hashed anew. It does
    /// so in its [background](TokenAuthLayer::background). Default: to the registry of the gate's first
    /// [desk](TokenAuthLayer::issuer); without one nothing is collected.
    ///
    /// # Example
    /// ```
    /// use tower_token_auth::{MemoryStore, TokenAuthLayer};
    ///
    /// // A process without a desk, before a store that another one issues to.
    /// let store = MemoryStore::new();
    /// let auth = TokenAuthLayer::builder(store.clone()).upkeep(store).build()?;
    /// # Ok::<(), tower_token_auth::BuildError>(())
    /// ```
    pub fn upkeep(self, registry: impl TokenRegistry + 'static) -> Self {
        Self { registry: Some(Arc::new(registry)), ..self }
    }

    /// How often the last uses of tokens are written to the store, in one batch; at most a day, zero for not at all.
    /// Default 30 s.
    ///
    /// Until then they are kept in memory, for as many tokens as
    /// [`CacheConfig::proved`] says: a process that is killed loses what it has not written, one that calls
    /// [`AuthHandle::shutdown`](crate::AuthHandle::shutdown) does not. Of each token the time is right to a second, and
    /// with it the client's address and user agent; the last write is kept apart.
    pub fn flush_last_used(self, every: Duration) -> Self {
        Self { flush_last_used: every, ..self }
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError`] for a configuration that cannot work, with what to change.
    pub fn build(self) -> Result<TokenAuthLayer, BuildError> {
        let prefixes = self.prefixes()?;
        let recorder = Recorder::new(self.audit);
        if self.on_audit_failure == OnAuditFailure::Refuse && !recorder.can_fail() {
            return Err(BuildError::AuditCannotFail);
        }
        if self.on_missing == OnMissing::Pass && !self.extension {
            return Err(BuildError::PassWithoutExtension);
        }
        self.judging.check()?;
        let mut hashers = vec![Arc::clone(&self.hasher)];
        hashers.extend(self.also_accepted);
        let authenticator = Authenticator::new(Setup {
            store: self.judging.beside(self.store, &self.clock),
            cache: self.cache,
            lookup: self.lookup,
            verification: self.verification,
            hashers,
            clock: self.clock,
            recorder: recorder.clone(),
            registry: self.registry,
            flush_last_used: self.flush_last_used,
            #[cfg(feature = "metrics")]
            realm: self.realm.clone(),
        })?;
        let gate = Gate {
            authenticator,
            prefixes,
            render: Render::new(&self.realm, self.renderer, self.grpc)?,
            recorder,
            on_audit_failure: self.on_audit_failure,
            on_missing: self.on_missing,
            on_foreign: self.on_foreign,
            closures: self.closures,
            report_only: self.judging.report_only,
            token_headers: self.judging.token_headers,
            keep_authorization: self.keep_authorization,
            extension: self.extension,
        };
        gate.report_only.warn();
        Ok(TokenAuthLayer::of(gate, DeskDefaults { hasher: self.hasher, limits: self.verification }))
    }

    /// The prefix for new tokens first, then the others that are accepted.
    fn prefixes(&self) -> Result<Vec<Prefix>, BuildError> {
        let mut prefixes: Vec<Prefix> = Vec::new();
        for text in std::iter::once(&self.prefix).chain(&self.accepted) {
            let prefix = text.parse().map_err(BuildError::Prefix)?;
            if prefixes.contains(&prefix) {
                return Err(BuildError::PrefixTwice);
            }
            prefixes.push(prefix);
        }
        if prefixes.len() > Cut::MAX_PREFIXES {
            return Err(BuildError::TooManyPrefixes);
        }
        Ok(prefixes)
    }
}

impl fmt::Debug for TokenAuthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthBuilder")
            .field("realm", &self.realm)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
