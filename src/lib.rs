//! API tokens for any tower HTTP service: bearer authentication, scopes, caching, audit and issuing.
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
mod decision;
mod hash;
mod id;
mod issue;
mod middleware;
mod request;
mod scope;
mod secret;
mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
mod text;
mod token;
mod verify;

pub use access::Access;
pub use actor::{Actor, Permissions};
pub use audit::{Action, AuditError, AuditEvent, AuditSink, FanOut, NoAudit, OnAuditFailure, Outcome, TracingSink};
#[cfg(feature = "axum")]
pub use axum::MissingLayer;
pub use base62::RandomError;
pub use clock::{Clock, Monotonic, Sleep, SystemClock, Timestamp};
pub use config::{BuildError, CacheConfig, LookupLimits, VerifyLimits};
pub use decision::{AuthenticatedToken, IssueRefusal, Reason, StoreError, UnavailableCause};
pub use hash::{Argon2Cost, Argon2Hasher, HashCost, HashError, Scratch, SecretHasher, Sha256Hasher};
pub use id::{IdError, Label, OwnerId, TokenId};
pub use middleware::{
    OnForeign, OnMissing, Refusal, RefusalKind, ResponseBody, ResponseFuture, TokenAuth, TokenAuthBuilder, TokenAuthLayer,
};
pub use request::RequestHead;
pub use scope::{Scope, ScopeError};
pub use secret::{SecretHash, SecretHashError, TokenSecret};
pub use store::{
    Change, ChangeError, Cursor, InsertError, MemoryStore, TokenFilter, TokenPage, TokenRegistry, TokenStore,
    UpdateError,
};
pub use text::TextError;
pub use token::{
    AttributeError, Attributes, CreatedBy, CreatedByError, LastUsed, PlaintextToken, Prefix, PrefixError,
    RetiringSecret, Revision, TokenRecord, TokenState, TokenStateError,
};
