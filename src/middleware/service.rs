//! The service: a gate before an inner service.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::Service;

use super::body::ResponseBody;
use super::future::ResponseFuture;
use super::gate::{Gate, Reception};
use crate::access::Access;

/// An inner service behind a gate. Made by [`TokenAuthLayer`](crate::TokenAuthLayer).
#[derive(Debug, Clone)]
pub struct TokenAuth<S> {
    inner: S,
    gate: Arc<Gate>,
    required: Option<Access>,
}

impl<S> TokenAuth<S> {
    pub(super) const fn new(inner: S, gate: Arc<Gate>, required: Option<Access>) -> Self {
        Self { inner, gate, required }
    }
}

impl<S, B, R> Service<Request<B>> for TokenAuth<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The instance that was made ready is the one to call; a clone of it need not be ready.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        match self.gate.receive(&mut request, self.required) {
            Reception::Onward(stamp) => ResponseFuture::inner(ready.call(request), stamp),
            // Dropping `ready` gives back what it holds: who has no token holds no place.
            Reception::Refused(response) => ResponseFuture::refused(response),
            Reception::Waiting(waiting) => {
                drop(ready);
                let (gate, service) = (Arc::clone(&self.gate), self.inner.clone());
                ResponseFuture::waiting(waiting, gate, self.required, request, service)
            }
        }
    }
}
