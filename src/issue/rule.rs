//! Rules of the application's own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::policy::Objection;
use crate::actor::{Actor, Permissions};
use crate::clock::Timestamp;
use crate::decision::{IssueRefusal, StoreError};
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::token::{Attributes, CreatedBy, TokenRecord};

/// A token as it would be: what a [rule](super::IssuePolicy::rule) judges. Also asked about a token that is there, when
/// it shall be rotated or resumed.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    pub(super) actor: &'a CreatedBy,
    pub(super) permissions: Permissions,
    pub(super) for_oneself: bool,
    pub(super) owner: &'a OwnerId,
    pub(super) label: &'a Label,
    pub(super) scope: Scope,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) attributes: &'a Attributes,
    pub(super) now: Timestamp,
}

impl<'a> Proposal<'a> {
    /// The wish for a token that is there already.
    pub(super) fn again(actor: &Actor, name: &'a CreatedBy, record: &'a TokenRecord, now: Timestamp) -> Self {
        Self {
            actor: name,
            permissions: actor.permissions(),
            for_oneself: actor.is(record.owner()),
            owner: record.owner(),
            label: record.label(),
            scope: record.scope(),
            expires_at: record.expires_at(),
            attributes: record.attributes(),
            now,
        }
    }

    /// Who asks.
    #[must_use]
    pub const fn actor(&self) -> &CreatedBy {
        self.actor
    }

    /// What the actor may do.
    #[must_use]
    pub const fn permissions(&self) -> Permissions {
        self.permissions
    }

    /// Whether the token is the actor's own.
    #[must_use]
    pub const fn is_for_oneself(&self) -> bool {
        self.for_oneself
    }

    /// Whose token it would be.
    #[must_use]
    pub const fn owner(&self) -> &OwnerId {
        self.owner
    }

    /// What people would call it.
    #[must_use]
    pub const fn label(&self) -> &Label {
        self.label
    }

    /// What it might do.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The first instant at which it would no longer work; `None` for never.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The application's attributes.
    #[must_use]
    pub const fn attributes(&self) -> &Attributes {
        self.attributes
    }

    /// The time of the wish.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }
}

type Judge = dyn Fn(&Proposal<'_>) -> Result<(), &'static str> + Send + Sync;

/// One rule. Equal to itself and its clones: what a closure does cannot be compared.
#[derive(Clone)]
pub(super) struct Rule(Arc<Judge>);

impl Rule {
    pub(super) fn new(rule: impl Fn(&Proposal<'_>) -> Result<(), &'static str> + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// A rule that panics has not allowed anything.
    pub(super) fn judge(&self, proposal: &Proposal<'_>) -> Result<(), Objection> {
        let judged = catch_unwind(AssertUnwindSafe(|| (self.0)(proposal)))
            .map_err(|_| Objection::Policy(StoreError::new("a rule of the issue policy panicked")))?;
        judged.map_err(|why| Objection::Refused(IssueRefusal::Rule(why)))
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rule")
    }
}
