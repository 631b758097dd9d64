//! Why the desk did not do what it was asked.

use std::error::Error as StdError;
use std::fmt;

use crate::base62::RandomError;
use crate::decision::{IssueRefusal, Reason, StoreError, UnavailableCause};
use crate::hash::HashError;
use crate::store::{ChangeError, InsertError, UpdateError};
use crate::text::TextError;

/// Why no token was issued.
#[derive(Debug)]
#[non_exhaustive]
pub enum IssueError {
    /// The owner's name is not acceptable.
    Owner(TextError),
    /// The label is not acceptable.
    Label(TextError),
    /// The actor's name is not acceptable.
    Actor(TextError),
    /// The rules do not allow it.
    Refused(IssueRefusal),
    /// Every id drawn was taken: the store's ids are not this crate's.
    IdTaken,
    /// There are no random bytes.
    Random(RandomError),
    /// The secret could not be hashed.
    Hash(HashError),
    /// The hash workers are busy.
    Busy,
    /// The store could not answer.
    Store(StoreError),
    /// The policy could not be told.
    Policy(StoreError),
    /// The event could not be recorded, and has to be: the token was revoked again.
    Audit,
}

impl IssueError {
    /// How the audit trail tells it.
    pub(super) fn reason(&self) -> Reason {
        Reason::Unavailable(match self {
            Self::Refused(refusal) => return Reason::NotIssued(*refusal),
            Self::Hash(_) => UnavailableCause::HashingFailed,
            Self::Random(_) => UnavailableCause::NoRandomness,
            Self::Policy(_) => UnavailableCause::PolicyFailed,
            Self::Busy => UnavailableCause::HashingBusy,
            _ => UnavailableCause::StoreFailed,
        })
    }

    pub(super) fn of_insert(error: InsertError) -> Self {
        match error {
            InsertError::Taken => Self::IdTaken,
            InsertError::Store(error) => Self::Store(error),
        }
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner(_) => "the owner's name is not acceptable",
            Self::Label(_) => "the label is not acceptable",
            Self::Actor(_) => "the actor's name is not acceptable",
            Self::Refused(_) => "the token may not be issued",
            Self::IdTaken => "no free token id was found",
            Self::Random(_) => "no random token could be drawn",
            Self::Hash(_) => "the secret could not be hashed",
            Self::Busy => "the hash workers are busy",
            Self::Store(_) => "the token could not be stored",
            Self::Policy(_) => "the issue policy could not be read",
            Self::Audit => "the audit event could not be recorded",
        })
    }
}

impl StdError for IssueError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Owner(error) | Self::Label(error) | Self::Actor(error) => Some(error),
            Self::Refused(error) => Some(error),
            Self::Random(error) => Some(error),
            Self::Hash(error) => Some(error),
            Self::Store(error) | Self::Policy(error) => Some(error),
            Self::IdTaken | Self::Busy | Self::Audit => None,
        }
    }
}

/// Why a token was not revoked.
#[derive(Debug)]
#[non_exhaustive]
pub enum RevokeError {
    /// The actor's name is not acceptable.
    Actor(TextError),
    /// There is no such token, or it is not the actor's to see.
    NotFound,
    /// The token kept changing meanwhile.
    Conflict,
    /// The store could not answer; the token may or may not be revoked.
    Store(StoreError),
    /// The token is revoked, and the event could not be recorded.
    Audit,
}

impl RevokeError {
    /// How the audit trail tells it.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotFound => Reason::Unknown,
            Self::Conflict => Reason::Unavailable(UnavailableCause::Contended),
            _ => Reason::Unavailable(UnavailableCause::StoreFailed),
        }
    }

    pub(super) fn of_update(error: UpdateError) -> Self {
        match error {
            UpdateError::Missing => Self::NotFound,
            // Revoked by somebody else since it was read: the next look finds it so.
            UpdateError::Conflict | UpdateError::Rejected(ChangeError::Revoked) => Self::Conflict,
            UpdateError::Rejected(error) => Self::Store(StoreError::new(error)),
            UpdateError::Store(error) => Self::Store(error),
        }
    }
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Actor(_) => "the actor's name is not acceptable",
            Self::NotFound => "there is no such token",
            Self::Conflict => "the token kept changing",
            Self::Store(_) => "the revocation could not be stored",
            Self::Audit => "the token is revoked, and the audit event could not be recorded",
        })
    }
}

impl StdError for RevokeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Actor(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::NotFound | Self::Conflict | Self::Audit => None,
        }
    }
}

/// Why tokens were not listed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListError {
    /// The store could not answer.
    Store(StoreError),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tokens could not be listed")
    }
}

impl StdError for ListError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Store(error) => Some(error),
        }
    }
}
