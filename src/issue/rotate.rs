//! A new secret for an old token.
//!
//! # How it decides
//! 1. An overlap of zero ends every older secret at once, always: that is for leaks.
//! 2. While no older secret works, the current one retires: it works until now and the overlap have passed, or until the
//!    token expires.
//! 3. While one still works, the rotation has been asked for twice. Where the new secret was never used its text was
//!    lost, so it is replaced; the retiring secret and its deadline stay.
//! 4. Where it was used, there are two secrets that somebody needs, and no place for a third: refused.

use std::time::Duration;

use super::act::Act;
use super::error::ManageError;
use super::issuer::TokenIssuer;
use super::manage::EndText;
use super::new_token::IssuedToken;
use crate::actor::Actor;
use crate::audit::{Action, Edit};
use crate::clock::Timestamp;
use crate::id::TokenId;
use crate::store::Change;
use crate::token::{PlaintextToken, RetiringSecret, TokenRecord, TokenState};

impl TokenIssuer {
    /// Gives a token a new secret, if the actor could issue it as it is, today. The new text is in the answer and works at
    /// once; the old one works for `overlap` longer, and never longer than the token. The id stays.
    ///
    /// An overlap of zero, for a leak, ends every older secret at once, also during an overlap. Otherwise a rotation that is
    /// repeated during an overlap replaces only a new secret that nobody has used yet, and does not move the deadline. Used
    /// means: at this process's gate, or at any gate that has told the store.
    ///
    /// # Errors
    /// [`ManageError`]; [`RotationUnderway`](ManageError::RotationUnderway) during an overlap whose new secret is in use,
    /// [`Refused`](ManageError::Refused) where today's rules do not allow such a token, as for one that has expired,
    /// [`Revoked`](ManageError::Revoked) for one that is. With [`Audit`](ManageError::Audit) the rotation stands and
    /// nobody has the new text: the old one works on until its deadline. Rotate again; the new secret, unused, is replaced.
    ///
    /// # Cancellation
    /// As for [`revoke`](Self::revoke). Dropped after the store took the new secret, its text is lost: rotate again.
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use tower_token_auth::{Actor, IssuePolicy, MemoryStore, NewToken, Scope, TokenIssuer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let desk = TokenIssuer::builder(MemoryStore::new(), IssuePolicy::default()).build()?;
    /// let ops = Actor::system("yearly rotation");
    /// let old = desk.issue(&ops, NewToken::new("alice", "export", Scope::ReadOnly)).await?;
    /// let new = desk.rotate(&ops, &old.summary().id, Duration::from_secs(24 * 3600)).await?;
    /// assert_eq!(new.summary().id, old.summary().id);
    /// assert_ne!(new.plaintext().expose(), old.plaintext().expose());
    /// println!("the old text works until {:?}", new.summary().retiring_until);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rotate(&self, actor: &Actor, id: &TokenId, overlap: Duration) -> Result<IssuedToken, ManageError> {
        let mut act = self.act_on(Action::Rotate, actor, id);
        let rotated = self.rotate_judged(&mut act, actor, id, overlap).await;
        act.end(rotated)
    }

    async fn rotate_judged(
        &self,
        act: &mut Act<'_>,
        actor: &Actor,
        id: &TokenId,
        overlap: Duration,
    ) -> Result<IssuedToken, ManageError> {
        let found = self.visible(actor, id).await?;
        act.about(&found);
        let policy = self.policy().await.map_err(ManageError::Policy)?;
        let plan = |found: &TokenRecord, now| {
            if found.state() == TokenState::Revoked {
                return Err(ManageError::Revoked);
            }
            self.judge_again(&policy, actor, found, now)?;
            retire(found, self.successor_used(found), overlap, now)
        };
        // What is refused costs no hash.
        plan(&found, self.desk.clock.wall())?;
        let (secret, hash) = self.draw(*id).await?;
        let rotate = |found: &TokenRecord, now| {
            act.about(found);
            let retiring = plan(found, now)?;
            act.replaces(Some(replaced(found, retiring.as_ref(), now)));
            Ok(Some(Change::Secrets { secret: hash.clone(), retiring }))
        };
        let record = self.change(actor, id, rotate).await?;
        let plaintext = PlaintextToken::assemble(&self.desk.prefix, *id, secret);
        Ok(IssuedToken { plaintext, summary: (&record).into() })
    }

    fn successor_used(&self, record: &TokenRecord) -> bool {
        record.retiring().is_some_and(RetiringSecret::successor_used)
            || self.desk.gate.as_ref().is_some_and(|gate| gate.has_proof_of_current(record))
    }
}

/// The secret that works on beside the new one, if any.
fn retire(
    record: &TokenRecord,
    successor_used: bool,
    overlap: Duration,
    now: Timestamp,
) -> Result<Option<RetiringSecret>, ManageError> {
    if overlap.as_millis() == 0 {
        return Ok(None);
    }
    match record.retiring().filter(|old| now < old.until()) {
        Some(old) if successor_used => Err(ManageError::RotationUnderway { until: old.until() }),
        Some(old) => Ok(Some(old.clone())),
        None => {
            let end = now + overlap;
            let until = record.expires_at().map_or(end, |expiry| expiry.min(end));
            Ok(Some(RetiringSecret::new(record.secret().clone(), until)))
        }
    }
}

/// Until when the replaced secret would have worked, and does.
fn replaced(record: &TokenRecord, retiring: Option<&RetiringSecret>, now: Timestamp) -> Edit {
    let kept = retiring.filter(|old| old.secret() == record.secret());
    Edit::new(EndText(record.expires_at()), kept.map_or(now, RetiringSecret::until))
}
