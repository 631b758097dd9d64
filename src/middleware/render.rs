//! Refusals as HTTP and gRPC responses.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::refusal::{Refusal, RefusalKind, Row};
use crate::config::BuildError;
use crate::request::RequestHead;

/// Makes the body of a refusal, and headers beside those that are fixed.
pub(super) type Renderer = Arc<dyn Fn(&Refusal) -> Response<Bytes> + Send + Sync>;

const PROBLEM_TYPES: &str = "https://docs.rs/tower-token-auth/latest/tower_token_auth/";

pub(super) struct Render {
    challenges: Challenges,
    /// One for each row, made once: a refusal costs no formatting.
    answers: Vec<Answer>,
    renderer: Option<Renderer>,
    grpc: bool,
}

/// A refusal's headers and body, where the application does not make them.
struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

struct Challenges {
    bare: HeaderValue,
    invalid_request: HeaderValue,
    invalid_token: HeaderValue,
    insufficient_scope: HeaderValue,
}

impl Challenges {
    fn new(realm: &str) -> Result<Self, BuildError> {
        // RFC 9110 §5.6.4: what may stand in a quoted-string without escapes.
        let legal = (1..=128).contains(&realm.len())
            && realm.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
        if !legal {
            return Err(BuildError::Realm);
        }
        let challenge = |parameters: &str| {
            HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{parameters}")).map_err(|_| BuildError::Realm)
        };
        Ok(Self {
            bare: challenge("")?,
            invalid_request: challenge(", error=\"invalid_request\"")?,
            invalid_token: challenge(", error=\"invalid_token\"")?,
            insufficient_scope: challenge(", error=\"insufficient_scope\", scope=\"read-write\"")?,
        })
    }

    fn of(&self, refusal: &Refusal) -> Option<&HeaderValue> {
        match refusal.error_code() {
            _ if refusal.kind() == RefusalKind::Unavailable => None,
            Some("invalid_request") => Some(&self.invalid_request),
            Some("invalid_token") => Some(&self.invalid_token),
            Some(_) => Some(&self.insufficient_scope),
            None => Some(&self.bare),
        }
    }
}

impl Render {
    pub(super) fn new(realm: &str, renderer: Option<Renderer>, grpc: bool) -> Result<Self, BuildError> {
        let challenges = Challenges::new(realm)?;
        let answers = Row::ALL.into_iter().map(|row| {
            let refusal = Refusal::new(row);
            let (parts, body) = complete(problem(&refusal), &refusal, &challenges).into_parts();
            Answer { headers: parts.headers, body }
        });
        Ok(Self { answers: answers.collect(), challenges, renderer, grpc })
    }

    pub(super) fn render(&self, refusal: &Refusal, head: &RequestHead<'_>) -> Response<Bytes> {
        if self.grpc && is_grpc(head) { grpc(refusal) } else { self.http(refusal) }
    }

    fn http(&self, refusal: &Refusal) -> Response<Bytes> {
        match (&self.renderer, self.answers.get(refusal.row().position())) {
            (None, Some(answer)) => answer.response(refusal.status()),
            (renderer, _) => {
                let made = renderer.as_ref().and_then(|render| {
                    // A renderer that panics costs its own body, not the answer.
                    catch_unwind(AssertUnwindSafe(|| render(refusal))).ok()
                });
                complete(made.unwrap_or_else(|| problem(refusal)), refusal, &self.challenges)
            }
        }
    }
}

impl Answer {
    fn response(&self, status: StatusCode) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// Sets what is fixed, whoever has made the rest.
fn complete(mut response: Response<Bytes>, refusal: &Refusal, challenges: &Challenges) -> Response<Bytes> {
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    set(headers, WWW_AUTHENTICATE, challenges.of(refusal).cloned());
    let retry = refusal.kind() == RefusalKind::Unavailable;
    set(headers, RETRY_AFTER, retry.then(|| HeaderValue::from_static("1")));
    forbid_caching(headers);
    response
}

impl fmt::Debug for Render {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Render").field("challenge", &self.challenges.bare).field("grpc", &self.grpc).finish()
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

fn forbid_caching(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
}

/// Problem details (RFC 9457). All texts are constants without a character that JSON escapes.
fn problem(refusal: &Refusal) -> Response<Bytes> {
    let (title, detail, status) = (refusal.title(), refusal.detail(), refusal.status().as_u16());
    let problem = refusal.problem();
    let body = format!(
        "{{\"type\":\"{PROBLEM_TYPES}#{problem}\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\"}}"
    );
    let mut response = Response::new(Bytes::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// The 401 of a handler that needs a token. It knows no realm, and a 401 has a challenge (RFC 9110 §15.5.2).
#[cfg(feature = "axum")]
pub(crate) fn unauthenticated() -> Response<Bytes> {
    let refusal = Refusal::new(Row::Missing);
    let mut response = problem(&refusal);
    *response.status_mut() = refusal.status();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    forbid_caching(response.headers_mut());
    response
}

/// A trailers-only answer, as gRPC over HTTP/2 defines it.
fn grpc(refusal: &Refusal) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(refusal.grpc_status()));
    headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(refusal.detail()));
    forbid_caching(headers);
    response
}

/// A POST whose media type is exactly `application/grpc` or `application/grpc+…`. grpc-web speaks HTTP.
fn is_grpc(head: &RequestHead<'_>) -> bool {
    if head.method != Method::POST || head.headers.get_all(CONTENT_TYPE).iter().count() != 1 {
        return false;
    }
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    media_type.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
        && matches!(media_type.get(16), None | Some(b'+'))
}
