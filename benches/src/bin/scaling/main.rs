//! What a hit costs with more threads, with more tokens, and while others enter and leave the cache.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin scaling -- [--tokens 1000000] [--raw FILE]`
//!
//! 10,000,000 tokens take some 8 GiB.

mod sizes;
mod stalls;
mod threads;

use benches::arguments;
use benches::raw::Raw;
use benches::tokens::EveryToken;
use tower_token_auth::Sha256Hasher;

fn main() {
    let mut raw = Raw::open();
    let most = arguments::value("--tokens").unwrap_or(1_000_000);
    let tokens = EveryToken::hashed_by(&Sha256Hasher::new());
    threads::measure(&tokens, &mut raw);
    sizes::measure(&tokens, most, &mut raw);
    stalls::measure(&tokens, &mut raw);
}
