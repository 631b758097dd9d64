//! The cache against a reference model: random histories, and what each request is told in them.
//!
//! A history is a list of [`Step`](step::Step)s over four tokens. Two judges watch the same gate:
//! * [`model`] foretells everything: the outcome of each request, how often the store is asked and how often a secret
//!   is hashed. It is the rules of the cache once more, for one thread and without a bound.
//! * [`law`] knows nothing of how a gate remembers. It has seen what the store was asked and what it answered, and
//!   holds each outcome against that: nobody is let in, or turned away, on what was not true when it last counted.
//!
//! Gates with room for one entry of each kind are watched by the law alone.

mod law;
mod model;
mod step;
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use step::{Case, case};

fn config(cases: u32) -> ProptestConfig {
    let failures = FileFailurePersistence::Direct("tests/it/cache_model/failures.txt");
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(failures)),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn a_gate_does_what_the_model_foretells(case in case(false)) {
        world::play(&case)?;
    }
}

proptest! {
    #![proptest_config(config(2_500))]

    #[test]
    fn a_gate_without_room_keeps_the_law(case in case(true)) {
        world::play(&case)?;
    }
}

/// Keeps the generator honest: a model that is never asked much proves nothing.
#[test]
fn histories_reach_what_they_are_about() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        let case: Case = case(false).new_tree(&mut runner).unwrap().current();
        reached.extend(world::play(&case).unwrap_or_else(|error| panic!("{error}\n{case:?}")));
    }
    let expected = [
        "allowed",
        "refused expired",
        "refused forbidden",
        "refused mismatch",
        "refused owner_barred",
        "refused paused",
        "refused revoked",
        "refused unknown",
        "unavailable lookups_busy",
        "unavailable record_unusable",
        "unavailable store_failed",
        "unavailable store_panicked",
        "unavailable store_timed_out",
    ];
    assert_eq!(reached.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
