//! Tokens that the gate has not met: how many a second, against the bare hash by as many threads with reused memory.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin cold -- [--rounds 9] [--raw FILE]`

use std::num::NonZero;
use std::thread;
use std::time::Instant;

use argon2::{Argon2, Block};
use benches::raw::Raw;
use benches::rounds::median;
use benches::tokens::EveryToken;
use benches::{Bare, Template, arguments};
use futures_util::{StreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use tower::{Layer, ServiceExt};
use tower_token_auth::{Argon2Hasher, NoAudit, Sha256Hasher, TokenAuth, TokenAuthLayer, VerifyLimits};

/// Hashes, or tokens, of a round and thread.
const ARGON2: usize = 32;
const SHA256: usize = 50_000;
/// Requests that wait at a time for each hash worker: no worker is ever idle.
const WAITING: usize = 8;

/// Tokens a second in one round.
struct Round {
    bare: f64,
    gate: f64,
}

fn main() {
    let rounds: usize = arguments::value("--rounds").unwrap_or(9);
    let mut raw = Raw::open();
    println!("| hash | threads | bare hashes/s | cold tokens/s | ratio |");
    println!("|---|---:|---:|---:|---:|");
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let tokens = EveryToken::hashed_by(&Argon2Hasher::new());
    for workers in if cores > 1 { vec![1, cores] } else { vec![1] } {
        let measured = (0..rounds).map(|_| argon2(&tokens, workers)).collect();
        report("argon2id, 19 MiB, 2 passes", workers, measured, &mut raw);
    }
    let tokens = EveryToken::hashed_by(&Sha256Hasher::new());
    report("SHA-256", 1, (0..rounds).map(|_| sha256(&tokens)).collect(), &mut raw);
}

fn report(hash: &str, threads: usize, rounds: Vec<Round>, raw: &mut Raw) {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let (bare, gate, ratio) = (of(|round| round.bare), of(|round| round.gate), of(|round| round.gate / round.bare));
    println!("| {hash} | {threads} | {bare:.1} | {gate:.1} | {ratio:.3} |");
    raw.line(&json!({
        "kind": "cold", "hash": hash, "threads": threads, "bare_per_second": bare, "gate_per_second": gate, "ratio": ratio,
    }));
}

fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    count as f64 / start.elapsed().as_secs_f64()
}

fn argon2(tokens: &EveryToken, workers: usize) -> Round {
    let count = ARGON2 * workers;
    let bare = rate(count, || {
        thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(|| hash_bare(tokens.secret().expose())))));
    });
    let limits = VerifyLimits::default().own_workers(workers);
    let builder = TokenAuthLayer::builder(tokens.clone()).hasher(Argon2Hasher::new()).audit(NoAudit::new());
    let gate = builder.verification(limits).build().expect("the configuration is valid").layer(Bare);
    let templates: Vec<Template> = (0..count as u64).map(|n| tokens.template(n)).collect();
    let gate = rate(count, || futures_executor::block_on(ask(&gate, &templates, WAITING * workers)));
    Round { bare, gate }
}

/// As a worker of the crew hashes, with the same parameters and memory that is used again.
fn hash_bare(secret: &str) {
    let argon2 = Argon2::default();
    let mut memory = vec![Block::new(); argon2.params().block_count()];
    for n in 0..ARGON2 {
        let salt = [n as u8; 16];
        let mut output = [0_u8; 32];
        let hashed = argon2.hash_password_into_with_memory(secret.as_bytes(), &salt, &mut output, &mut memory);
        hashed.expect("a secret can be hashed");
        std::hint::black_box(output);
    }
}

/// Sends all requests, so many at a time.
async fn ask(gate: &TokenAuth<Bare>, templates: &[Template], at_a_time: usize) {
    let answers = stream::iter(templates).map(|template| gate.clone().oneshot(template.request()));
    let admitted = answers
        .buffer_unordered(at_a_time)
        .filter(|answer| std::future::ready(answer.as_ref().is_ok_and(|response| response.status() == 200)));
    assert_eq!(admitted.count().await, templates.len(), "every token is admitted");
}

fn sha256(tokens: &EveryToken) -> Round {
    let secret = tokens.secret().expose();
    let bare = rate(SHA256, || {
        for _ in 0..SHA256 {
            let hash = Sha256::new().chain_update(b"tower-token-auth sha256 v1\0").chain_update(secret);
            std::hint::black_box(hash.finalize());
        }
    });
    let gate = tokens.gate(SHA256);
    let templates: Vec<Template> = (0..SHA256 as u64).map(|n| tokens.template(n)).collect();
    let gate = rate(SHA256, || futures_executor::block_on(ask(&gate, &templates, 1)));
    Round { bare, gate }
}
