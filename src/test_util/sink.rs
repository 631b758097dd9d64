//! A sink that keeps what it is given.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::{lock, panic_as_told};
use crate::access::Access;
use crate::audit::{Action, AuditError, AuditEvent, AuditSink, Outcome};
use crate::clock::Timestamp;
use crate::decision::Reason;
use crate::id::TokenId;
use crate::scope::Scope;
use crate::token::SecretSlot;

/// Keeps a copy of every event, in order, and can be told to fail. A clone is another handle to the same events.
///
/// # Example
/// ```
/// use tower_token_auth::AuditSink;
/// use tower_token_auth::test_util::RecordingSink;
///
/// let sink = RecordingSink::new();
/// // … give a clone to a gate, send it a request, and then:
/// assert!(sink.events().is_empty());
/// assert!(sink.can_fail());
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecordingSink(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    events: Vec<RecordedEvent>,
    fails: bool,
    panics: bool,
}

impl RecordingSink {
    /// A sink without events, which records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The events so far, the oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<RecordedEvent> {
        lock(&self.0).events.clone()
    }

    /// The events so far, the oldest first, which the sink then forgets.
    pub fn take(&self) -> Vec<RecordedEvent> {
        std::mem::take(&mut lock(&self.0).events)
    }

    /// Whether every event is answered with an [`AuditError`] and not kept.
    pub fn fail_all(&self, fails: bool) {
        lock(&self.0).fails = fails;
    }

    /// Whether every event makes the sink panic and is not kept.
    pub fn panic_all(&self, panics: bool) {
        lock(&self.0).panics = panics;
    }
}

impl AuditSink for RecordingSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        let mut state = lock(&self.0);
        if state.panics {
            drop(state);
            panic_as_told("audit sink");
        }
        if state.fails {
            return Err(AuditError::new("the audit sink was told to fail"));
        }
        state.events.push(event.into());
        Ok(())
    }
}

/// An owned copy of an [`AuditEvent`]; each field is what the event's method of the same name answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// When it was decided.
    pub at: Timestamp,
    /// What was done or asked for.
    pub action: Action,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where it was not allowed.
    pub reason: Option<Reason>,
    /// The id of a proved token, or of one handled at the desk.
    pub token_id: Option<TokenId>,
    /// The id a request claimed without proving it.
    pub claimed_id: Option<TokenId>,
    /// The owner of a proved token, or of one handled at the desk.
    pub owner: Option<String>,
    /// The label of a proved token, or of one handled at the desk.
    pub label: Option<String>,
    /// The scope of a proved token, or of one handled at the desk.
    pub scope: Option<Scope>,
    /// Which of the proved token's secrets was presented.
    pub secret_slot: Option<SecretSlot>,
    /// What a change at the desk replaced.
    pub before: Option<String>,
    /// By what the change replaced it.
    pub after: Option<String>,
    /// The access the request needed, where that was judged.
    pub access: Option<Access>,
    /// The request's method.
    pub method: Option<String>,
    /// The request's path, without its query.
    pub path: Option<String>,
    /// The request's route, where the application tells it.
    pub route: Option<String>,
    /// The client's user agent.
    pub user_agent: Option<String>,
    /// The client's address, where the application tells it.
    pub client_address: Option<IpAddr>,
    /// The request's id, where the application tells it.
    pub request_id: Option<String>,
    /// Who acted at the desk, such as `user:alice`.
    pub actor: Option<String>,
    /// How many decisions it stands for.
    pub count: u64,
}

impl From<&AuditEvent<'_>> for RecordedEvent {
    fn from(event: &AuditEvent<'_>) -> Self {
        Self {
            at: event.at(),
            action: event.action(),
            outcome: event.outcome(),
            reason: event.reason(),
            token_id: event.token_id(),
            claimed_id: event.claimed_id(),
            owner: event.owner().map(ToString::to_string),
            label: event.label().map(ToString::to_string),
            scope: event.scope(),
            secret_slot: event.secret_slot(),
            before: event.before().map(str::to_owned),
            after: event.after().map(str::to_owned),
            access: event.access(),
            method: event.method().map(str::to_owned),
            path: event.path().map(str::to_owned),
            route: event.route().map(str::to_owned),
            user_agent: event.user_agent().map(str::to_owned),
            client_address: event.client_address(),
            request_id: event.request_id().map(str::to_owned),
            actor: event.actor().map(ToString::to_string),
            count: event.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{RequestFacts, Subject};

    fn event() -> AuditEvent<'static> {
        AuditEvent {
            at: Timestamp::from_unix_seconds(1),
            action: Action::Authenticate,
            outcome: Outcome::Refused,
            reason: Some(Reason::Missing),
            repeated: None,
            subject: Subject::Nobody,
            access: None,
            request: Some(RequestFacts::new("GET", "/issues", None)),
            actor: None,
            edit: None,
        }
    }

    #[test]
    fn events_are_kept_until_they_are_taken() {
        let sink = RecordingSink::new();
        sink.clone().record(&event()).unwrap();
        assert_eq!(sink.events(), [RecordedEvent::from(&event())]);
        assert_eq!(sink.take().first().unwrap().path.as_deref(), Some("/issues"));
        assert!(sink.events().is_empty());
    }

    #[test]
    fn a_failing_sink_keeps_nothing() {
        let sink = RecordingSink::new();
        sink.fail_all(true);
        assert!(sink.record(&event()).is_err());
        sink.panic_all(true);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink.record(&event()))).is_err());
        sink.fail_all(false);
        sink.panic_all(false);
        assert!(sink.events().is_empty());
        assert!(sink.record(&event()).is_ok());
    }
}
