//! A service that answers at once, and the requests that are sent to what stands before it.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use tower::Service;

/// A body of no interest.
pub type Body = http_body_util::Empty<bytes::Bytes>;

/// The service behind every contender: answers at once.
#[derive(Debug, Clone, Copy)]
pub struct Bare;

impl<B> Service<Request<B>> for Bare {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(black_box(request));
        std::future::ready(Ok(Response::new(Body::new())))
    }
}

/// What is sent in every call: a request with credentials and a user agent, as a server hands it on.
#[derive(Debug, Clone)]
pub struct Template {
    method: Method,
    credentials: Option<(HeaderName, HeaderValue)>,
    extension: bool,
}

/// Stands for what an outer layer has attached.
#[derive(Debug, Clone, Copy)]
struct Attached(#[expect(dead_code, reason = "it only takes its place")] u64);

impl Template {
    /// GET without credentials.
    pub const fn anonymous() -> Self {
        Self { method: Method::GET, credentials: None, extension: false }
    }

    pub fn bearer(token: &str) -> Self {
        Self::authorization(&format!("Bearer {token}"))
    }

    /// A token whose checksum is made wrong.
    pub fn mistyped(token: &str) -> Self {
        let (text, last) = token.split_at(token.len() - 1);
        Self::bearer(&format!("{text}{}", if last == "0" { '1' } else { '0' }))
    }

    pub fn authorization(value: &str) -> Self {
        Self::with(header::AUTHORIZATION, value)
    }

    pub fn cookie(value: &str) -> Self {
        Self::with(header::COOKIE, value)
    }

    fn with(name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::try_from(value).expect("credentials are visible ASCII");
        Self { credentials: Some((name, value)), ..Self::anonymous() }
    }

    /// The header that credentials are sent in.
    pub const fn credentials(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.credentials.as_ref()
    }

    pub fn post(self) -> Self {
        Self { method: Method::POST, ..self }
    }

    /// With an extension there already, as behind any router.
    pub fn with_extension(self) -> Self {
        Self { extension: true, ..self }
    }

    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = http::Uri::from_static("/issues");
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench/1.0"));
        if let Some((name, value)) = &self.credentials {
            headers.insert(name, value.clone());
        }
        if self.extension {
            request.extensions_mut().insert(Attached(7));
        }
        request
    }
}

/// Calls a service once and polls to the end; everything here answers without waiting.
pub fn call<S, R>(service: &mut S, request: Request<Body>) -> u16
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut context), Poll::Ready(Ok(()))), "ready at once");
    // The answer lies in memory, as in a server: nothing is optimised away because all is in one function.
    let mut answer = pin!(black_box(service.call(request)));
    loop {
        match &answer.as_mut().poll(&mut context) {
            Poll::Ready(Ok(response)) => return response.status().as_u16(),
            Poll::Ready(Err(error)) => panic!("no service here fails: {error:?}"),
            Poll::Pending => {}
        }
    }
}
