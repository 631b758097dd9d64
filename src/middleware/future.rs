//! The future of a response: refused, decided, or waiting to be.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;
use tower::util::Oneshot;

use super::body::ResponseBody;
use super::gate::{Gate, Presented, Waiting};
use super::stamp::Stamp;
use crate::access::Access;
use crate::decision::Verdict;
use crate::request::RequestHead;

pin_project! {
    /// The future of [`TokenAuth`](crate::TokenAuth).
    ///
    /// # Cancellation
    /// Dropped while it waits for its verdict, it takes nobody with it: others who wait for the same look-up or hash
    /// get their answer, and a hash that has begun is finished and remembered. The audit trail is told that the client
    /// left.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Inner { #[pin] future: S::Future, stamp: Stamp },
        Refused { response: Option<Response<Bytes>> },
        // Boxed, because they hold a whole request: most futures never do, and are moved about by servers.
        Waiting { verdict: BoxFuture<'static, Verdict>, pending: Option<Box<Pending<S, B>>> },
        Admitted { future: Pin<Box<Oneshot<S, Request<B>>>>, stamp: Stamp },
    }
}

/// A request that waits. Dropped before it is concluded, it was abandoned.
struct Pending<S, B> {
    gate: Arc<Gate>,
    required: Option<Access>,
    held: Option<Held<S, B>>,
}

struct Held<S, B> {
    presented: Presented,
    request: Request<B>,
    service: S,
}

impl<S, B> Drop for Pending<S, B> {
    fn drop(&mut self) {
        if let Some(Held { presented, request, .. }) = self.held.take() {
            self.gate.abandon(&RequestHead::of(&request), &presented);
        }
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) const fn inner(future: S::Future, stamp: Stamp) -> Self {
        Self { state: State::Inner { future, stamp } }
    }

    pub(super) const fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn waiting(
        waiting: Waiting,
        gate: Arc<Gate>,
        required: Option<Access>,
        request: Request<B>,
        service: S,
    ) -> Self {
        let (verdict, presented) = waiting.into_parts();
        let held = Some(Held { presented, request, service });
        let pending = Some(Box::new(Pending { gate, required, held }));
        Self { state: State::Waiting { verdict, pending } }
    }
}

impl<S, B> Pending<S, B>
where
    S: Service<Request<B>>,
{
    /// `None` where that has happened before.
    fn conclude(mut self, verdict: Verdict) -> Option<State<S, B>> {
        let Held { presented, mut request, service } = self.held.take()?;
        Some(match self.gate.conclude(&mut request, self.required, verdict, presented) {
            Ok(stamp) => {
                let future = Oneshot::new(service, request);
                State::Admitted { future: Box::pin(future), stamp }
            }
            Err(response) => State::Refused { response: Some(*response) },
        })
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What nearly every future is, apart from all else, so that the response is moved about no more than it must be.
        if let Projected::Inner { future, stamp } = self.as_mut().project().state.project() {
            if stamp.is_empty() {
                return future.poll(cx).map_ok(|response| response.map(ResponseBody::inner));
            }
        }
        self.poll_any(cx)
    }
}

impl<S, B, R> ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    #[inline(never)]
    fn poll_any(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                Projected::Inner { future, stamp } => return future.poll(cx).map_ok(|response| wrap(response, stamp)),
                Projected::Admitted { future, stamp } => {
                    return future.as_mut().poll(cx).map_ok(|response| wrap(response, stamp));
                }
                Projected::Refused { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response.map(ResponseBody::refusal))),
                    // Polled after its end, which a caller must not do.
                    None => return Poll::Pending,
                },
                Projected::Waiting { verdict, pending } => {
                    let verdict = ready!(verdict.as_mut().poll(cx));
                    match pending.take().and_then(|pending| pending.conclude(verdict)) {
                        Some(state) => state,
                        None => return Poll::Pending,
                    }
                }
            };
            this.state.set(next);
        }
    }
}

fn wrap<R>(mut response: Response<R>, stamp: &Stamp) -> Response<ResponseBody<R>> {
    stamp.put(response.headers_mut());
    response.map(ResponseBody::inner)
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Inner { .. } => "Inner",
            State::Refused { .. } => "Refused",
            State::Waiting { .. } => "Waiting",
            State::Admitted { .. } => "Admitted",
        };
        write!(f, "ResponseFuture({state})")
    }
}
