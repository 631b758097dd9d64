//! The last events, in memory, for people who ask.
//!
//! An administrator asks what happened with a token, what of an owner's was refused, which programs connect. This sink
//! answers that for the recent past without a database; what must be kept for long is written by another sink beside it.
//!
//! # What it guarantees
//! * It is never full and cannot fail: it forgets the oldest.
//! * Each kind of event has room of its own, so what can be caused at will by one kind of caller does not push out the
//!   traces of another:
//!
//! | room | events | default | who can fill it |
//! |---|---|---|---|
//! | desk | acts at the desk | 10,000 | administrators |
//! | reports | [`Action::is_report`] | 1,000 | nobody: they are few by their making |
//! | allowed | admitted requests of proved tokens | 10,000 | holders of tokens |
//! | forbidden | proved tokens that were not simply admitted | 5,000 | holders of tokens |
//! | mismatching | ids of real tokens with a wrong secret, or of dead ones | 5,000 | who has seen an id |
//! | anonymous | everything else | 1,000 | everybody |
//!
//! * *Applications seen* come from proved requests only. Of what merely claims a token nothing is kept but a number, and
//!   only for tokens that were proved.
//! * A listing goes on where it stopped, without gaps and repetitions, while events come and go.
//!
//! # When things fail
//! | what | what happens |
//! |---|---|
//! | a room is full | the oldest event in it is forgotten |
//! | more tokens are in use than are tracked | the one that was longest not proved is forgotten with its applications |
//! | the process ends | everything is forgotten; a cursor from before is [`HistoryError::Cursor`] |
//!
//! # Cost
//! An owned copy of the event and two mutexes, one at a time; no work grows with what is remembered. A question looks
//! through at most all events, a thousand at a time, and requests wait no longer than that. An event takes some 0.7 KiB
//! and at most 2.2 KiB, a token with a few applications some 1 KiB and at most 8 KiB: with the defaults some 35 MiB where
//! 10,000 tokens are in use, and whatever is sent no more than 150 MiB.

mod applications;
mod filter;
mod rooms;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use applications::Applications;
pub use applications::{ApplicationFilter, ApplicationPage, ApplicationSeen, TokenApplications, UserAgent};
pub use filter::{HistoryCursor, HistoryError, HistoryFilter, HistoryPage};
use rooms::{Kind, Rooms};

use super::recent::Recent;
use super::{AuditError, AuditEvent, AuditSink};
use crate::id::TokenId;

/// How much a question looks at before it lets requests pass.
const STRIDE: usize = 1_000;

/// Remembers the last events and which applications were seen. A clone is another handle to the same memory.
///
/// # Example
/// ```
/// use tower_token_auth::{AuditHistory, FanOut, HistoryFilter, MemoryStore, Outcome, TokenAuthLayer, TracingSink};
///
/// let history = AuditHistory::new();
/// let audit = FanOut::default().and(history.clone()).and(TracingSink::new());
/// let auth = TokenAuthLayer::builder(MemoryStore::new()).audit(audit).build()?;
///
/// let refused = HistoryFilter::all().outcome(Outcome::Refused);
/// let page = history.events(&refused, None)?;
/// assert!(page.events.is_empty() && page.next.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Security
/// It tells who does what, when and from where: show it to those who may know that, and to an owner only what is the
/// owner's.
#[derive(Clone)]
pub struct AuditHistory(Arc<Memory>);

/// Configures an [`AuditHistory`]. A room of 0 keeps nothing.
#[derive(Debug, Clone, Copy)]
#[must_use = "`build` makes the history"]
pub struct AuditHistoryBuilder {
    desk: usize,
    reports: usize,
    allowed: usize,
    forbidden: usize,
    mismatching: usize,
    anonymous: usize,
    tokens: usize,
}

/// The two are never locked together.
struct Memory {
    rooms: Mutex<Rooms>,
    applications: Mutex<Applications>,
    /// Tells its cursors from those of another history, or of the process before.
    tag: u32,
}

impl AuditHistory {
    /// A history of the default size.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A history to be configured.
    pub const fn builder() -> AuditHistoryBuilder {
        AuditHistoryBuilder {
            desk: 10_000,
            reports: 1_000,
            allowed: 10_000,
            forbidden: 5_000,
            mismatching: 5_000,
            anonymous: 1_000,
            tokens: 10_000,
        }
    }

    /// A page of events, the newest first.
    ///
    /// Events that come while pages are read stand before the first page and are not on later ones.
    ///
    /// # Errors
    /// [`HistoryError::Cursor`] when the cursor is none of this history's.
    pub fn events(&self, filter: &HistoryFilter, cursor: Option<&HistoryCursor>) -> Result<HistoryPage, HistoryError> {
        let mut before = cursor.map_or(Ok(u64::MAX), |cursor| self.position(cursor))?;
        let (mut events, mut last, page_size) = (Vec::new(), before, filter.page_size.max(1));
        loop {
            let rooms = lock(&self.0.rooms);
            let mut looked_at = 0;
            for kept in rooms.before(before).take(STRIDE) {
                (looked_at, before) = (looked_at + 1, kept.position);
                if !filter.matches(&kept.event) {
                    continue;
                }
                if events.len() == page_size {
                    return Ok(HistoryPage::new(events, Some(self.cursor(last))));
                }
                events.push(kept.event.clone());
                last = kept.position;
            }
            if looked_at < STRIDE {
                return Ok(HistoryPage::new(events, None));
            }
        }
    }

    /// The applications that used a token; `None` where it was not proved lately.
    #[must_use]
    pub fn applications(&self, token: &TokenId) -> Option<TokenApplications> {
        lock(&self.0.applications).0.get(token).cloned()
    }

    /// A page of tokens with the applications that used them, in the order of the tokens' ids.
    ///
    /// # Errors
    /// [`HistoryError::Cursor`] when the cursor is none of this listing's.
    pub fn applications_seen(
        &self,
        filter: &ApplicationFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<ApplicationPage, HistoryError> {
        let after = cursor.map(|cursor| cursor.as_str().parse::<TokenId>());
        let mut after = after.transpose().map_err(|_| HistoryError::Cursor)?;
        let (mut tokens, page_size) = (Vec::<TokenApplications>::new(), filter.page_size.max(1));
        loop {
            let applications = lock(&self.0.applications);
            let mut looked_at = 0;
            for (id, token) in applications.0.after(after).take(STRIDE) {
                (looked_at, after) = (looked_at + 1, Some(*id));
                if !filter.matches(token) {
                    continue;
                }
                if tokens.len() == page_size {
                    let next = tokens.last().map(|last| HistoryCursor::new(last.token.as_str()));
                    return Ok(ApplicationPage::new(tokens, next));
                }
                tokens.push(token.clone());
            }
            if looked_at < STRIDE {
                return Ok(ApplicationPage::new(tokens, None));
            }
        }
    }

    fn cursor(&self, position: u64) -> HistoryCursor {
        HistoryCursor::new(format!("{:08x}-{position}", self.0.tag))
    }

    fn position(&self, cursor: &HistoryCursor) -> Result<u64, HistoryError> {
        let parts = cursor.as_str().split_once('-');
        let own = parts.filter(|(tag, _)| u32::from_str_radix(tag, 16) == Ok(self.0.tag));
        own.and_then(|(_, position)| position.parse().ok()).ok_or(HistoryError::Cursor)
    }
}

impl AuditHistoryBuilder {
    /// Room for acts at the desk. Default 10,000: years of an ordinary deployment.
    pub const fn desk(self, events: usize) -> Self {
        Self { desk: events, ..self }
    }

    /// Room for reports of sinks. Default 1,000.
    pub const fn reports(self, events: usize) -> Self {
        Self { reports: events, ..self }
    }

    /// Room for admitted requests. Default 10,000: what an application does, seen closely for a while;
    /// [`applications`](AuditHistory::applications) tells of the time before.
    pub const fn allowed(self, events: usize) -> Self {
        Self { allowed: events, ..self }
    }

    /// Room for proved tokens that were not simply admitted: out of scope, against the policy, only reported as such.
    /// Default 5,000: apart from the admitted ones, because a busy application would push them out within seconds.
    pub const fn forbidden(self, events: usize) -> Self {
        Self { forbidden: events, ..self }
    }

    /// Room for wrong secrets and dead tokens. Default 5,000: who guesses at one token can push out traces of other
    /// guesses, but not the [report](crate::ThresholdSink) of them.
    pub const fn mismatching(self, events: usize) -> Self {
        Self { mismatching: events, ..self }
    }

    /// Room for requests that are about no token at all. Default 1,000: a sample of the noise.
    pub const fn anonymous(self, events: usize) -> Self {
        Self { anonymous: events, ..self }
    }

    /// How many tokens' applications are tracked, at least 1. Default 10,000.
    pub const fn tokens(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// The history.
    #[must_use]
    pub fn build(self) -> AuditHistory {
        let rooms = Rooms::new(|kind| match kind {
            Kind::Desk => self.desk,
            Kind::Report => self.reports,
            Kind::Allowed => self.allowed,
            Kind::Forbidden => self.forbidden,
            Kind::Mismatching => self.mismatching,
            Kind::Anonymous => self.anonymous,
        });
        let applications = Applications(Recent::new(self.tokens));
        // Nothing secret hangs on it, and the seed of the standard library's maps cannot fail.
        let tag = RandomState::new().hash_one(()) as u32;
        AuditHistory(Arc::new(Memory { rooms: Mutex::new(rooms), applications: Mutex::new(applications), tag }))
    }
}

/// No code of others runs under these locks, so a poisoned one guards nothing half-done.
fn lock<T>(memory: &Mutex<T>) -> MutexGuard<'_, T> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for AuditHistory {
    fn default() -> Self {
        Self::new()
    }
}

impl AuditSink for AuditHistory {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        lock(&self.0.applications).see(event);
        let event = event.clone().into_owned();
        let gone = lock(&self.0.rooms).keep(event);
        // Out of the lock.
        drop(gone);
        Ok(())
    }

    fn can_fail(&self) -> bool {
        false
    }
}

impl fmt::Debug for AuditHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditHistory").finish_non_exhaustive()
    }
}
