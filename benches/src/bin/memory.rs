//! Heap that cached tokens take, counted at the allocator. It counts in this process alone, so that it slows no other
//! measurement down.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin memory -- [--raw FILE]`

use allocation_counter::measure;
use benches::raw::Raw;
use benches::tokens::EveryToken;
use serde_json::json;
use tower_token_auth::{Sha256Hasher, TokenId, TokenStore};

fn main() {
    let mut raw = Raw::open();
    let tokens = EveryToken::hashed_by(&Sha256Hasher::new());
    let id: TokenId = "0123456789abcdef".parse().expect("an id");
    let mut record = None;
    let texts = measure(|| record = futures_executor::block_on(tokens.find(&id)).expect("every id has a record"));
    println!("| cached tokens | heap bytes a token | of it owner, label and stored hash | allocations a token |");
    println!("|---:|---:|---:|---:|");
    for count in [1_000, 100_000, 1_000_000] {
        let mut gate = None;
        let held = measure(|| {
            let gate = gate.insert(tokens.gate_without_timers(count as usize));
            tokens.show(gate, 0..count);
        });
        let (bytes, blocks) = (held.bytes_current as f64 / count as f64, held.count_current as f64 / count as f64);
        println!("| {count} | {bytes:.0} | {} | {blocks:.2} |", texts.bytes_current);
        raw.line(&json!({
            "kind": "memory", "tokens": count, "bytes_per_token": bytes, "texts_bytes": texts.bytes_current,
            "allocations_per_token": blocks,
        }));
    }
}
