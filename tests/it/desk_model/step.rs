//! What can happen at the desk and at its gate, and how often.

use std::fmt;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Who acts, each with other permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// *create*
    Alice,
    /// *create*
    Bob,
    /// Nothing.
    Carol,
    /// *on behalf*
    Dora,
    /// *create*, *on behalf*, *administer*
    Root,
    System,
}

impl Who {
    pub(super) const USERS: [Self; 5] = [Self::Alice, Self::Bob, Self::Carol, Self::Dora, Self::Root];
}

/// Which text of a token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Newest,
    /// The one before the newest.
    Previous,
    First,
    /// One that never was.
    Wrong,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Issue { who: Who, owner: Who, write: bool, life: Option<Duration> },
    Pause(Who, usize),
    Resume(Who, usize),
    ExpireIn(Who, usize, Duration),
    Narrow(Who, usize),
    Revoke(Who, usize),
    RevokeAllOf(Who, Who),
    Rotate(Who, usize, Duration),
    Bar(Who, Who),
    Lift(Who, Who),
    Switch(Who, bool),
    LimitLife(Who, Option<Duration>),
    LimitTokens(Who, Option<usize>),
    Prune(Who, Duration),
    Advance(Duration),
    Ask { token: usize, which: Which, write: bool },
}

#[derive(Clone)]
pub(super) struct Case {
    pub(super) steps: Vec<Step>,
}

impl fmt::Debug for Case {
    /// One line a step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    // As options, so that a failing history can shrink to the steps that matter.
    let steps = vec(prop::option::weighted(0.99, step()), 24..34);
    // Without a token nothing else happens.
    (issue(), steps)
        .prop_map(|(first, steps)| Case { steps: std::iter::once(first).chain(steps.into_iter().flatten()).collect() })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => issue(),
        2 => (who(), token()).prop_map(|(who, token)| Step::Pause(who, token)),
        3 => (who(), token()).prop_map(|(who, token)| Step::Resume(who, token)),
        2 => (who(), token(), span()).prop_map(|(who, token, span)| Step::ExpireIn(who, token, span)),
        1 => (who(), token()).prop_map(|(who, token)| Step::Narrow(who, token)),
        1 => (who(), token()).prop_map(|(who, token)| Step::Revoke(who, token)),
        1 => (who(), user()).prop_map(|(who, owner)| Step::RevokeAllOf(who, owner)),
        5 => (who(), token(), overlap()).prop_map(|(who, token, overlap)| Step::Rotate(who, token, overlap)),
        1 => (who(), user()).prop_map(|(who, owner)| Step::Bar(who, owner)),
        2 => (who(), user()).prop_map(|(who, owner)| Step::Lift(who, owner)),
        2 => (who(), any::<bool>()).prop_map(|(who, on)| Step::Switch(who, on)),
        1 => (who(), prop::option::of(span())).prop_map(|(who, limit)| Step::LimitLife(who, limit)),
        1 => (who(), prop::option::of(1..4_usize)).prop_map(|(who, limit)| Step::LimitTokens(who, limit)),
        1 => (who(), span()).prop_map(|(who, span)| Step::Prune(who, span)),
        5 => span().prop_map(Step::Advance),
        24 => ask(),
    ]
}

fn issue() -> impl Strategy<Value = Step> {
    let life = prop::option::weighted(0.7, span());
    (who(), user(), any::<bool>(), any::<bool>(), life).prop_map(|(who, owner, own, write, life)| {
        let owner = if own && who != Who::System { who } else { owner };
        Step::Issue { who, owner, write, life }
    })
}

fn ask() -> impl Strategy<Value = Step> {
    let which = prop_oneof![6 => Just(Which::Newest), 3 => Just(Which::Previous), 1 => Just(Which::First), 1 => Just(Which::Wrong)];
    (token(), which, prop::bool::weighted(0.5)).prop_map(|(token, which, write)| Step::Ask { token, which, write })
}

/// The first tokens are met more often than the others: histories of one token are the long ones.
fn token() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0_usize), 3 => Just(1), 2 => Just(2), 1 => 3..8_usize]
}

fn who() -> impl Strategy<Value = Who> {
    use Who::{Alice, Bob, Carol, Dora, Root, System};
    prop_oneof![4 => Just(Alice), 2 => Just(Bob), 1 => Just(Carol), 2 => Just(Dora), 3 => Just(Root), 2 => Just(System)]
}

fn user() -> impl Strategy<Value = Who> {
    prop_oneof![4 => Just(Who::Alice), 3 => select(Who::USERS.to_vec())]
}

fn span() -> impl Strategy<Value = Duration> {
    select(vec![1_u64, 999, 1_000, 29_999, 30_000, 60_000, 3_600_000]).prop_map(Duration::from_millis)
}

fn overlap() -> impl Strategy<Value = Duration> {
    prop_oneof![2 => Just(Duration::ZERO), 5 => span()]
}
