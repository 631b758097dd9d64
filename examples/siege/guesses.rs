//! Guesses at a known id: what they cost its holder, and everybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tower_token_auth::{CacheConfig, PlaintextToken, Prefix, Scratch, SecretHasher};

use crate::counted::{Castle, Hasher, Store, guess, record, workers};
use crate::flood::Work;
use crate::generator::{Job, Present};
use crate::table::{Row, forget_peak, growth, median, peak_kib, quantile, row};
use crate::{Size, on_runtime};

const GUESSES: usize = 10_000;

/// New records carry 32 bits of another hash: a guess dies there.
pub(crate) fn with_precheck(_: Size) -> Vec<Row> {
    let castle = Castle::new(Store::new(Duration::from_millis(1)), Hasher::real());
    on_runtime(async {
        let token = castle.token().await;
        let at_once = join_all((0..GUESSES).map(|_| guessing(&castle, &token))).await;
        let in_process = castle.counts();
        let address = castle.serve().await;
        let by_socket = Job::new(Present::Guesses(token.id()), GUESSES, 200).send(address).await;
        let after = castle.counts();
        let cold = castle.get(token.expose()).await;
        let work = Work::start(&castle, vec![token.expose().to_owned()]);
        Job::new(Present::Guesses(token.id()), GUESSES, 200).send(address).await;
        let hot = work.end().await;
        let refused = at_once.iter().all(|status| *status == 401) && by_socket.of(401) == GUESSES;
        vec![
            row(
                "10,000 guesses at an id at once, again by socket",
                "1 look-up, 0 argon2, all 401",
                format!("{} look-up, {} argon2; by socket {}", after.0, after.1, by_socket.told()),
                refused && in_process == (1, 0) && after == (1, 0),
            ),
            row(
                "… its holder, cold and then hot",
                "200 at once with one argon2; hot 0 refusals, 0 argon2",
                format!(
                    "cold {cold}; {} hot requests, {} refused; {} argon2",
                    hot.requests,
                    hot.refused,
                    castle.counts().1
                ),
                cold == 200 && hot.refused == 0 && castle.counts().1 == 1,
            ),
        ]
    })
}

async fn guessing(castle: &Castle, token: &PlaintextToken) -> u16 {
    castle.get(&guess(&token.id())).await
}

/// A record from elsewhere, without a precheck.
async fn old_token(castle: &Castle) -> PlaintextToken {
    let token = PlaintextToken::generate(&Prefix::default()).unwrap();
    let hash = castle.hasher.hash(token.secret(), &mut Scratch::new()).unwrap();
    castle.store.keep(record(token.id(), hash)).await;
    token
}

/// Older records have none: every guess is argon2, and must not be more than one at a time.
pub(crate) fn without_precheck(size: Size) -> Vec<Row> {
    let castle = Castle::new(Store::new(Duration::from_millis(1)), Hasher::real());
    let mut rows = on_runtime(async {
        let (token, other) = (old_token(&castle).await, castle.token().await);
        let before = forget_peak();
        let (address, flooding) = (castle.serve().await, Job::new(Present::Guesses(token.id()), GUESSES, 200));
        let at_once = join_all((0..GUESSES).map(|_| guessing(&castle, &token)));
        let admitted = async {
            // Not before the flood has reached the crew.
            while castle.hasher.verifications() == 0 {
                tokio::task::yield_now().await;
            }
            let start = Instant::now();
            (castle.get(other.expose()).await, start.elapsed())
        };
        let (statuses, (status, wait)) = tokio::join!(at_once, admitted);
        let by_socket = flooding.send(address).await;
        let (memory, small) = growth(before, peak_kib(), workers() as u64 * 19 + 16);
        let fine = statuses.iter().chain(by_socket.statuses.keys()).all(|status| [401, 503].contains(status));
        vec![
            row(
                "the same without precheck (older records)",
                "≤ 1 argon2 at a time for the id, memory ≤ P × 19 + 16 MiB",
                format!("{} at a time of {} argon2, {memory}", castle.hasher.most_of_one(), castle.counts().1),
                castle.hasher.most_of_one() <= 1 && small && fine,
            ),
            row(
                "… another cold token meanwhile",
                "admitted within its wait bound (2 s)",
                format!("{status} after {} ms", wait.as_millis()),
                status == 200 && wait < Duration::from_secs(2),
            ),
        ]
    });
    rows.push(unrelated_hot_tokens(size));
    rows.push(hot_holder(size));
    rows
}

/// The guesses over the socket, against as many malformed requests while P threads are busy hashing.
fn unrelated_hot_tokens(size: Size) -> Row {
    let rounds = size.of(9, 3);
    let castle = Castle::new(Store::new(Duration::ZERO), Hasher::real());
    let (mut attacked, mut controls) = (Vec::new(), Vec::new());
    on_runtime(async {
        let (old, hot) = (old_token(&castle).await, castle.token().await);
        assert_eq!(castle.get(hot.expose()).await, 200);
        let address = castle.serve().await;
        for _ in 0..rounds {
            let guesses = Job { pace: 2_000, ..Job::new(Present::Guesses(old.id()), 3_000, 32) };
            attacked.push(tail_of(&castle, hot.expose(), guesses.send(address)).await);
            let busy = Busy::start();
            let noise = Job { pace: 2_000, ..Job::new(Present::Malformed, 3_000, 32) };
            controls.push(tail_of(&castle, hot.expose(), noise.send(address)).await);
            busy.end();
        }
    });
    let (attacked, control) = (median(attacked), median(controls));
    let ratio = attacked.as_secs_f64() / control.as_secs_f64();
    row(
        "… p99 of an unrelated hot token",
        "< 2 × that beside P busy threads and as many malformed requests",
        format!("{attacked:.1?} against {control:.1?}: {ratio:.2} × ({rounds} rounds, medians)"),
        ratio < 2.0,
    )
}

/// The p99 of hot requests in process while `load` lasts.
async fn tail_of(castle: &Castle, token: &str, load: impl Future) -> Duration {
    let ended = Arc::new(AtomicBool::new(false));
    let (castle, token, end) = (castle.clone(), token.to_owned(), Arc::clone(&ended));
    let measuring = std::thread::spawn(move || {
        let mut latencies = Vec::new();
        while !end.load(Ordering::Relaxed) {
            for _ in 0..100 {
                let start = Instant::now();
                assert_eq!(castle.get(&token).now_or_never(), Some(200), "a hot token waits for nothing");
                latencies.push(start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        quantile(&mut latencies, 0.99)
    });
    load.await;
    ended.store(true, Ordering::Relaxed);
    measuring.join().unwrap()
}

/// P threads that hash as the crew does, for nobody.
struct Busy(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Busy {
    fn start() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let threads = (0..workers()).map(|_| {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                let (hasher, mut scratch) = (Hasher::real(), Scratch::new());
                let secret = tower_token_auth::TokenSecret::generate().unwrap();
                while !ended.load(Ordering::Relaxed) {
                    drop(hasher.hash(&secret, &mut scratch));
                }
            })
        });
        let threads = threads.collect();
        Self(ended, threads)
    }

    fn end(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// The holder of the guessed token, while it is hot.
fn hot_holder(size: Size) -> Row {
    let ttls = size.of(100, 20);
    let ttl = Duration::from_millis(50);
    let castle = Castle::with(Store::new(Duration::from_millis(1)), Hasher::real(), |builder| {
        builder.cache(CacheConfig::default().ttl(ttl))
    });
    on_runtime(async {
        let token = old_token(&castle).await;
        assert_eq!(castle.get(token.expose()).await, 200);
        let (address, start) = (castle.serve().await, Instant::now());
        let work = Work::start(&castle, vec![token.expose().to_owned()]);
        while start.elapsed() < ttl * u32::try_from(ttls).unwrap() {
            Job::new(Present::Guesses(token.id()), 2_000, 64).send(address).await;
        }
        let passed = start.elapsed().as_secs_f64() / ttl.as_secs_f64();
        let (work, hashes) = (work.end().await, castle.hasher.verifications() - 1);
        row(
            format!("… its holder, hot, over {ttls} TTLs"),
            "0 refusals, 0 argon2",
            format!("{passed:.0} TTLs: {} requests, {} refused, {hashes} argon2", work.requests, work.refused),
            work.refused == 0 && hashes == 0,
        )
    })
}
