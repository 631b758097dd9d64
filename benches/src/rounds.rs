//! Contenders, measured in turn.

use std::time::Instant;

use http::{Request, Response};
use serde_json::json;
use tower::Service;

use crate::raw::Raw;
use crate::{Body, Template, call};

/// Something to measure: runs as many calls as it is told.
pub struct Contender {
    pub group: &'static str,
    pub name: &'static str,
    run: Box<dyn FnMut(usize)>,
    /// Done between two rounds, without being measured.
    settle: Box<dyn FnMut()>,
    /// Nanoseconds a call, one of each round.
    rounds: Vec<f64>,
    /// Whether it is sent requests without credentials: it is held against a bare service that is, too.
    anonymous: bool,
}

impl Contender {
    /// A service that has to answer every request of `template` with `status`.
    pub fn new<S, R>(group: &'static str, name: &'static str, mut service: S, template: Template, status: u16) -> Self
    where
        S: Service<Request<Body>, Response = Response<R>, Error: std::fmt::Debug> + 'static,
    {
        let anonymous = template.credentials().is_none();
        let run = move |calls| {
            for _ in 0..calls {
                assert_eq!(call(&mut service, template.request()), status, "{name}");
            }
        };
        Self { group, name, run: Box::new(run), settle: Box::new(|| ()), rounds: Vec::new(), anonymous }
    }

    pub fn settling(self, settle: impl FnMut() + 'static) -> Self {
        Self { settle: Box::new(settle), ..self }
    }

    fn measure(&mut self, calls: usize) -> f64 {
        let start = Instant::now();
        (self.run)(calls);
        let elapsed = start.elapsed();
        (self.settle)();
        elapsed.as_nanos() as f64 / calls as f64
    }

    pub fn median(&self) -> f64 {
        median(self.rounds.iter().copied())
    }

    pub fn min(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median of what it cost more than `other` in the same round.
    pub fn over(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own - other))
    }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures all contenders, a round at a time.
pub fn measure(contenders: &mut [Contender], rounds: usize, calls: usize) {
    for contender in contenders.iter_mut() {
        contender.measure(calls);
    }
    for _ in 0..rounds {
        for contender in contenders.iter_mut() {
            let nanos = contender.measure(calls);
            contender.rounds.push(nanos);
        }
    }
}

/// Prints each contender's cost, that over the bare service, and how many times that of ours it is.
pub fn table(contenders: &[Contender], raw: &mut Raw) {
    let [bare, bare_anonymous, ours, ..] = contenders else { panic!("two are bare, the third is ours") };
    println!("| service | min ns | median ns | over bare ns | × ours |");
    println!("|---|---:|---:|---:|---:|");
    for contender in contenders {
        let (name, min, median) = (contender.name, contender.min(), contender.median());
        let over = contender.over(if contender.anonymous { bare_anonymous } else { bare });
        let ratio = over / ours.over(bare);
        println!("| {name} | {min:.0} | {median:.0} | {over:.0} | {ratio:.2} |");
        raw.line(&json!({
            "group": contender.group, "service": name, "min_ns": min, "median_ns": median, "over_bare_ns": over,
            "times_ours": ratio,
        }));
    }
}
