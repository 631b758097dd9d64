//! What one hot request costs, beside what people would use instead: complete tower services, interleaved.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin hot_path -- [--rounds 41] [--raw FILE]`

use benches::raw::Raw;
use benches::rounds::{measure, table};
use benches::{arguments, ours, peers};

/// Calls of each contender in a round.
const CALLS: usize = 20_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = arguments::value("--rounds").unwrap_or(41);
    let mut contenders = vec![peers::bare()];
    contenders.extend(ours::hits().await);
    contenders.extend([
        peers::static_bearer().contender(),
        peers::hand_written_dashmap().contender(),
        peers::hand_written_moka().contender(),
        peers::jwt().contender(),
        peers::tower_sessions().await.contender(),
        peers::axum_login().await.contender(),
        peers::boxed(),
    ]);
    contenders.extend(ours::refusals().await);
    measure(&mut contenders, rounds, CALLS);
    table(&contenders, &mut Raw::open());
}
