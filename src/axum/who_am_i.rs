//! A handler that tells clients of their own token.

use axum_core::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::decision::AuthenticatedToken;
use crate::token::SecretSlot;

/// An axum handler that tells a client of the token it has presented: a JSON object, never cached.
///
/// | field | what it is | |
/// |---|---|---|
/// | `id` | the token's public id | |
/// | `label` | what people call it | |
/// | `scope` | what it may do now, `read-only` or `read-write` | |
/// | `issued_scope` | what it was issued for | only where today's policy leaves less of it |
/// | `expires_at` | when the token stops to work, in UTC as RFC 3339 writes it, or `null` for never | |
/// | `works_until` | when the presented secret stops to work | only where a rotation has replaced it |
///
/// Without a layer before it, it answers as the extractor does: [`MissingLayer`](crate::MissingLayer), 500.
///
/// # Example
/// ```
/// use axum::{Router, routing::get};
/// use tower_token_auth::{MemoryStore, TokenAuthLayer, who_am_i};
///
/// let auth = TokenAuthLayer::new(MemoryStore::new());
/// let app: Router = Router::new().route("/whoami", get(who_am_i)).route_layer(auth);
/// ```
pub async fn who_am_i(token: AuthenticatedToken) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (headers, describe(&token).to_string()).into_response()
}

fn describe(token: &AuthenticatedToken) -> Value {
    let narrowed = token.issued_scope() != token.scope();
    let replaced = token.secret_slot() == SecretSlot::Retiring;
    let fields = [
        Some(("id", json!(token.id().as_str()))),
        Some(("label", json!(token.label().as_str()))),
        Some(("scope", json!(token.scope().as_str()))),
        narrowed.then(|| ("issued_scope", json!(token.issued_scope().as_str()))),
        Some(("expires_at", time(token.expires_at()))),
        replaced.then(|| ("works_until", time(token.works_until()))),
    ];
    fields.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn time(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::String(time.to_string()))
}
