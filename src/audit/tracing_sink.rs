//! Events into the application's own `tracing`.

use tracing::Level;

use super::{Action, AuditError, AuditEvent, AuditSink, Outcome};

/// Writes each event to the application's `tracing` subscriber: the default sink.
///
/// Target, levels, messages and field names are covered by semantic versioning. A field without a value is left out.
///
/// | outcome | level | message |
/// |---|---|---|
/// | allowed, passed, abandoned | INFO | `token admitted`, `request passed without a token`, `desk: done`, `client left` |
/// | refused, would_forbid | WARN | `request refused`, `desk: refused`, `token refused often`, `request would be refused` |
/// | unavailable | ERROR | `no decision`, `desk: failed`, `audit events lost` |
///
/// Fields: `version`, `action`, `outcome`, `reason`, `token_id` (proved, or handled at the desk), `claimed_id`
/// (not proved), `owner`, `label`, `scope`, `secret` (`current` or `retiring`, of a proved token), `access`, `method`, `path`, `route`, `user_agent`, `client_address`,
/// `request_id`, `actor`, `before` and `after` (of a change at the desk); of an event that stands for several decisions also `count` and `first_at`.
///
/// # Security
/// A filter such as `RUST_LOG=warn` hides the admitted requests, `RUST_LOG=my_app=info` hides everything: name the
/// target, [`TracingSink::TARGET`], wherever the trail matters (`RUST_LOG=warn,tower_token_auth::audit=info`).
/// `tracing` does not tell whether an event was written, so this sink cannot fail, and cannot be required to record.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TracingSink;

impl TracingSink {
    /// The target of all events.
    pub const TARGET: &'static str = "tower_token_auth::audit";

    /// The sink; it has no options.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// `tracing` wants a level known when it compiles, so the same fields are spelled once for all three.
macro_rules! emit {
    ($level:expr, $event:expr) => {{
        let event: &AuditEvent<'_> = $event;
        let (token_id, claimed_id) = (event.token_id(), event.claimed_id());
        tracing::event!(
            target: TracingSink::TARGET,
            $level,
            version = AuditEvent::VERSION,
            action = event.action().as_str(),
            outcome = event.outcome().as_str(),
            reason = event.reason().map(|reason| reason.as_str()),
            token_id = token_id.as_ref().map(|id| id.as_str()),
            claimed_id = claimed_id.as_ref().map(|id| id.as_str()),
            owner = event.owner().map(|owner| owner.as_str()),
            label = event.label().map(|label| label.as_str()),
            scope = event.scope().map(|scope| scope.as_str()),
            secret = event.secret_slot().map(|slot| slot.as_str()),
            access = event.access().map(|access| access.as_str()),
            method = event.method(),
            path = event.path(),
            route = event.route(),
            user_agent = event.user_agent(),
            client_address = event.client_address().map(tracing::field::display),
            request_id = event.request_id(),
            actor = event.actor().map(tracing::field::display),
            before = event.before(),
            after = event.after(),
            count = Some(event.count()).filter(|count| *count != 1),
            first_at = Some(event.first_at()).filter(|first| *first != event.at()).map(tracing::field::display),
            "{}",
            message(event),
        );
    }};
}

fn message(event: &AuditEvent<'_>) -> &'static str {
    match (event.action() != Action::Authenticate, event.outcome()) {
        _ if event.action() == Action::ReportLoss => "audit events lost",
        _ if event.action() == Action::ReportThreshold => "token refused often",
        (_, Outcome::WouldForbid) => "request would be refused",
        (_, Outcome::Abandoned) => "client left",
        (false, Outcome::Allowed) => "token admitted",
        (false, Outcome::Passed) => "request passed without a token",
        (false, Outcome::Refused) => "request refused",
        (false, Outcome::Unavailable) => "no decision",
        (true, Outcome::Allowed | Outcome::Passed) => "desk: done",
        (true, Outcome::Refused) => "desk: refused",
        (true, Outcome::Unavailable) => "desk: failed",
    }
}

impl AuditSink for TracingSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        match event.outcome() {
            Outcome::Allowed | Outcome::Passed | Outcome::Abandoned => emit!(Level::INFO, event),
            Outcome::Refused | Outcome::WouldForbid => emit!(Level::WARN, event),
            Outcome::Unavailable => emit!(Level::ERROR, event),
        }
        Ok(())
    }

    fn wants(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Allowed | Outcome::Passed | Outcome::Abandoned => {
                tracing::event_enabled!(target: TracingSink::TARGET, Level::INFO)
            }
            Outcome::Refused | Outcome::WouldForbid => {
                tracing::event_enabled!(target: TracingSink::TARGET, Level::WARN)
            }
            Outcome::Unavailable => tracing::event_enabled!(target: TracingSink::TARGET, Level::ERROR),
        }
    }

    fn can_fail(&self) -> bool {
        false
    }
}
