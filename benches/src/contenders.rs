//! What people put before a service, each as they would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use tower::Layer;
use tower_http::auth::AsyncRequireAuthorizationLayer;

use crate::{Bare, Body, Contender, Template};

/// What a hand-written cache keeps of a token.
#[derive(Debug, Clone)]
pub struct User {
    pub owner: Arc<str>,
    pub writes: bool,
    pub expires: Instant,
}

type Checked = Result<Request<Body>, Response<Body>>;

fn unauthorized() -> Response<Body> {
    let mut response = Response::new(Body::new());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

fn bearer(request: &Request<Body>) -> Option<&[u8]> {
    request.headers().get(header::AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")
}

fn user() -> User {
    User { owner: "alice".into(), writes: true, expires: Instant::now() + Duration::from_secs(3_600) }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// `AsyncRequireAuthorization` with SHA-256 of the token as the key of a dashmap.
pub fn hand_written_dashmap(token: &str) -> Contender {
    let users: Arc<DashMap<[u8; 32], User, RandomState>> = Arc::default();
    users.insert(digest(token.as_bytes()), user());
    let layer = AsyncRequireAuthorizationLayer::new(move |mut request: Request<Body>| {
        let users = Arc::clone(&users);
        async move {
            let known = bearer(&request).and_then(|token| Some(users.get(&digest(token))?.clone()));
            match known.filter(|user| Instant::now() < user.expires) {
                Some(user) => {
                    request.extensions_mut().insert(user);
                    Ok(request)
                }
                None => Checked::Err(unauthorized()),
            }
        }
    });
    Contender::new("AsyncRequireAuthorization, sha256 + dashmap", layer.layer(Bare), Template::bearer(token), 200)
}

/// The same with moka, a cache that expires entries by itself.
pub fn hand_written_moka(token: &str) -> Contender {
    let users = moka::sync::Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(3_600)).build();
    users.insert(digest(token.as_bytes()), user());
    let layer = AsyncRequireAuthorizationLayer::new(move |mut request: Request<Body>| {
        let users = users.clone();
        async move {
            match bearer(&request).and_then(|token| users.get(&digest(token))) {
                Some(user) => {
                    request.extensions_mut().insert(user);
                    Ok(request)
                }
                None => Checked::Err(unauthorized()),
            }
        }
    });
    Contender::new("AsyncRequireAuthorization, sha256 + moka", layer.layer(Bare), Template::bearer(token), 200)
}

/// One token for everybody, compared as it is.
#[expect(deprecated, reason = "deprecated as too basic, and still what people meet first")]
pub fn static_bearer(token: &str) -> Contender {
    let layer = tower_http::validate_request::ValidateRequestHeaderLayer::bearer(token);
    Contender::new("tower-http static bearer", layer.layer(Bare), Template::bearer(token), 200)
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Claims {
    sub: String,
    scope: String,
    exp: u64,
}

/// HS256, verified anew for each request.
pub fn jwt() -> Contender {
    use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, decode, encode};
    let secret = b"0123456789abcdef0123456789abcdef";
    let claims = Claims { sub: "alice".to_owned(), scope: "read-write".to_owned(), exp: 4_000_000_000 };
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).expect("claims encode");
    let (key, validation) = (Arc::new(DecodingKey::from_secret(secret)), Arc::new(Validation::default()));
    let layer = AsyncRequireAuthorizationLayer::new(move |mut request: Request<Body>| {
        let (key, validation) = (Arc::clone(&key), Arc::clone(&validation));
        async move {
            match bearer(&request).and_then(|token| decode::<Claims>(token, &key, &validation).ok()) {
                Some(known) => {
                    request.extensions_mut().insert(known.claims);
                    Ok(request)
                }
                None => Checked::Err(unauthorized()),
            }
        }
    });
    Contender::new("AsyncRequireAuthorization, HS256 by jsonwebtoken", layer.layer(Bare), Template::bearer(&token), 200)
}

/// A future that is boxed for each request: what a middleware written with `async_trait` costs at least.
pub fn boxed() -> Contender {
    let service = tower::service_fn(|request: Request<Body>| -> BoxFuture<'static, Result<_, std::convert::Infallible>> {
        Box::pin(async move {
            drop(std::hint::black_box(request));
            Ok(Response::new(Body::new()))
        })
    });
    Contender::new("a boxed future, nothing else", service, Template::anonymous(), 200)
}

/// A header that is there and is not looked at.
pub fn bare(token: &str) -> Contender {
    let _: HeaderValue = HeaderValue::from_static("");
    Contender::new("bare", Bare, Template::bearer(token), 200)
}
