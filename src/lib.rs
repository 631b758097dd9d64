//! API tokens for any tower HTTP service: bearer authentication, scopes, caching, audit and issuing.
//!
//! Two halves over one store. The **gate**, [`TokenAuthLayer`], takes `Authorization: Bearer` from each request, finds
//! the token through a [`TokenStore`] with a cache in front, refuses what its [`Scope`] does not permit, and tells an
//! [`AuditSink`] what it decided. The **desk**, [`TokenIssuer`], issues and revokes tokens under an [`IssuePolicy`].
//!
//! ```text
//! request ─► bearer ─► shape ─► look-up ─► state ─► proof ─► access ≤ scope ─► audit ─► inner service
//!            RFC 6750  no I/O   cache,     expired  MAC, or  read / write      one      (AuthenticatedToken
//!                               store      revoked  hash                       event     in the extensions)
//! ```
//!
//! # Example
//! ```
//! use axum::{Router, routing::get};
//! use tower_token_auth::{Actor, AuthenticatedToken, IssuePolicy, MemoryStore, NewToken, Scope, TokenAuthLayer};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let auth = TokenAuthLayer::new(store.clone());
//! let desk = auth.issuer(store, IssuePolicy::default());
//!
//! let export = NewToken::new("alice", "nightly export", Scope::ReadOnly);
//! let issued = desk.issue(&Actor::system("bootstrap"), export).await?;
//! println!("shown once: {}", issued.plaintext().expose());
//!
//! let whoami = |token: AuthenticatedToken| async move { format!("{} of {}", token.label(), token.owner()) };
//! let app: Router = Router::new().route("/whoami", get(whoami)).route_layer(auth);
//! # Ok(())
//! # }
//! ```
//!
//! # What clients are told
//! Bodies are problem details (RFC 9457) whose `type` leads here. All refusals say `Cache-Control: no-store` and
//! `Vary: Authorization`.
//!
//! | problem | status | challenge | gRPC, where [opted in](TokenAuthBuilder::grpc) |
//! |---|---|---|---|
//! | <a id="missing"></a>`missing`: no credentials, or those of another scheme | 401 | `Bearer realm="…"` | 16 |
//! | <a id="malformed"></a>`malformed`: two `Authorization` lines, or one that breaks RFC 6750 §2.1 | 400 | `…, error="invalid_request"` | 16 |
//! | <a id="invalid-token"></a>`invalid-token`: mistyped, unknown, expired, revoked, paused or a wrong secret; which of them is not told | 401 | `…, error="invalid_token"` | 16 |
//! | <a id="insufficient-scope"></a>`insufficient-scope`: the request writes, and the token is read-only, or [today's policy](TokenAuthBuilder::policy_at_use) limits it to reading | 403 | `…, error="insufficient_scope", scope="read-write"` | 7 |
//! | <a id="unavailable"></a>`unavailable`: the store failed, or a bound was reached | 503 and `Retry-After` | none | 14 |
//!
//! # Read or write
//! GET, HEAD and OPTIONS read, everything else writes, and so does a request that asks to change the protocol
//! (`Upgrade`, CONNECT). A method-override header can only raise. Where a method says the wrong thing, declare what the
//! route does: [`TokenAuthLayer::requiring`], [`TokenAuthBuilder::access`].
//!
//! # Cost
//! A proved token whose record is fresh is decided without a store call, a hash, an await or a boxed future. Once in a
//! TTL it costs one look-up, and once in a process one hash: see [`Argon2Hasher`] and [`Sha256Hasher`].
//!
//! # Guides
//! * [Choosing a policy](docs::choosing_a_policy): who may create which token.
//! * [Rotating a token](docs::rotating_a_token): a new secret without an outage; new hash parameters and peppers.
//! * [What to log](docs::what_to_log), and for how long.
//! * [Running several servers](docs::running_several_servers): revocations that reach every process.
//! * [Bringing your own table](docs::bringing_your_own_table): a gate and a desk over rows that are yours.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod actor;
mod audit;
mod authenticator;
#[cfg(feature = "axum")]
mod axum;
mod base62;
mod bearer;
mod cache;
mod clock;
mod config;
mod count;
mod decision;
pub mod docs;
mod hash;
mod id;
mod issue;
mod middleware;
mod request;
mod scope;
mod secret;
mod store;
mod sync;
#[cfg(feature = "test-util")]
pub mod test_util;
mod text;
mod token;
mod verify;

pub use access::Access;
pub use actor::{Actor, Permissions};
#[cfg(feature = "json")]
pub use audit::JsonLinesSink;
pub use audit::{
    Action, ApplicationFilter, ApplicationPage, ApplicationSeen, AuditBatch, AuditError, AuditEvent, AuditHistory,
    AuditHistoryBuilder, AuditSink, AuditStats, AuditTally, FanOut, Flush, HistoryCursor, HistoryError, HistoryFilter,
    HistoryPage, NoAudit, OnAuditFailure, Outcome, QueuedSink, QueuedSinkBuilder, SampledSink, SampledSinkBuilder,
    ThresholdSink, ThresholdSinkBuilder, TokenApplications, TracingSink, Unflushed, UserAgent,
};
pub use authenticator::{AuthHandle, FeedState, Stats, UpkeepStats};
#[cfg(feature = "axum")]
pub use axum::{MissingLayer, who_am_i};
pub use base62::RandomError;
pub use cache::{CacheStats, LookupStats};
pub use clock::{Clock, Monotonic, Sleep, SystemClock, Timestamp};
pub use config::{BuildError, CacheConfig, LookupLimits, VerifyLimits};
pub use decision::{AuthenticatedToken, IssueRefusal, Reason, StoreError, UnavailableCause};
pub use hash::{Argon2Cost, Argon2Hasher, HashCost, HashError, Scratch, SecretHasher, Sha256Hasher};
pub use id::{IdError, Label, OwnerId, TokenId};
pub use issue::{
    Ensured, IssueError, IssuePolicy, IssuedToken, ManageError, NewToken, PolicyFn, PolicyProvider, Proposal,
    ReadError, RevokeReport, SharedPolicy, SummaryPage, TokenIssuer, TokenIssuerBuilder, TokenSummary, policy_fn,
};
pub use middleware::{
    OnForeign, OnMissing, Refusal, RefusalKind, ResponseBody, ResponseFuture, TOKEN_EXPIRES_AT, TOKEN_SCOPE, TokenAuth,
    TokenAuthBuilder, TokenAuthLayer,
};
pub use request::RequestHead;
pub use scope::{Scope, ScopeError};
pub use secret::{SecretHash, SecretHashError, TokenSecret};
pub use store::{
    AnyStore, Change, ChangeError, ChangeFeed, Cursor, Durability, InsertError, MemoryStore, Notice, OwnerDirectory,
    TokenFilter, TokenPage, TokenRegistry, TokenStore, UpdateError,
};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use store::{HistoryWriter, SqlHistory, SqlHistoryBuilder, SqlNameError};
#[cfg(feature = "redis")]
pub use store::{KeyPrefixError, RedisFeed, RedisStore};
#[cfg(feature = "postgres")]
pub use store::{PostgresFeed, PostgresStore};
#[cfg(feature = "sqlite")]
pub use store::{SqliteFeed, SqliteStore};
pub use text::TextError;
pub use token::{
    AttributeError, Attributes, CreatedBy, CreatedByError, LastUsed, PlaintextToken, Prefix, PrefixError,
    RetiringSecret, Revision, SecretSlot, TokenRecord, TokenState, TokenStateError,
};
pub use verify::HashStats;

/// README.md's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
