//! The tower shell: a layer, its service, and the answers it gives instead of the inner service.
//!
//! # How it decides
//! 1. A request that this gate has admitted already (an outer layer of the same gate) is judged by its access only.
//! 2. No credentials, or those of another scheme: 401, or passed on where the builder says so.
//! 3. Credentials that break the grammar: 400.
//! 4. A bearer token that is none of ours: 401 without asking the store, or passed on where the builder says so.
//! 5. What the authenticator says: 401, 503, or the token.
//! 6. The access the request needs must be within the token's scope, and within what today's policy leaves of it where
//!    the builder [applies the policy at use](TokenAuthBuilder::policy_at_use): 403 otherwise, or the event only, where
//!    the builder says so.
//! 7. The event is recorded; an admitted request whose event cannot be, where that is required: 503.
//!
//! # Cost
//! A proved token with a fresh record is decided inside `call`: no await, no boxed future, and the inner service is
//! called with the readiness that was reserved. Otherwise the reservation is given back while the store and the hash
//! work, and taken again after the decision.

mod body;
mod builder;
mod closures;
mod future;
mod gate;
mod judging;
mod layer;
mod narrowing;
mod permit;
mod refusal;
mod render;
mod service;
mod stamp;

pub use body::ResponseBody;
pub use builder::{OnForeign, OnMissing, TokenAuthBuilder};
pub use future::ResponseFuture;
#[cfg(feature = "axum")]
pub(crate) use gate::Passed;
pub use layer::TokenAuthLayer;
pub use refusal::{Refusal, RefusalKind};
pub use service::TokenAuth;
pub use stamp::{TOKEN_EXPIRES_AT, TOKEN_SCOPE};
