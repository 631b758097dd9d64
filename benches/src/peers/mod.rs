//! What people put before a service instead, each as they would.
//!
//! All of them admit the one token, cookie or JWT that is sent to them, and give handlers its user as an extension.

mod caches;
mod sessions;

use tower::{Layer, Service};

use crate::rounds::Contender;
use crate::{Bare, Body, Template};

pub use caches::{hand_written_dashmap, hand_written_moka, jwt, static_bearer};
pub use sessions::{axum_login, tower_sessions};

/// A layer, and requests that it admits.
#[derive(Debug, Clone)]
pub struct Peer<L> {
    pub name: &'static str,
    pub layer: L,
    pub template: Template,
}

impl<L, S, R> Peer<L>
where
    L: Layer<Bare, Service = S>,
    S: Service<http::Request<Body>, Response = http::Response<R>, Error: std::fmt::Debug> + 'static,
{
    pub fn contender(self) -> Contender {
        Contender::new("peer", self.name, self.layer.layer(Bare), self.template, 200)
    }
}

/// The service behind all of them, with a header that nobody looks at.
pub fn bare() -> Contender {
    Contender::new("bare", "bare", Bare, Template::bearer(TOKEN), 200)
}

/// The same for requests without the header, which cost less to make.
pub fn bare_anonymous() -> Contender {
    Contender::new("bare", "bare, without the header", Bare, Template::anonymous(), 200)
}

/// A future that is boxed for each request: what a middleware written with `async_trait` costs at least.
pub fn boxed() -> Contender {
    use futures_util::future::BoxFuture;
    use http::{Request, Response};

    let service =
        tower::service_fn(|request: Request<Body>| -> BoxFuture<'static, Result<_, std::convert::Infallible>> {
            Box::pin(async move {
                drop(std::hint::black_box(request));
                Ok(Response::new(Body::new()))
            })
        });
    Contender::new("floor", "a boxed future, nothing else", service, Template::bearer(TOKEN), 200)
}

/// A token as long as ours.
const TOKEN: &str = "tta_0123456789abcdef_0123456789abcdef0123456789abcdef012345";
