//! Several server processes over one database: how soon each obeys a revocation, and what an outage of it looks like.
//!
//! ```text
//! cargo run --release --features postgres,redis --example cluster               1,000 revocations on each database
//! cargo run --release --features postgres,redis --example cluster -- --quick    100
//! ```
//! Starts a private PostgreSQL, and then a private Redis, on free ports of the loopback, and four servers over it, each a
//! process of its own: one with the desk, two that follow the change feed, and one that nobody tells. Clients keep all
//! of them busy with the same tokens while the desk revokes some; then the database is killed (`-9`) and started again.
//!
//! Everything is measured in one process, this one, by one clock. The example exits with 1 when a promise was broken. It ends by
//! itself, within a minute, or 40 s when quick. A database that is not installed is skipped, which is said; with
//! `REQUIRE_SERVERS=1` that is a failure.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "an experiment talks to whoever started it, reads real clocks, and stops where it cannot go on"
)]

mod experiment;
mod load;
mod outage;
mod process;
mod revoked;
mod serve;
#[path = "../../tests/it/servers.rs"]
#[expect(dead_code, reason = "the tests do more with their servers")]
mod servers;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use servers::Kind;

const USAGE: &str = "usage: cluster [--quick]";
/// Nothing here takes as long; an experiment that does has found a hang.
const DEADLINE: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    give_up_after(DEADLINE);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [serve::SUBCOMMAND, url, by] => serve::run(url, by == serve::BY_THE_FEED),
        [] => both(1_000),
        ["--quick"] => both(100),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What the columns mean.
const LEGEND: &str = "\
Servers over one database, loopback only. The same tokens are in use on all of them; one after the other is revoked at
the desk of the first, and then the database is away for a while.

  p50, p99, max   from the desk's answer to the last request that was begun after it and let in; 0.0 where none was
  to within       how finely that was seen: from that request to the first refusal, p50
  late accepts    past the TTL; at the desk's own server, past the desk's answer
  200 meanwhile   what was let in while the database was away, and how long it was
  revived         accepts of tokens that had been revoked before
  … again         from the moment the database was ready: to the last answer that was no 200, to a feed that is connected
  argon2          runs since the database was killed; every token in use was proved before
  max lag then    as max, for revocations after it all";

fn both(revocations: usize) -> ExitCode {
    let start = Instant::now();
    println!("{LEGEND}");
    if cfg!(debug_assertions) {
        println!("\nA debug build: figures of time are larger than they need be. Use --release.");
    }
    let kept: Vec<_> =
        [Kind::Postgres, Kind::Redis].into_iter().filter_map(|kind| experiment::run(kind, revocations)).collect();
    let seconds = start.elapsed().as_secs();
    match kept[..] {
        [] => println!("Nothing was measured: neither PostgreSQL nor Redis is installed."),
        _ if kept.iter().all(|kept| *kept) => println!("\nEvery promise was kept, in {seconds} s."),
        _ => {
            println!("\nA promise was BROKEN, in {seconds} s.");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn give_up_after(deadline: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(deadline);
        eprintln!("the cluster has not ended within {} s: something hangs", deadline.as_secs());
        // The servers and the databases end when their standard input does.
        std::process::exit(1);
    });
}
