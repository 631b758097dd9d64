//! What a rule is found to be broken by.

use std::error::Error as StdError;
use std::fmt::{self, Debug};

use crate::text::{self, Causes};
use crate::token::TokenRecord;

/// Differences are told in at most this many bytes each.
const LONGEST_VALUE: usize = 200;

pub(super) type Verdict<T = ()> = Result<T, Broken>;

/// What was found instead. An error of the store or of a sample's text becomes one by `?`.
#[derive(Debug)]
pub(super) struct Broken(String);

impl<E: StdError> From<E> for Broken {
    fn from(error: E) -> Self {
        match error.source() {
            Some(_) => Self(format!("unexpected error: {error}: {}", Causes(&error))),
            None => Self(format!("unexpected error: {error}")),
        }
    }
}

pub(super) fn broken<T>(found: impl Into<String>) -> Verdict<T> {
    Err(Broken(found.into()))
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { broken(otherwise()) }
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Verdict {
    ensure(found == expected, || format!("{what}: {} instead of {}", shown(found), shown(expected)))
}

/// Like [`same`], and names the fields that differ.
pub(super) fn same_record(what: &str, found: &TokenRecord, expected: &TokenRecord) -> Verdict {
    macro_rules! differences {
        ($($field:ident),*) => {[$(
            (found.$field() != expected.$field()).then(|| {
                let (found, expected) = (shown(&found.$field()), shown(&expected.$field()));
                format!("{} is {found} instead of {expected}", stringify!($field))
            }),
        )*]};
    }
    let differences = differences!(
        id,
        owner,
        created_by,
        created_at,
        made_on_behalf_right,
        label,
        scope,
        expires_at,
        state,
        revoked_at,
        owner_barred,
        revision,
        secret,
        retiring,
        attributes,
        last_used
    );
    let told: Vec<_> = differences.into_iter().flatten().collect();
    ensure(told.is_empty() && found == expected, || format!("{what}: {}", told.join(", ")))
}

fn shown(value: &impl Debug) -> String {
    text::clean(format!("{value:?}").as_bytes(), LONGEST_VALUE).into_owned()
}

/// A rule of [`TokenRegistry`](crate::TokenRegistry) that a store breaks.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokenRule {
    rule: &'static str,
    found: String,
}

impl BrokenRule {
    pub(super) fn new(rule: &'static str, found: Broken) -> Self {
        Self { rule, found: found.0 }
    }

    /// What should hold.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.rule
    }

    /// What was found instead.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.found
    }
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.found)
    }
}

impl Debug for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The rules that a store breaks, one a line; `Debug` prints the same, for tests that unwrap.
#[derive(Clone, PartialEq, Eq)]
pub struct ConformanceError {
    broken: Vec<BrokenRule>,
    checked: usize,
}

impl ConformanceError {
    pub(super) fn unless_none(broken: Vec<BrokenRule>, checked: usize) -> Result<(), Self> {
        if broken.is_empty() { Ok(()) } else { Err(Self { broken, checked }) }
    }

    /// The broken rules, at least one.
    #[must_use]
    pub fn broken(&self) -> &[BrokenRule] {
        &self.broken
    }
}

impl fmt::Display for ConformanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store breaks {} of {} rules", self.broken.len(), self.checked)?;
        self.broken.iter().try_for_each(|broken| write!(f, "\n  {broken}"))
    }
}

impl Debug for ConformanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for ConformanceError {}
