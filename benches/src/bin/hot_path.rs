//! What one hot request costs, beside what people would use instead: complete tower services, interleaved.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin hot_path -- [--rounds 41] [--raw FILE]`

use benches::raw::Raw;
use benches::rounds::{measure, table};
use benches::{arguments, ours, peers};
use futures_executor::block_on;

/// Calls of each contender in a round.
const CALLS: usize = 20_000;

/// Not within tokio: it makes whoever asks its locks more than 128 times in a turn wait for the next one.
fn main() {
    let rounds = arguments::value("--rounds").unwrap_or(41);
    let mut contenders = vec![peers::bare(), peers::bare_anonymous()];
    contenders.extend(block_on(ours::hits()));
    contenders.extend([
        peers::static_bearer().contender(),
        peers::hand_written_dashmap().contender(),
        peers::hand_written_moka().contender(),
        peers::jwt().contender(),
        block_on(peers::tower_sessions()).contender(),
        block_on(peers::axum_login()).contender(),
        peers::boxed(),
    ]);
    contenders.extend(block_on(ours::refusals()));
    measure(&mut contenders, rounds, CALLS);
    table(&contenders, &mut Raw::open());
}
