//! 1 to as many threads as there are cores, on the same tokens: complete calls a second, against the bare service under
//! as many threads. What the bare service does not gain is the machine's own.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use benches::raw::Raw;
use benches::rounds::median;
use benches::tokens::{EveryToken, mixed};
use benches::{Bare, Body, Template, call};
use http::{Request, Response};
use serde_json::json;
use tower::Service;

const ROUNDS: usize = 11;
const CALLS: usize = 200_000;
const TOKENS: u64 = 10_000;
/// Which token is next is drawn before; so often, and then again from the start.
const DRAWN: u64 = 1 << 16;

/// Which tokens are asked for.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    OneHot,
    Uniform,
    /// The second half as often as the first, the third a third as often (Zipf's law).
    Skewed,
}

impl Pattern {
    const ALL: [Self; 3] = [Self::OneHot, Self::Uniform, Self::Skewed];

    const fn name(self) -> &'static str {
        match self {
            Self::OneHot => "one hot token",
            Self::Uniform => "10,000 tokens, uniform",
            Self::Skewed => "10,000 tokens, skewed",
        }
    }

    /// What a thread will ask for.
    fn draw(self, thread: u64) -> Vec<u64> {
        let weights: Vec<f64> = match self {
            Self::OneHot => vec![1.0],
            Self::Uniform => vec![1.0; TOKENS as usize],
            Self::Skewed => (1..=TOKENS).map(|rank| 1.0 / rank as f64).collect(),
        };
        let sums: Vec<f64> = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let total = sums.last().copied().unwrap_or_default();
        let uniform = |n| mixed(thread << 32 | n) as f64 / u64::MAX as f64;
        (0..DRAWN).map(|n| sums.partition_point(|sum| *sum < uniform(n) * total) as u64).collect()
    }
}

/// Rates of one round for each number of threads, in calls a second.
struct Rates {
    bare: Vec<f64>,
    ours: Vec<f64>,
}

pub fn measure(tokens: &EveryToken, raw: &mut Raw) {
    let mut gate = tokens.gate(TOKENS as usize * 2);
    tokens.show(&mut gate, 0..TOKENS);
    println!("| tokens | threads | bare: calls/s | × one thread | ours: calls/s | × one thread | over bare ns |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for pattern in Pattern::ALL {
        let counts = thread_counts();
        let rounds: Vec<Rates> = (0..ROUNDS)
            .map(|_| Rates {
                bare: counts.iter().map(|threads| rate(&Bare, tokens, pattern, *threads)).collect(),
                ours: counts.iter().map(|threads| rate(&gate, tokens, pattern, *threads)).collect(),
            })
            .collect();
        counts.iter().enumerate().for_each(|(at, threads)| report(pattern, at, *threads, &rounds, raw));
    }
    println!();
}

/// 1, 2, 4, …, and all cores.
fn thread_counts() -> Vec<usize> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < cores).collect();
    counts.push(cores);
    counts
}

fn report(pattern: Pattern, at: usize, threads: usize, rounds: &[Rates], raw: &mut Raw) {
    let of = |figure: &dyn Fn(&Rates) -> f64| median(rounds.iter().map(figure));
    let (bare, ours) = (of(&|round| round.bare[at]), of(&|round| round.ours[at]));
    let gains = (of(&|round| round.bare[at] / round.bare[0]), of(&|round| round.ours[at] / round.ours[0]));
    let over = of(&|round| 1e9 * threads as f64 * (1.0 / round.ours[at] - 1.0 / round.bare[at]));
    let name = pattern.name();
    println!("| {name} | {threads} | {bare:.0} | {:.2} | {ours:.0} | {:.2} | {over:.0} |", gains.0, gains.1);
    raw.line(&json!({
        "kind": "threads", "tokens": name, "threads": threads, "bare_per_second": bare, "bare_gain": gains.0,
        "ours_per_second": ours, "ours_gain": gains.1, "over_bare_ns": over,
    }));
}

/// Calls a second by so many threads, from when all begin until the last one ends.
fn rate<S, R>(service: &S, tokens: &EveryToken, pattern: Pattern, threads: usize) -> f64
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug> + Clone + Send,
{
    let barrier = Barrier::new(threads);
    let longest = thread::scope(|scope| {
        let started: Vec<_> = (0..threads as u64)
            .map(|thread| {
                let (mut service, barrier) = (service.clone(), &barrier);
                scope.spawn(move || {
                    // Requests of its own: on a server, no two share memory.
                    let templates: Vec<Template> = (0..TOKENS).map(|n| tokens.template(n)).collect();
                    let drawn = pattern.draw(thread);
                    barrier.wait();
                    run(&mut service, &templates, &drawn)
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().expect("no thread fails")).max()
    });
    (threads * CALLS) as f64 / longest.unwrap_or_default().as_secs_f64()
}

fn run<S, R>(service: &mut S, templates: &[Template], drawn: &[u64]) -> Duration
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
{
    let start = Instant::now();
    for n in drawn.iter().cycle().take(CALLS) {
        let template = &templates[*n as usize];
        parse(template);
        assert_eq!(call(service, template.request()), 200);
    }
    start.elapsed()
}

/// Reads the credentials, as a server has done just before: fetching them from memory is not the gate's part.
fn parse(template: &Template) {
    let (_, value) = template.credentials().expect("every template has credentials");
    std::hint::black_box(value.as_bytes().iter().fold(0, |sum, byte| sum ^ byte));
}
