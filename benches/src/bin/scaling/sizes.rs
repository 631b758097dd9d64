//! One thread, random ids among ever more cached tokens: what is not in the processor's caches is fetched from memory.

use std::time::Instant;

use benches::raw::Raw;
use benches::rounds::median;
use benches::tokens::{EveryToken, mixed};
use benches::{Bare, Body, Template, call};
use http::{Request, Response};
use serde_json::json;
use tower::Service;
use tower_token_auth::TokenAuth;

const ROUNDS: usize = 21;
/// Requests are made in batches that stay in the processor's own cache, as what has just come from a socket does.
const BATCH: usize = 512;
const BATCHES: usize = 32;

struct Size {
    tokens: u64,
    gate: TokenAuth<Bare>,
    /// Nanoseconds over bare of a call, one of each round.
    rounds: Vec<f64>,
}

pub fn measure(tokens: &EveryToken, most: u64, raw: &mut Raw) {
    let sizes = std::iter::successors(Some(10), |size| Some(size * 10)).take_while(|size| *size <= most);
    let mut sizes: Vec<Size> = sizes.map(|size| Size::new(tokens, size)).collect();
    let found = tokens.found();
    let mut draws = 0;
    for _ in 0..ROUNDS {
        for size in &mut sizes {
            size.round(tokens, &mut draws);
        }
    }
    assert_eq!(tokens.found(), found, "every call was a hit");
    println!("| cached tokens | hit over bare ns | × that with 1,000 |");
    println!("|---:|---:|---:|");
    let thousand = sizes.iter().find(|size| size.tokens == 1_000).map_or(f64::NAN, Size::median);
    for size in &sizes {
        let (tokens, over, ratio) = (size.tokens, size.median(), size.median() / thousand);
        println!("| {tokens} | {over:.0} | {ratio:.2} |");
        raw.line(&json!({ "kind": "sizes", "tokens": tokens, "over_bare_ns": over, "times_1000": ratio }));
    }
    println!();
}

impl Size {
    fn new(tokens: &EveryToken, size: u64) -> Self {
        let mut gate = tokens.gate((size as usize).max(100_000));
        tokens.show(&mut gate, 0..size);
        Self { tokens: size, gate, rounds: Vec::new() }
    }

    fn median(&self) -> f64 {
        median(self.rounds.iter().copied())
    }

    fn round(&mut self, tokens: &EveryToken, draws: &mut u64) {
        let mut over = 0.0;
        for _ in 0..BATCHES {
            let templates: Vec<Template> = (0..BATCH)
                .map(|_| {
                    *draws += 1;
                    tokens.template(mixed(*draws) % self.tokens)
                })
                .collect();
            // The first request made of a template is dearer: its text has not been shared before.
            nanos(&mut Bare, &templates);
            let bare = nanos(&mut Bare, &templates);
            over += nanos(&mut self.gate, &templates) - bare;
        }
        self.rounds.push(over / (BATCHES * BATCH) as f64);
    }
}

fn nanos<S, R>(service: &mut S, templates: &[Template]) -> f64
where
    S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug>,
{
    let start = Instant::now();
    for template in templates {
        assert_eq!(call(service, template.request()), 200);
    }
    start.elapsed().as_nanos() as f64
}
