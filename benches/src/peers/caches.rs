//! One layer of tower-http's, and what is commonly written into it by hand.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use dashmap::DashMap;
use http::{HeaderMap, Request, Response, StatusCode, header};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, decode, encode};
use sha2::{Digest, Sha256};
use tower_http::auth::{AsyncAuthorizeRequest, AsyncRequireAuthorizationLayer};
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::{Peer, TOKEN};
use crate::Template;

/// Knows the users of tokens.
pub trait Users: Clone {
    type User: Clone + Send + Sync + 'static;

    fn user(&self, token: &[u8]) -> Option<Self::User>;
}

/// Asks for a user at once, without an `async` block: the cheapest way there is.
#[derive(Debug)]
pub struct Asking<U, R>(U, PhantomData<fn() -> R>);

impl<U: Clone, R> Clone for Asking<U, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<B, U: Users, R: Default> AsyncAuthorizeRequest<B> for Asking<U, R> {
    type RequestBody = B;
    type ResponseBody = R;
    type Future = Ready<Result<Request<B>, Response<R>>>;

    fn authorize(&mut self, mut request: Request<B>) -> Self::Future {
        ready(match bearer(request.headers()).and_then(|token| self.0.user(token)) {
            Some(user) => {
                request.extensions_mut().insert(user);
                Ok(request)
            }
            None => Err(unauthorized()),
        })
    }
}

type Layer<U, R> = AsyncRequireAuthorizationLayer<Asking<U, R>>;

fn asking<U: Users, R: Default>(name: &'static str, users: U, token: &str) -> Peer<Layer<U, R>> {
    let layer = AsyncRequireAuthorizationLayer::new(Asking(users, PhantomData));
    Peer { name, layer, template: Template::bearer(token) }
}

pub(super) fn unauthorized<R: Default>() -> Response<R> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")
}

/// What a hand-written cache keeps of a token.
#[derive(Debug, Clone)]
pub struct User {
    pub owner: Arc<str>,
    pub writes: bool,
    pub expires: Instant,
}

fn user() -> User {
    User { owner: "alice".into(), writes: true, expires: Instant::now() + Duration::from_secs(3_600) }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Users for Arc<DashMap<[u8; 32], User, RandomState>> {
    type User = User;

    fn user(&self, token: &[u8]) -> Option<User> {
        let user = self.get(&digest(token))?.clone();
        (Instant::now() < user.expires).then_some(user)
    }
}

/// SHA-256 of the token as the key of a dashmap.
pub fn hand_written_dashmap<R: Default>() -> Peer<Layer<impl Users, R>> {
    let users: Arc<DashMap<[u8; 32], User, RandomState>> = Arc::default();
    users.insert(digest(TOKEN.as_bytes()), user());
    asking("AsyncRequireAuthorization, sha256 + dashmap", users, TOKEN)
}

impl Users for moka::sync::Cache<[u8; 32], User> {
    type User = User;

    fn user(&self, token: &[u8]) -> Option<User> {
        self.get(&digest(token))
    }
}

/// The same with moka, a cache that expires entries by itself.
pub fn hand_written_moka<R: Default>() -> Peer<Layer<impl Users, R>> {
    let users = moka::sync::Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(3_600)).build();
    users.insert(digest(TOKEN.as_bytes()), user());
    asking("AsyncRequireAuthorization, sha256 + moka", users, TOKEN)
}

/// What a JWT says of its holder.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Claims {
    sub: String,
    scope: String,
    exp: u64,
}

#[derive(Clone)]
struct Jwt(Arc<(DecodingKey, Validation)>);

impl Users for Jwt {
    type User = Claims;

    fn user(&self, token: &[u8]) -> Option<Claims> {
        decode(token, &self.0.0, &self.0.1).ok().map(|known| known.claims)
    }
}

/// HS256, verified anew for each request.
pub fn jwt<R: Default>() -> Peer<Layer<impl Users, R>> {
    let secret = b"0123456789abcdef0123456789abcdef";
    let claims = Claims { sub: "alice".to_owned(), scope: "read-write".to_owned(), exp: 4_000_000_000 };
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).expect("claims encode");
    let users = Jwt(Arc::new((DecodingKey::from_secret(secret), Validation::default())));
    asking("AsyncRequireAuthorization, HS256 by jsonwebtoken", users, &token)
}

/// One token for everybody, compared as it is.
#[expect(deprecated, reason = "deprecated as too basic, and still what people meet first")]
pub fn static_bearer<R: Default>()
-> Peer<ValidateRequestHeaderLayer<tower_http::auth::require_authorization::Bearer<R>>> {
    let layer = ValidateRequestHeaderLayer::bearer(TOKEN);
    Peer { name: "tower-http static bearer", layer, template: Template::bearer(TOKEN) }
}
