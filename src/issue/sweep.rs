//! Revoking many tokens.

use std::collections::BTreeMap;

use super::error::ManageError;
use super::issuer::TokenIssuer;
use super::report::visible_part;
use crate::actor::Actor;
use crate::decision::StoreError;
use crate::id::TokenId;
use crate::store::{TokenFilter, TokenPage};
use crate::token::{TokenRecord, TokenState};

/// How often all tokens are gone through: once more than there is somebody who issues meanwhile, within reason.
const PASSES: usize = 16;

/// What [`TokenIssuer::revoke_matching`] has done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RevokeReport {
    /// The tokens it has revoked.
    pub revoked: Vec<TokenId>,
    /// Those it has not, and why; with [`Audit`](ManageError::Audit) the token *is* revoked.
    pub failed: Vec<(TokenId, ManageError)>,
    /// Why it has stopped before it found nothing new: the tokens could not be listed, or somebody kept issuing
    /// ([`Conflict`](ManageError::Conflict)).
    pub interrupted: Option<ManageError>,
}

impl RevokeReport {
    /// Whether every token that matched is revoked and on record.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.interrupted.is_none()
    }
}

/// What has been done so far.
#[derive(Default)]
struct Sweep {
    revoked: Vec<TokenId>,
    failed: BTreeMap<TokenId, ManageError>,
}

impl TokenIssuer {
    /// Revokes all tokens that the actor may see and the filter lets through: all of an owner, all issued before a time,
    /// whatever a [`TokenFilter`] says. It goes on after single failures, and begins again until a pass finds nothing
    /// new, so that what is issued meanwhile is caught.
    ///
    /// Each revocation is as one by [`revoke`](Self::revoke), with its own event.
    ///
    /// # Errors
    /// [`ManageError::Actor`]. Everything else is in the report.
    ///
    /// # Cancellation
    /// Dropped, it stops between two tokens: those before are revoked.
    ///
    /// # Security
    /// A filter by *active* overlooks a token that is paused while the tokens are gone through. To stop an owner, filter by
    /// the owner alone, and [bar](Self::bar_owner) them first.
    pub async fn revoke_matching(&self, actor: &Actor, filter: TokenFilter) -> Result<RevokeReport, ManageError> {
        actor.name().map_err(ManageError::Actor)?;
        let mut sweep = Sweep::default();
        let interrupted = match visible_part(actor, filter) {
            Some(filter) => self.sweep(&mut sweep, actor, &filter).await.err(),
            None => None,
        };
        Ok(RevokeReport { revoked: sweep.revoked, failed: sweep.failed.into_iter().collect(), interrupted })
    }

    async fn sweep(&self, sweep: &mut Sweep, actor: &Actor, filter: &TokenFilter) -> Result<(), ManageError> {
        for _ in 0..PASSES {
            let before = sweep.revoked.len();
            self.pass(sweep, actor, filter).await.map_err(ManageError::Store)?;
            if sweep.revoked.len() == before {
                return Ok(());
            }
        }
        Err(ManageError::Conflict)
    }

    async fn pass(&self, sweep: &mut Sweep, actor: &Actor, filter: &TokenFilter) -> Result<(), StoreError> {
        let mut cursor = None;
        loop {
            let TokenPage { records, next } = self.desk.registry.list(filter, cursor.as_ref()).await?;
            // A store that overlooks the filter must not revoke what nobody has asked for.
            let asked = |record: &&TokenRecord| filter.matches(record) && record.state() != TokenState::Revoked;
            for record in records.iter().filter(asked) {
                sweep.note(record.id(), self.revoke(actor, &record.id()).await.map(|_| ()));
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }
}

impl Sweep {
    fn note(&mut self, id: TokenId, answer: Result<(), ManageError>) {
        match answer {
            Ok(()) => {
                self.failed.remove(&id);
                self.revoked.push(id);
            }
            Err(error) => {
                self.failed.insert(id, error);
            }
        }
    }
}
