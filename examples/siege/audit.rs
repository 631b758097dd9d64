//! An audit sink that writes one event a second, behind the queue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tower_token_auth::{AuditError, AuditEvent, AuditSink, QueuedSink};

use crate::counted::{Castle, Hasher, Store};
use crate::table::{Row, median, quantile, row};
use crate::{Size, on_runtime};

/// Takes its time for each event until it is told to hurry, and counts the decisions itself.
#[derive(Clone, Default)]
struct Takes {
    time: Duration,
    hurries: Arc<AtomicBool>,
    decisions: Arc<AtomicU64>,
}

impl AuditSink for Takes {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        if !self.time.is_zero() && !self.hurries.load(Ordering::Relaxed) {
            std::thread::sleep(self.time);
        }
        if !event.action().is_report() {
            self.decisions.fetch_add(event.count(), Ordering::Relaxed);
        }
        Ok(())
    }
}

const CAPACITY: u64 = 10_000;
const ROUNDS: usize = 10;

/// In process, so that the socket's noise does not hide what is measured. Rounds of both sinks take turns.
pub(crate) fn slow_sink(size: Size) -> Vec<Row> {
    let count = size.of(400_000, 200_000);
    let (slow, fast) = (bench(Duration::from_secs(1)), bench(Duration::ZERO));
    // Measured when the slow sink's queue is full. Until then each event takes memory that nobody has touched before: what
    // is seen is the kernel's page faults, which a sink that gives the memory back has none of.
    let filling = 2 * CAPACITY as usize;
    for bench in [&slow, &fast] {
        bench.round(filling);
    }
    let (mut slow_tails, mut fast_tails) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        slow_tails.push(slow.round(count / ROUNDS));
        fast_tails.push(fast.round(count / ROUNDS));
    }
    let (slow_tail, fast_tail) = (median(slow_tails), median(fast_tails));
    let ratio = slow_tail.as_secs_f64() / fast_tail.as_secs_f64();
    // One more for the request that made the token hot.
    let all = count + filling;
    let told = all as u64 + 1;
    slow.takes.hurries.store(true, Ordering::Relaxed);
    let flushed = on_runtime(slow.queue.shutdown(Duration::from_secs(30))).is_ok();
    let tally = slow.queue.tally().unwrap();
    let (sum, arrived) = (tally.written + tally.coalesced + tally.lost, slow.takes.decisions.load(Ordering::Relaxed));
    let exact = flushed && sum == told && arrived == tally.written + tally.coalesced;
    let proved = all as u64 / 2 + 1;
    // What was lost is no more than what proved events had no place for, in the nine tenths that are theirs.
    let none_to_noise = tally.lost <= proved.saturating_sub(CAPACITY * 9 / 10);
    vec![
        row(
            format!("a sink at 1 event/s, queue full, {count} requests, half noise"),
            "p99 < 1.1 × that with an instant sink",
            format!("{slow_tail:.1?} against {fast_tail:.1?}: {ratio:.2} × ({ROUNDS} rounds, medians)"),
            ratio < 1.1,
        ),
        row(
            "… every decision accounted for",
            "the sum is exact, and no proved event is lost to noise",
            format!(
                "{} written, {} coalesced, {} lost of {told}; {arrived} reached the sink",
                tally.written, tally.coalesced, tally.lost
            ),
            exact && none_to_noise,
        ),
    ]
}

struct Bench {
    castle: Castle,
    queue: QueuedSink,
    takes: Takes,
    token: String,
}

fn bench(time: Duration) -> Bench {
    let takes = Takes { time, ..Takes::default() };
    let queue = QueuedSink::builder(takes.clone()).capacity(CAPACITY as usize).build().unwrap();
    let sink = queue.clone();
    let castle = Castle::with(Store::new(Duration::ZERO), Hasher::cheap(), |builder| builder.audit(sink));
    let token = on_runtime(async {
        let token = castle.token().await.expose().to_owned();
        assert_eq!(castle.get(&token).await, 200);
        token
    });
    Bench { castle, queue, takes, token }
}

impl Bench {
    /// The p99 of so many requests, every other one noise.
    fn round(&self, count: usize) -> Duration {
        let (sender, receiver) = mpsc::channel();
        let (castle, token) = (self.castle.clone(), self.token.clone());
        std::thread::spawn(move || {
            let mut latencies = Vec::with_capacity(count);
            for at in 0..count {
                let (text, expected) = if at % 2 == 0 { (token.as_str(), 200) } else { ("nonsense", 401) };
                let start = Instant::now();
                assert_eq!(castle.get(text).now_or_never(), Some(expected));
                latencies.push(start.elapsed());
            }
            sender.send(quantile(&mut latencies, 0.99)).unwrap();
        });
        receiver.recv().unwrap()
    }
}
