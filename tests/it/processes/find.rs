//! What a look-up costs, beside the same query by hand through the bare driver.

use std::fmt::Debug;
use std::time::Duration;

use tower_token_auth::{TokenId, TokenStore};

use super::lag::{is_measuring, now};

/// At most, where it is measured.
const TARGET: f64 = 1.5;

/// How many tokens there are, and how often each is asked.
pub(super) fn size() -> (usize, usize) {
    if is_measuring() { (1_000_000, 5_000) } else { (1_000, 50) }
}

/// The id of the token of a number, as the databases make them: 16 digits.
fn id(number: usize) -> TokenId {
    format!("{number:016}").parse().unwrap()
}

/// Asks both in turn, in one run, so that what disturbs one disturbs the other; tells medians and their ratio.
///
/// `MEASURE=1 cargo test --all-features --test it bare_driver -- --nocapture --test-threads 1` does so at 1,000,000
/// tokens and asserts the ratio; without, it only sees that both find something.
#[expect(clippy::print_stdout, reason = "figures are for people")]
pub(super) async fn beside_the_bare_driver<E: Debug>(
    name: &str,
    store: &impl TokenStore,
    by_hand: impl AsyncFn(TokenId) -> Result<bool, E>,
) {
    let (tokens, calls) = size();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for call in 0..2 * calls {
        // Each is first in turn, and no two ask for the same token.
        let id = id(1 + call * 7_919 % tokens);
        let start = now();
        if (call / 2 + call) % 2 == 0 {
            assert!(store.find(&id).await.unwrap().is_some(), "{id}");
            ours.push(now().duration_since(start));
        } else {
            assert!(by_hand(id).await.unwrap(), "{id}");
            bare.push(now().duration_since(start));
        }
    }
    let (ours, bare) = (median(ours), median(bare));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!("{name}, {tokens} tokens: find {ours:.1?}, by hand {bare:.1?}, ratio {ratio:.2}");
    assert!(!is_measuring() || ratio <= TARGET, "{ratio}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
