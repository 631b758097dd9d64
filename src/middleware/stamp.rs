//! What a response tells its client of the token, where the builder says so.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::gate::Gate;
use crate::decision::AuthenticatedToken;

/// The response header that tells what the token may do now, `read-only` or `read-write`; see
/// [`token_headers`](crate::TokenAuthBuilder::token_headers).
pub const TOKEN_SCOPE: HeaderName = HeaderName::from_static("token-scope");

/// The response header that tells the first instant at which the presented secret no longer works, in UTC as RFC 3339
/// writes it (`2025-10-09T08:53:20.000Z`); see [`token_headers`](crate::TokenAuthBuilder::token_headers).
pub const TOKEN_EXPIRES_AT: HeaderName = HeaderName::from_static("token-expires-at");

/// The token that a response is to tell of; none where that is off, or nothing was proved.
#[derive(Debug, Clone, Default)]
pub(super) struct Stamp(Option<AuthenticatedToken>);

impl Gate {
    pub(super) fn stamp(&self, token: &AuthenticatedToken) -> Stamp {
        Stamp(self.token_headers.then(|| token.clone()))
    }
}

impl Stamp {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// In place of what the inner service says: it is the gate that knows.
    #[inline]
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        if let Some(token) = &self.0 {
            tell(token, headers);
        }
    }
}

fn tell(token: &AuthenticatedToken, headers: &mut HeaderMap) {
    let end = token.works_until().map(|end| end.to_string());
    put(headers, TOKEN_SCOPE, Some(HeaderValue::from_static(token.scope().as_str())));
    put(headers, TOKEN_EXPIRES_AT, end.and_then(|end| HeaderValue::try_from(end).ok()));
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    headers.remove(&name);
    if let Some(value) = value {
        // A map that an inner service has filled to its limit has no room; it panics for `insert`.
        let _full = headers.try_insert(name, value);
    }
}
