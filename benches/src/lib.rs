//! What all benchmarks share: the contenders as complete tower services, and rounds that interleave them.
//!
//! A machine is noisy and shared, so nothing here is compared across runs. Every round measures every contender once,
//! in turn; what is told is the median over the rounds, and ratios within the run.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderValue, Request, Response, header};
use tower::Service;

pub mod contenders;

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

/// What is sent in every call: a GET with a token and a user agent, as a server hands it on.
#[derive(Debug, Clone)]
pub struct Template {
    authorization: Option<HeaderValue>,
    extension: bool,
}

/// Stands for what an outer layer has attached.
#[derive(Debug, Clone, Copy)]
struct Attached(#[expect(dead_code, reason = "it only takes its place")] u64);

impl Template {
    pub fn bearer(token: &str) -> Self {
        let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a token is visible ASCII");
        Self { authorization: Some(value), extension: false }
    }

    pub fn anonymous() -> Self {
        Self { authorization: None, extension: false }
    }

    /// With an extension there already, as behind any router.
    pub fn with_extension(self) -> Self {
        Self { extension: true, ..self }
    }

    pub fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::new());
        *request.uri_mut() = http::Uri::from_static("/issues");
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bench/1.0"));
        if let Some(value) = &self.authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
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
    let mut answer = pin!(service.call(request));
    loop {
        if let Poll::Ready(response) = answer.as_mut().poll(&mut context) {
            return response.expect("no service here fails").status().as_u16();
        }
    }
}

/// Something to measure: runs `calls` times.
pub struct Contender {
    pub name: &'static str,
    run: Box<dyn FnMut(usize)>,
    /// Nanoseconds a call, one of each round.
    rounds: Vec<f64>,
}

impl Contender {
    /// A service that has to answer every request of `template` with `status`.
    pub fn new<S, R>(name: &'static str, mut service: S, template: Template, status: u16) -> Self
    where
        S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug> + 'static,
    {
        let run = move |calls| {
            for _ in 0..calls {
                assert_eq!(call(&mut service, template.request()), status, "{name}");
            }
        };
        Self { name, run: Box::new(run), rounds: Vec::new() }
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn min(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Measures all contenders, a round at a time.
pub fn measure(contenders: &mut [Contender], rounds: usize, calls: usize) {
    for contender in contenders.iter_mut() {
        (contender.run)(calls);
    }
    for _ in 0..rounds {
        for contender in contenders.iter_mut() {
            let start = Instant::now();
            (contender.run)(calls);
            contender.rounds.push(start.elapsed().as_nanos() as f64 / calls as f64);
        }
    }
}

/// Prints medians, and each contender's cost over the first one.
pub fn table(contenders: &[Contender]) {
    let bare = contenders.first().map_or(0.0, Contender::median);
    println!("| service | min ns | median ns | over bare ns |");
    println!("|---|---:|---:|---:|");
    for contender in contenders {
        let (min, median) = (contender.min(), contender.median());
        println!("| {} | {min:.0} | {median:.0} | {:.0} |", contender.name, median - bare);
    }
}
