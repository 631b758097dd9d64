//! axum on loopback: requests a second and server CPU for each, with and without a gate, under a load from another
//! process.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin http -- [--rounds 7] [--only TEXT] [--raw FILE]`, where
//! TEXT is a part of the names of the servers to be measured.
//!
//! Every server is a process of its own with one thread (and a queue's), the load another with one. In each round each
//! server is measured beside the bare one, directly after it, and compared with it alone.

mod load;
mod serve;
mod server;

use benches::arguments;
use benches::raw::Raw;
use benches::rounds::median;
use serde_json::json;

use server::{Server, Told};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", name] => serve::run(name),
        ["load", address, header, value] => load::run(address, header, value),
        _ => measure(arguments::value("--rounds").unwrap_or(7)),
    }
}

fn measure(rounds: usize) {
    let bare = Server::start(serve::BARE);
    let only: String = arguments::value("--only").unwrap_or_default();
    let chosen = serve::NAMES.iter().filter(|name| name.contains(&only));
    assert!(chosen.clone().next().is_some(), "no server has {only:?} in its name");
    let servers: Vec<Server> = chosen.map(|name| Server::start(name)).collect();
    let mut measured: Vec<Vec<(Told, Told)>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (server, measured) in servers.iter().zip(&mut measured) {
            measured.push((bare.load(), server.load()));
        }
    }
    report(&servers, &measured);
}

fn report(servers: &[Server], measured: &[Vec<(Told, Told)>]) {
    let mut raw = Raw::open();
    let of = |rounds: &[(Told, Told)], figure: &dyn Fn(&(Told, Told)) -> f64| median(rounds.iter().map(figure));
    println!("| server | requests/s | of bare | server CPU µs a request | over bare µs |");
    println!("|---|---:|---:|---:|---:|");
    let all: Vec<(Told, Told)> = measured.iter().flatten().copied().collect();
    let mut row = |name: &str, per_second: f64, ratio: f64, cpu: f64, over: f64| {
        println!("| {name} | {per_second:.0} | {ratio:.3} | {cpu:.2} | {over:.2} |");
        raw.line(&json!({
            "kind": "http", "server": name, "per_second": per_second, "of_bare": ratio, "cpu_us": cpu, "over_bare_us": over,
        }));
    };
    row(serve::BARE, of(&all, &|pair| pair.0.per_second), 1.0, of(&all, &|pair| pair.0.cpu_micros), 0.0);
    for (server, rounds) in servers.iter().zip(measured) {
        row(
            server.name,
            of(rounds, &|pair| pair.1.per_second),
            of(rounds, &|pair| pair.1.per_second / pair.0.per_second),
            of(rounds, &|pair| pair.1.cpu_micros),
            of(rounds, &|pair| pair.1.cpu_micros - pair.0.cpu_micros),
        );
    }
}
