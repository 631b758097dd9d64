//! One event as one line of JSON.

use std::fmt::Display;
use std::io::{self, Write};

use super::AuditEvent;

/// One line in the making.
pub(super) struct Line<'b>(&'b mut Vec<u8>);

impl Line<'_> {
    pub(super) fn write(event: &AuditEvent<'_>, buffer: &mut Vec<u8>) -> io::Result<()> {
        write!(buffer, "{{\"version\":{}", AuditEvent::VERSION)?;
        let mut line = Line(buffer);
        line.shown("at", Some(event.at()))?;
        line.text("action", Some(event.action().as_str()))?;
        line.text("outcome", Some(event.outcome().as_str()))?;
        line.text("reason", event.reason().map(|reason| reason.as_str()))?;
        line.text("token_id", event.token_id().as_ref().map(|id| id.as_str()))?;
        line.text("claimed_id", event.claimed_id().as_ref().map(|id| id.as_str()))?;
        line.text("owner", event.owner().map(|owner| owner.as_str()))?;
        line.text("label", event.label().map(|label| label.as_str()))?;
        line.text("scope", event.scope().map(|scope| scope.as_str()))?;
        line.text("secret", event.secret_slot().map(|slot| slot.as_str()))?;
        line.text("access", event.access().map(|access| access.as_str()))?;
        line.text("method", event.method())?;
        line.text("path", event.path())?;
        line.text("route", event.route())?;
        line.text("user_agent", event.user_agent())?;
        line.shown("client_address", event.client_address())?;
        line.text("request_id", event.request_id())?;
        line.shown("actor", event.actor())?;
        line.text("before", event.before())?;
        line.text("after", event.after())?;
        line.text("detail", event.detail().as_deref())?;
        line.number("count", Some(event.count()).filter(|count| *count != 1))?;
        line.shown("first_at", Some(event.first_at()).filter(|first| *first != event.at()))?;
        buffer.write_all(b"}\n")
    }

    /// Text that is there already: serde_json copies what needs no escape, which is several times as fast as
    /// [`shown`](Self::shown).
    fn text(&mut self, name: &'static str, value: Option<&str>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        Ok(serde_json::to_writer(&mut *self.0, value)?)
    }

    fn shown(&mut self, name: &'static str, value: Option<impl Display>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        Ok(serde_json::to_writer(&mut *self.0, &format_args!("{value}"))?)
    }

    fn number(&mut self, name: &'static str, value: Option<u64>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        write!(self.0, "{value}")
    }

    fn name(&mut self, name: &'static str) {
        for part in [",\"", name, "\":"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }
}
