//! A wish whose texts are in order, and the record it becomes.

use sha2::{Digest, Sha256};

use super::error::IssueError;
use super::new_token::NewToken;
use super::rule::Proposal;
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::token::{Attributes, CreatedBy, TokenRecord};

/// A [`NewToken`] that can be judged, and who asks for it.
pub(super) struct Wish {
    pub(super) owner: OwnerId,
    scope: Scope,
    expires_at: Option<Timestamp>,
    creator: CreatedBy,
    label: Label,
    attributes: Attributes,
    on_behalf_right: bool,
}

impl Wish {
    pub(super) fn new(actor: &Actor, new: NewToken, now: Timestamp) -> Result<Self, IssueError> {
        Ok(Self {
            owner: new.owner.map_err(IssueError::Owner)?,
            scope: new.scope,
            expires_at: new.expiry.at(now),
            creator: actor.name().map_err(IssueError::Actor)?,
            label: new.label.map_err(IssueError::Label)?,
            attributes: new.attributes,
            on_behalf_right: actor.permissions().on_behalf(),
        })
    }

    pub(super) fn proposal(&self, actor: &Actor, now: Timestamp) -> Proposal<'_> {
        Proposal {
            actor: &self.creator,
            permissions: actor.permissions(),
            for_oneself: actor.is(&self.owner),
            owner: &self.owner,
            label: &self.label,
            scope: self.scope,
            expires_at: self.expires_at,
            attributes: &self.attributes,
            now,
        }
    }

    pub(super) fn record(&self, id: TokenId, hash: SecretHash, now: Timestamp) -> TokenRecord {
        TokenRecord::new(id, self.owner.clone(), self.label.clone(), self.scope, hash, now)
            .with_created_by(self.creator.clone())
            .with_made_on_behalf_right(self.on_behalf_right)
            .with_expiry(self.expires_at)
            .with_attributes(self.attributes.clone())
    }

    /// The same for the same owner and label, in every process. An id is public, so it need not be random.
    pub(super) fn ensured_id(&self) -> TokenId {
        let mut digest = Sha256::new().chain_update(b"tower-token-auth ensure v1\0");
        for text in [self.owner.as_str(), self.label.as_str()] {
            // With its length, so that no two pairs of texts read alike.
            digest = digest.chain_update((text.len() as u64).to_be_bytes()).chain_update(text);
        }
        TokenId::from_digest(&digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ensured_id(owner: &str, label: &str) -> TokenId {
        let new = NewToken::new(owner, label, Scope::ReadOnly);
        Wish::new(&Actor::system("test"), new, Timestamp::from_unix_seconds(0)).unwrap().ensured_id()
    }

    #[test]
    fn an_ensured_id_follows_from_owner_and_label_and_their_border() {
        assert_eq!(ensured_id("ab", "c"), ensured_id("ab", "c"));
        for (owner, label) in [("a", "bc"), ("ab", "d"), ("c", "ab")] {
            assert_ne!(ensured_id("ab", "c"), ensured_id(owner, label), "{owner} {label}");
        }
    }
}
