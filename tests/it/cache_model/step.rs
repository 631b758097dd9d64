//! What can happen, and how often.

use std::fmt;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// How many tokens there are; the last one is in no store until it is created.
pub(super) const TOKENS: usize = 4;

/// A secret that is presented. Which of `A`, `B`, `C` a token has, and which one it had, is what rotation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secret {
    A,
    B,
    C,
    Wrong,
}

impl Secret {
    pub(super) const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::Wrong];
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) token: usize,
    pub(super) secret: Secret,
    pub(super) write: bool,
}

/// A change of a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    Revoke,
    Pause,
    Resume,
    NarrowScope,
    ExpireIn(Duration),
    /// To another secret; the old one works on for a while, or not at all.
    Rotate(Secret, Option<Duration>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Ask(Ask),
    /// One of the requests that wait is dropped.
    Vanish(usize),
    Advance(Duration),
    WallForward(Duration),
    WallBack(Duration),
    Edit(usize, Edit),
    /// The token that was in no store is put there.
    Create,
    Bar(usize),
    Lift(usize),
    Invalidate(usize),
    InvalidateOwner(usize),
    InvalidateAll,
    StoreWorks,
    StoreFails,
    StorePanics,
    /// The store answers that there is no such token, whichever is asked for.
    StoreKnowsNothing,
    /// The store answers with this token's record as it was so many revisions ago, whichever is asked for.
    StoreLags(usize, usize),
    /// Look-ups read at once and are answered on release.
    StoreHolds,
    Release,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) ttl: Duration,
    pub(super) negative_ttl: Duration,
    pub(super) timeout: Duration,
    /// How long past its TTL a proved token works while the store fails.
    pub(super) stale: Duration,
    /// One look-up at a time, and one refresh.
    pub(super) tight: bool,
    /// Room for one entry of each kind.
    pub(super) small: bool,
}

#[derive(Clone)]
pub(super) struct Case {
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
}

impl fmt::Debug for Case {
    /// One line a step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.setup)?;
        self.steps.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

pub(super) fn case(small: bool) -> impl Strategy<Value = Case> {
    // As options, so that a failing history can shrink to the steps that matter.
    let steps = vec(prop::option::weighted(0.99, step()), 21..29);
    (setup(small), steps).prop_map(|(setup, steps)| Case { setup, steps: steps.into_iter().flatten().collect() })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn setup(small: bool) -> impl Strategy<Value = Setup> {
    let ttl = prop_oneof![4 => Just(seconds(30)), 1 => Just(Duration::ZERO)];
    let negative_ttl = prop_oneof![4 => Just(seconds(5)), 1 => Just(Duration::ZERO), 1 => Just(seconds(60))];
    let timeout = select(vec![seconds(2), seconds(100)]);
    let stale = prop_oneof![2 => Just(Duration::ZERO), 1 => Just(seconds(7)), 1 => Just(seconds(3_600))];
    let limits = (ttl, negative_ttl, timeout, stale, prop::bool::weighted(0.2));
    limits.prop_map(move |(ttl, negative_ttl, timeout, stale, tight)| Setup {
        ttl,
        negative_ttl,
        timeout,
        stale,
        tight,
        small,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => ask().prop_map(Step::Ask),
        2 => (0..8_usize).prop_map(Step::Vanish),
        5 => span().prop_map(Step::Advance),
        1 => leap().prop_map(Step::WallForward),
        1 => leap().prop_map(Step::WallBack),
        6 => (token(), edit()).prop_map(|(token, edit)| Step::Edit(token, edit)),
        1 => Just(Step::Create),
        1 => token().prop_map(Step::Bar),
        1 => token().prop_map(Step::Lift),
        4 => token().prop_map(Step::Invalidate),
        1 => token().prop_map(Step::InvalidateOwner),
        1 => Just(Step::InvalidateAll),
        4 => Just(Step::StoreWorks),
        1 => Just(Step::StoreFails),
        1 => Just(Step::StorePanics),
        1 => Just(Step::StoreKnowsNothing),
        2 => (token(), 0..4_usize).prop_map(|(token, back)| Step::StoreLags(token, back)),
        3 => Just(Step::StoreHolds),
        4 => Just(Step::Release),
    ]
}

/// The first token is met more often than the others: histories of one token are the long ones.
fn token() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 2 => Just(1), 2 => Just(2), 1 => Just(3)]
}

fn secret() -> impl Strategy<Value = Secret> {
    prop_oneof![6 => Just(Secret::A), 2 => Just(Secret::B), 1 => Just(Secret::C), 1 => Just(Secret::Wrong)]
}

fn ask() -> impl Strategy<Value = Ask> {
    (token(), secret(), prop::bool::weighted(0.2)).prop_map(|(token, secret, write)| Ask { token, secret, write })
}

fn edit() -> impl Strategy<Value = Edit> {
    let rotation = (select(vec![Secret::A, Secret::B, Secret::C]), prop::option::weighted(0.7, span()));
    prop_oneof![
        2 => Just(Edit::Revoke),
        2 => Just(Edit::Pause),
        2 => Just(Edit::Resume),
        1 => Just(Edit::NarrowScope),
        2 => span().prop_map(Edit::ExpireIn),
        3 => rotation.prop_map(|(secret, keep)| Edit::Rotate(secret, keep)),
    ]
}

/// Next to nothing, and just below and at each of the limits.
fn span() -> impl Strategy<Value = Duration> {
    select(vec![1, 1_000, 1_999, 2_000, 4_999, 5_000, 20_000, 29_999, 30_000]).prop_map(Duration::from_millis)
}

fn leap() -> impl Strategy<Value = Duration> {
    select(vec![1, 10, 30, 3_600]).prop_map(Duration::from_secs)
}
