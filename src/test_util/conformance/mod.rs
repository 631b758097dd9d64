//! Whether a store keeps the promises of [`TokenRegistry`].
//!
//! One list of rules for every store: those of this crate and yours. Each rule gets a fresh, empty store and is judged
//! on its own, so that the report names every broken one and what was found instead. No async runtime is assumed. What
//! cannot be seen from one handle is not judged: that another process sees a change, and that a change is still there
//! after a crash, for which there is [`check_survival`].
//!
//! # Example
//! ```
//! use tower_token_auth::MemoryStore;
//! use tower_token_auth::test_util::conformance;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), conformance::ConformanceError> {
//! // Your store here. With a database: an empty schema, a fresh prefix.
//! conformance::check(|| async { MemoryStore::new() }).await
//! # }
//! ```

mod broken;
mod changes;
mod concurrency;
mod listing;
mod owners;
mod records;
mod sample;
mod survival;
mod uses;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};

pub use self::broken::{BrokenRule, ConformanceError};
use self::broken::{Verdict, broken};
use crate::clock::{Clock, SystemClock};
use crate::store::{ErasedRegistry, TokenRegistry};

/// A rule may take this long, in which a store that deadlocks is told from a slow one.
const DEADLINE: Duration = Duration::from_secs(120);

type Store<'a> = &'a (dyn ErasedRegistry + 'a);
type Keeps = for<'a> fn(Store<'a>) -> BoxFuture<'a, Verdict>;

const RULES: &[(&str, Keeps)] = &[
    ("a token nobody inserted is none, not an error", |s| Box::pin(records::unknown_is_none(s))),
    ("an inserted record is found and listed, every field as it was", |s| Box::pin(records::every_field(s))),
    ("every creator, scope, state and revision is kept", |s| Box::pin(records::every_value(s))),
    ("any text is kept to the byte, up to its greatest length", |s| Box::pin(records::any_text(s))),
    ("times are kept to the millisecond, from the first to the last", |s| Box::pin(records::clock_edges(s))),
    ("a taken id is refused, and its record left as it is", |s| Box::pin(records::taken(s))),
    ("ids that differ in the case of a letter are different ids", |s| Box::pin(records::letter_case(s))),
    ("each kind of change is applied, answered with and visible to `find`", |s| Box::pin(changes::every_kind(s))),
    ("a change of another revision is a conflict, and changes nothing", |s| Box::pin(changes::stale(s))),
    ("a change of an unknown token is `Missing`, and makes none", |s| Box::pin(changes::missing(s))),
    ("a scope is not widened", |s| Box::pin(changes::widened(s))),
    ("a revoked token stays revoked", |s| Box::pin(changes::revoked_for_good(s))),
    ("of several inserts of one id at once, one wins", |s| Box::pin(concurrency::inserts(s))),
    ("of several changes of one revision at once, one wins", |s| Box::pin(concurrency::changes(s))),
    ("no change is lost among writers who try again", |s| Box::pin(concurrency::retries(s))),
    ("a revocation is visible to `find` when it returns", |s| Box::pin(concurrency::revocations(s))),
    ("a change and a use at once are both kept", |s| Box::pin(concurrency::changes_and_uses(s))),
    ("the latest of several uses at once is kept", |s| Box::pin(concurrency::uses(s))),
    ("a bar holds for all tokens of the owner, in `find`, `list` and `update`", |s| Box::pin(owners::barred(s))),
    ("barring and lifting twice changes nothing", |s| Box::pin(owners::twice(s))),
    ("a bar holds for tokens that are made later", |s| Box::pin(owners::barred_before(s))),
    ("owners are told apart byte by byte", |s| Box::pin(owners::byte_by_byte(s))),
    ("an empty store lists nothing", |s| Box::pin(listing::empty(s))),
    ("each filter lists what it lets through, whatever the page size", |s| Box::pin(listing::filters(s))),
    ("the order of a listing is stable", |s| Box::pin(listing::order(s))),
    ("a listing is complete while others insert", |s| Box::pin(listing::while_inserting(s))),
    ("a listing is complete while what it listed changes", |s| Box::pin(listing::while_changing(s))),
    ("a listing goes on when what it listed is pruned", |s| Box::pin(listing::while_pruning(s))),
    ("an unknown cursor is an error", |s| Box::pin(listing::unknown_cursor(s))),
    ("a use is noted, and changes nothing else", |s| Box::pin(uses::noted(s))),
    ("uses are merged, in whatever order they come", |s| Box::pin(uses::merged(s))),
    ("uses of unknown tokens are skipped, in a batch of any size", |s| Box::pin(uses::unknown(s))),
    ("prune forgets what was dead for good before, or is an error", |s| Box::pin(records::pruned(s))),
];

/// The rules, in the order in which they are checked.
pub fn rules() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(rule, _)| *rule)
}

/// Checks every rule, each on a store of its own that `make` provides, fresh and empty.
///
/// # Errors
/// [`ConformanceError`] with every rule that is broken and what was found. A store that panics, or does not answer for
/// two minutes, breaks the rule.
///
/// # Cancellation
/// Dropped, no further rule is checked.
pub async fn check<R, Made>(mut make: impl FnMut() -> Made) -> Result<(), ConformanceError>
where
    R: TokenRegistry,
    Made: Future<Output = R>,
{
    let mut found = Vec::new();
    for (rule, keeps) in RULES {
        let store = make().await;
        found.extend(judge(rule, keeps(&store)).await.err());
    }
    ConformanceError::unless_none(found, RULES.len())
}

/// Checks that what a store has acknowledged is still there after a disaster: fills `store`, hands it to `disaster`, and
/// looks at what that returns. For a store that declares a [durability](TokenRegistry::durability), with the disaster
/// that it claims to survive.
///
/// # Errors
/// [`ConformanceError`] when something is missing.
///
/// # Cancellation
/// Dropped, the store is left filled.
pub async fn check_survival<R, Restarted>(
    store: R,
    disaster: impl FnOnce(R) -> Restarted,
) -> Result<(), ConformanceError>
where
    R: TokenRegistry,
    Restarted: Future<Output = R>,
{
    const RULES: [&str; 2] = ["a store can be filled", "what was acknowledged is there after the disaster"];
    let [filling, surviving] = RULES;
    let mut found = Vec::from_iter(judge(filling, survival::fill(&store)).await.err());
    let store = disaster(store).await;
    found.extend(judge(surviving, survival::is_whole(&store)).await.err());
    ConformanceError::unless_none(found, RULES.len())
}

async fn judge(rule: &'static str, kept: impl Future<Output = Verdict>) -> Result<(), BrokenRule> {
    let deadline = SystemClock::new().sleep(DEADLINE);
    let verdict = match select(Box::pin(AssertUnwindSafe(kept).catch_unwind()), deadline).await {
        Either::Left((Ok(verdict), _)) => verdict,
        Either::Left((Err(_), _)) => broken("the store panicked"),
        Either::Right(((), _)) => broken(format!("no answer within {} s", DEADLINE.as_secs())),
    };
    verdict.map_err(|found| BrokenRule::new(rule, found))
}
