//! Floods of what is no token: malformed, mistyped, or made up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, Service, service_fn};
use tower_token_auth::{CacheConfig, PlaintextToken, Prefix};

use crate::counted::{Castle, Hasher, Store};
use crate::generator::{Job, Present};
use crate::table::{Row, growth, resident_kib, row};
use crate::{Size, on_runtime};

/// In process, so that nothing but the gate is measured.
pub(crate) fn malformed(size: Size) -> Vec<Row> {
    let count = size.of(1_000_000, 200_000);
    // A renderer whose answer has had its memory before: what is left to count is the judgement, and filling it in.
    let roomy = |_: &tower_token_auth::Refusal| {
        let mut response = Response::new(Bytes::new());
        allocation_counter::opt_out(|| *response.headers_mut() = HeaderMap::with_capacity(16));
        response
    };
    let castle = Castle::with(Store::new(Duration::ZERO), Hasher::cheap(), |builder| builder.refusal(roomy));
    let lines = bad_lines();
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut service = castle.auth.layer(inner);
    let mut allocations = 0;
    for at in 0..count {
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert(AUTHORIZATION, lines[at % lines.len()].clone());
        let mut answer = None;
        allocations += allocation_counter::measure(|| answer = Some(service.call(request))).count_total;
        drop(answer);
    }
    let (look_ups, hashes) = castle.counts();
    let measured = format!("{look_ups} look-ups, {hashes} argon2, {allocations} allocations");
    vec![row(
        format!("{count} malformed or mistyped headers, in process"),
        "0 look-ups, 0 argon2, 0 allocations before the response",
        measured,
        (look_ups, hashes, allocations) == (0, 0, 0),
    )]
}

fn bad_lines() -> Vec<HeaderValue> {
    let token = PlaintextToken::generate(&Prefix::default()).unwrap().expose().to_owned();
    let other = if token.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("Bearer {}{other}", &token[..token.len() - 1]);
    let lines = [
        mistyped.as_str(),
        "Bearer",
        "Bearer ",
        "Bearer two words",
        "Bearer\ttab",
        "Bearer =early",
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
        "Basic dXNlcjpwYXNz",
        "Bearer tta_short",
    ];
    lines.iter().map(|line| HeaderValue::from_str(line).unwrap()).collect()
}

const TTL: Duration = Duration::from_secs(2);
const HOT: usize = 100;

/// Tokens that nobody has made, while others are at work.
pub(crate) fn unknown_ids(size: Size) -> Vec<Row> {
    let (over_socket, in_process) = (size.of(200_000, 30_000), size.of(800_000, 120_000));
    let castle = Castle::with(Store::new(Duration::from_millis(1)), Hasher::cheap(), |builder| {
        builder.cache(CacheConfig::default().ttl(TTL))
    });
    let (work, before, after, ttls) = on_runtime(async {
        let hot = castle.tokens(HOT).await;
        for token in &hot {
            assert_eq!(castle.get(token).await, 200);
        }
        let background = tokio::spawn(castle.auth.background());
        let address = castle.serve().await;
        // Fills the maps once, so that what grows afterwards is a leak.
        Job::new(Present::Unknown, 20_000, 64).send(address).await;
        let (before, start, hashed) = (resident_kib(), Instant::now(), castle.hasher.verifications());
        let work = Work::start(&castle, hot);
        let socket = Job::new(Present::Unknown, over_socket, 64);
        tokio::join!(socket.send(address), flood_in_process(&castle, in_process));
        while start.elapsed() < TTL * 3 {
            flood_in_process(&castle, 1_000).await;
        }
        let ttls = start.elapsed().as_secs_f64() / TTL.as_secs_f64();
        let work = work.end().await;
        background.abort();
        ((work, castle.hasher.verifications() - hashed), before, resident_kib(), ttls)
    });
    let ((work, hashes), most) = (work, castle.store.most_in_flight());
    let hit_rate = 1.0 - work.misses as f64 / work.requests as f64;
    let (memory, small) = growth(before, after, 16);
    let attack = format!("{} unknown ids", over_socket + in_process);
    vec![
        row(
            format!("{attack} ({over_socket} by socket)"),
            "look-ups in flight ≤ 256 + 64, 0 argon2, memory < 16 MiB",
            format!("over {ttls:.1} TTLs: {most} in flight, {hashes} argon2, {memory}"),
            most <= 256 + 64 && hashes == 0 && small,
        ),
        row(
            format!("… meanwhile {HOT} tokens at work"),
            "no refusal; ≥ 99.9 % answered from memory",
            format!("{} requests, {} refused, {:.3} % from memory", work.requests, work.refused, hit_rate * 100.0),
            work.refused == 0 && hit_rate >= 0.999,
        ),
    ]
}

async fn flood_in_process(castle: &Castle, count: usize) {
    let left = Arc::new(AtomicUsize::new(count));
    let floods: Vec<_> = (0..512)
        .map(|_| {
            let (castle, left) = (castle.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let one_less = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                    let token = PlaintextToken::generate(&Prefix::default()).unwrap();
                    let status = castle.get(token.expose()).await;
                    assert!(status == 401 || status == 503, "an unknown token got {status}");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for flood in floods {
        flood.await.unwrap();
    }
}

/// Holders who use their tokens all the time.
pub(crate) struct Work {
    ended: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Worked>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Worked {
    pub(crate) requests: usize,
    pub(crate) refused: usize,
    /// Requests that were not answered at once.
    pub(crate) misses: usize,
}

impl Work {
    pub(crate) fn start(castle: &Castle, tokens: Vec<String>) -> Self {
        let (castle, ended) = (castle.clone(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            use futures_util::FutureExt;
            let mut worked = Worked::default();
            while !end.load(Ordering::Relaxed) {
                for token in &tokens {
                    let mut call = Box::pin(castle.get(token));
                    let at_once = (&mut call).now_or_never();
                    worked.misses += usize::from(at_once.is_none());
                    let status = match at_once {
                        Some(status) => status,
                        None => call.await,
                    };
                    worked.requests += 1;
                    worked.refused += usize::from(status != 200);
                }
                tokio::task::yield_now().await;
            }
            worked
        });
        Self { ended, task }
    }

    pub(crate) async fn end(self) -> Worked {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
