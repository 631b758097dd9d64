//! For axum: extractors, and a handler.

mod who_am_i;

pub use who_am_i::who_am_i;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::decision::AuthenticatedToken;
use crate::middleware::Passed;

/// A handler asked for the token of a request that no gate has seen, or none that tells of it: an error of the server, answered 500.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MissingLayer;

impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        const WHY: &str = "this route extracts an AuthenticatedToken and is not under a TokenAuthLayer that admits \
                           only tokens and tells of them; add the layer, extract Option<AuthenticatedToken> where requests may \
                           pass, or remove without_extension from the layer's builder";
        (StatusCode::INTERNAL_SERVER_ERROR, WHY).into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthenticatedToken {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MissingLayer> {
        parts.extensions.get::<Self>().cloned().ok_or(MissingLayer)
    }
}

/// `None` for a request that the gate let pass without a token.
impl<S: Send + Sync> OptionalFromRequestParts<S> for AuthenticatedToken {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, MissingLayer> {
        match parts.extensions.get::<Self>() {
            None if parts.extensions.get::<Passed>().is_none() => Err(MissingLayer),
            token => Ok(token.cloned()),
        }
    }
}
