//! The desk and its gate against a reference model: random histories of issuing, changing and using tokens.
//!
//! Six actors with different permissions, some tokens, one switch. Before each [`Step`](step::Step) the
//! [`model`] foretells what the desk answers, or what the gate tells the client and the audit trail; a change is visible
//! to the very next request.

mod model;
mod step;
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use step::{Case, case};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/it/desk_model/failures.txt"))),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn desk_and_gate_do_what_the_model_foretells(case in case()) {
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
        let case: Case = case().new_tree(&mut runner).unwrap().current();
        reached.extend(world::play(&case).unwrap_or_else(|error| panic!("{error}\n{case:?}")));
    }
    let expected = [
        "200 allowed - current",
        "200 allowed - retiring",
        "401 refused expired",
        "401 refused mismatch",
        "401 refused owner_barred",
        "401 refused paused",
        "401 refused revoked",
        "401 forgotten",
        "403 refused forbidden current",
        "403 refused forbidden retiring",
        "403 refused policy current",
        "403 refused policy retiring",
        "administer_not_permitted",
        "already_expired",
        "create_not_permitted",
        "done",
        "lifetime_too_long",
        "not_earlier",
        "not_found",
        "on_behalf_not_permitted",
        "read_only_enforced",
        "revoked",
        "rotation_underway",
        "too_many_tokens",
    ];
    for told in expected {
        assert!(reached.contains(told), "{told}: {reached:?}");
    }
}
