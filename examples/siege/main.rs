//! The gate under siege: an axum server on loopback, attackers in another process, and what it all costs.
//!
//! ```text
//! cargo run --release --example siege               every attack at full size, some minutes
//! cargo run --release --example siege -- --quick    the same attacks, smaller, within a minute
//! cargo run --release --example siege -- --only rotation    one of them
//! ```
//! Each row of the table is one attack: what must hold, what was measured, and whether it held. The example exits with 1
//! when a row was missed. It talks to loopback only, is bounded in count and time, and ends by itself. A debug build is
//! always quick: unoptimised code would measure itself.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "an experiment talks to whoever started it, reads real clocks, and stops where it cannot go on"
)]

mod audit;
mod cold;
mod counted;
mod flood;
mod generator;
mod guesses;
mod outage;
mod revoke;
mod table;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use table::Row;

const USAGE: &str = "usage: siege [--only <attack>] [--quick]";
/// Nothing here takes as long; a siege that does has found a hang.
const DEADLINE: Duration = Duration::from_secs(600);

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    quick: bool,
}

impl Size {
    /// `full`, or `quick` where little time is given.
    pub(crate) const fn of(self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

type Attack = (&'static str, fn(Size) -> Vec<Row>);

const ATTACKS: [Attack; 11] = [
    ("stampede", cold::stampede),
    ("malformed", flood::malformed),
    ("unknown-ids", flood::unknown_ids),
    ("guesses", guesses::with_precheck),
    ("guesses-without-precheck", guesses::without_precheck),
    ("cold-tokens", cold::a_thousand_cold_tokens),
    ("invalidate-all", outage::invalidate_all),
    ("store-trouble", outage::store_trouble),
    ("revocations", revoke::races),
    ("rotation", revoke::rotation),
    ("slow-sink", audit::slow_sink),
];
/// How the example calls itself for one attack.
const ONE: &str = "--only";

fn main() -> ExitCode {
    give_up_after(DEADLINE);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = |given: bool| Size { quick: given || cfg!(debug_assertions) };
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [generator::SUBCOMMAND] => generator::run(),
        [ONE, name] => one(name, quick(false)),
        [ONE, name, "--quick"] => one(name, quick(true)),
        [] => besiege(quick(false)),
        ["--quick"] => besiege(quick(true)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}\nattacks: {}", ATTACKS.map(|(name, _)| name).join(", "));
    ExitCode::from(2)
}

/// One attack, in this process.
fn one(name: &str, size: Size) -> ExitCode {
    let Some((_, attack)) = ATTACKS.iter().find(|(known, _)| *known == name) else { return usage() };
    let rows = attack(size);
    rows.iter().for_each(Row::print);
    ExitCode::from(u8::from(!rows.iter().all(|row| row.held)))
}

/// Every attack in a process of its own, so that the memory of one is not that of the next.
fn besiege(size: Size) -> ExitCode {
    let start = Instant::now();
    println!("The gate under siege: {} attacks, loopback only.", if size.quick { "quick" } else { "full" });
    if cfg!(debug_assertions) {
        println!("A debug build: sizes are quick, and figures of time say little. Use --release.");
    }
    println!();
    table::head();
    let missed: Vec<_> = ATTACKS.iter().map(|(name, _)| *name).filter(|name| !holds(name, size)).collect();
    println!();
    let seconds = start.elapsed().as_secs();
    if missed.is_empty() {
        println!("All {} attacks held in {seconds} s.", ATTACKS.len());
        return ExitCode::SUCCESS;
    }
    println!("{} of {} attacks missed in {seconds} s: {}", missed.len(), ATTACKS.len(), missed.join(", "));
    ExitCode::FAILURE
}

fn holds(name: &str, size: Size) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([ONE, name]).args(size.quick.then_some("--quick"));
    child.status().unwrap().success()
}

/// A runtime like a server's.
pub(crate) fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

fn give_up_after(deadline: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(deadline);
        eprintln!("the siege has not ended within {} s: something hangs", deadline.as_secs());
        std::process::exit(1);
    });
}
