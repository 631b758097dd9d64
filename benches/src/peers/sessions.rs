//! Sessions: another kind of credentials, for people with browsers, and the same question on each request.

use std::marker::PhantomData;
use std::sync::Arc;

use axum_login::{AuthManagerLayer, AuthManagerLayerBuilder, AuthSession, AuthUser, AuthnBackend, UserId};
use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use serde::{Deserialize, Serialize};
use tower::layer::util::Stack;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::auth::{AsyncAuthorizeRequest, AsyncRequireAuthorizationLayer};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};

use super::Peer;
use super::caches::unauthorized;
use crate::{Body, Template};

/// Where the session keeps its user.
const KEY: &str = "user";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    owner: String,
    writes: bool,
}

/// Admits a session that has a user.
#[derive(Debug)]
pub struct RequireUser<R>(PhantomData<fn() -> R>);

impl<R> Clone for RequireUser<R> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<B: Send + 'static, R: Default + Send + 'static> AsyncAuthorizeRequest<B> for RequireUser<R> {
    type RequestBody = B;
    type ResponseBody = R;
    type Future = BoxFuture<'static, Result<Request<B>, Response<R>>>;

    fn authorize(&mut self, mut request: Request<B>) -> Self::Future {
        Box::pin(async move {
            let session = request.extensions().get::<Session>().cloned().ok_or_else(unauthorized)?;
            let user: User = session.get(KEY).await.ok().flatten().ok_or_else(unauthorized)?;
            request.extensions_mut().insert(user);
            Ok(request)
        })
    }
}

type Checked<L, C> = Stack<AsyncRequireAuthorizationLayer<C>, L>;

/// A session in memory that knows its user.
///
/// # Panics
/// Where the session cannot be made.
pub async fn tower_sessions<R: Default>() -> Peer<Checked<SessionManagerLayer<MemoryStore>, RequireUser<R>>> {
    let store = MemoryStore::default();
    let session = Session::new(None, Arc::new(store.clone()), None);
    session.insert(KEY, User { owner: "alice".to_owned(), writes: true }).await.expect("a user serialises");
    session.save().await.expect("memory takes a session");
    let cookie = format!("id={}", session.id().expect("a saved session has an id"));
    let layer =
        Stack::new(AsyncRequireAuthorizationLayer::new(RequireUser(PhantomData)), SessionManagerLayer::new(store));
    Peer { name: "tower-sessions, memory store", layer, template: Template::cookie(&cookie) }
}

/// One user, whose password is not asked for.
#[derive(Debug, Clone)]
pub struct Alice;

impl AuthUser for Alice {
    type Id = u64;

    fn id(&self) -> u64 {
        1
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"of her password"
    }
}

#[derive(Debug, Clone)]
pub struct OnlyAlice;

impl AuthnBackend for OnlyAlice {
    type User = Alice;
    type Credentials = ();
    type Error = std::convert::Infallible;

    async fn authenticate(&self, (): ()) -> Result<Option<Alice>, Self::Error> {
        Ok(Some(Alice))
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<Alice>, Self::Error> {
        Ok((*id == 1).then_some(Alice))
    }
}

/// Admits a session that somebody is logged in to.
#[derive(Debug)]
pub struct RequireLogin<R>(PhantomData<fn() -> R>);

impl<R> Clone for RequireLogin<R> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<B, R: Default> AsyncAuthorizeRequest<B> for RequireLogin<R> {
    type RequestBody = B;
    type ResponseBody = R;
    type Future = std::future::Ready<Result<Request<B>, Response<R>>>;

    fn authorize(&mut self, request: Request<B>) -> Self::Future {
        let session = request.extensions().get::<AuthSession<OnlyAlice>>();
        let admitted = session.is_some_and(|session| session.user.is_some());
        std::future::ready(if admitted { Ok(request) } else { Err(unauthorized()) })
    }
}

type Login = AuthManagerLayer<OnlyAlice, MemoryStore>;

/// axum-login over sessions in memory.
///
/// # Panics
/// Where nobody can be logged in.
pub async fn axum_login<R: Default>() -> Peer<Checked<Login, RequireLogin<R>>> {
    let layer = AuthManagerLayerBuilder::new(OnlyAlice, SessionManagerLayer::new(MemoryStore::default())).build();
    let cookie = log_in(&layer).await;
    let layer = Stack::new(AsyncRequireAuthorizationLayer::new(RequireLogin(PhantomData)), layer);
    Peer { name: "axum-login, memory store", layer, template: Template::cookie(&cookie) }
}

/// The cookie of a session that Alice is logged in to.
async fn log_in(layer: &Login) -> String {
    let service = layer.layer(service_fn(|request: Request<Body>| async move {
        let session = request.extensions().get::<AuthSession<OnlyAlice>>().cloned();
        session.expect("the layer attaches a session").login(&Alice).await.expect("Alice may log in");
        Ok::<_, std::convert::Infallible>(Response::new(Body::new()))
    }));
    let response = service.oneshot(Template::anonymous().request()).await.expect("nothing here fails");
    let cookie = response.headers().get(header::SET_COOKIE).expect("a session begins with a cookie");
    let text = cookie.to_str().expect("a cookie is visible ASCII");
    text.split(';').next().unwrap_or_default().to_owned()
}
