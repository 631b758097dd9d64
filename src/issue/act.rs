//! One act at the desk: its one event, and the gate that has to know of it.
//!
//! Both are guards. An act that is dropped half-way (the client has left, the store has panicked) still leaves an event,
//! [`Abandoned`](Outcome::Abandoned), and its gate still asks the store before it believes what it remembers.

use std::borrow::Cow;
use std::mem;

use super::issuer::DeskParts;
use crate::actor::Actor;
use crate::audit::{Action, AuditEvent, Edit, OnAuditFailure, Outcome, Subject};
use crate::authenticator::Authenticator;
use crate::decision::Reason;
use crate::id::{OwnerId, TokenId};
use crate::token::{CreatedBy, TokenRecord};

/// An act that has begun and has not been recorded yet.
pub(super) struct Act<'a> {
    desk: &'a DeskParts,
    action: Action,
    actor: Option<CreatedBy>,
    subject: Subject<'static>,
    edit: Option<Edit>,
    open: bool,
}

/// Why an act came to nothing.
pub(super) trait Failure {
    /// How the audit trail tells it.
    fn reason(&self) -> Reason;

    /// The act's event has to be recorded, and could not be.
    fn unrecorded() -> Self;
}

impl<'a> Act<'a> {
    /// An actor whose name is not acceptable is refused soon; the event names nobody.
    pub(super) fn begin(desk: &'a DeskParts, action: Action, actor: &Actor, subject: Subject<'static>) -> Self {
        Self { desk, action, actor: actor.name().ok(), subject, edit: None, open: true }
    }

    /// The act is about this token, which its actor may see.
    pub(super) fn about(&mut self, record: &TokenRecord) {
        self.subject = Subject::Handled {
            id: Some(record.id()),
            owner: Some(Cow::Owned(record.owner().clone())),
            label: Some(Cow::Owned(record.label().clone())),
            scope: Some(record.scope()),
        };
    }

    /// What the act replaces, if it comes to it.
    pub(super) fn replaces(&mut self, edit: Option<Edit>) {
        self.edit = edit;
    }

    /// Records what became of the act: once, whatever it was.
    pub(super) fn end<T, E: Failure>(mut self, answer: Result<T, E>) -> Result<T, E> {
        let reason = answer.as_ref().err().map(E::reason);
        let outcome = match reason {
            None => Outcome::Allowed,
            Some(Reason::Unavailable(_)) => Outcome::Unavailable,
            Some(_) => Outcome::Refused,
        };
        if outcome == Outcome::Refused {
            self.edit = None;
        }
        let recorded = self.record(outcome, reason);
        answer.and_then(|done| if recorded { Ok(done) } else { Err(E::unrecorded()) })
    }

    /// Ends an act that turned out to be none.
    pub(super) fn forget(mut self) {
        self.open = false;
    }

    /// `false` where recording failed and is required.
    fn record(&mut self, outcome: Outcome, reason: Option<Reason>) -> bool {
        self.open = false;
        let desk = self.desk;
        let event = || AuditEvent {
            at: desk.clock.wall(),
            repeated: None,
            action: self.action,
            outcome,
            reason,
            subject: mem::replace(&mut self.subject, Subject::Nobody),
            access: None,
            request: None,
            actor: self.actor.take().map(Cow::Owned),
            edit: self.edit.take(),
        };
        desk.recorder.record(outcome, event) || desk.on_audit_failure == OnAuditFailure::Continue
    }
}

impl Drop for Act<'_> {
    fn drop(&mut self) {
        if self.open {
            self.record(Outcome::Abandoned, None);
        }
    }
}

/// What is known of whom an act is about, when it begins. Never [`Subject::Nobody`], which stands for anonymous requests.
pub(super) fn handled(id: Option<TokenId>, owner: Option<&OwnerId>) -> Subject<'static> {
    Subject::Handled { id, owner: owner.cloned().map(Cow::Owned), label: None, scope: None }
}

/// Tells the desk's gate, when it is dropped, to ask the store before it believes what it remembers.
pub(super) struct Telling<'a> {
    gate: Option<&'a Authenticator>,
    of: Told<'a>,
}

/// What may have changed.
pub(super) enum Told<'a> {
    Token(TokenId),
    Owner(&'a OwnerId),
    Everything,
}

impl<'a> Telling<'a> {
    pub(super) fn new(desk: &'a DeskParts, of: Told<'a>) -> Self {
        Self { gate: desk.gate.as_ref(), of }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        match (self.gate, &self.of) {
            (Some(gate), Told::Token(id)) => gate.distrust(id),
            (Some(gate), Told::Owner(owner)) => gate.distrust_owner(owner),
            (Some(gate), Told::Everything) => gate.distrust_all(),
            (None, _) => {}
        }
    }
}
