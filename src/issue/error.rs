//! Why the desk did not do what it was asked.

use std::error::Error as StdError;
use std::fmt;

use super::act::Failure;
use super::draw::DrawError;
use super::policy::Objection;
use crate::base62::RandomError;
use crate::clock::Timestamp;
use crate::decision::{IssueRefusal, Reason, StoreError, UnavailableCause};
use crate::hash::HashError;
use crate::store::{ChangeError, InsertError, UpdateError};
use crate::text::TextError;

/// Why no token was issued.
///
/// `Display` is one phrase for a log. What to tell the person who asked is in [`Refused`](Self::Refused): an
/// [`IssueRefusal`] says what would be allowed.
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
    /// The policy could not be told, or one of its rules panicked.
    Policy(StoreError),
    /// The event could not be recorded, and has to be: the token was revoked again.
    Audit,
}

impl IssueError {
    pub(super) fn of_insert(error: InsertError) -> Self {
        match error {
            InsertError::Taken => Self::IdTaken,
            InsertError::Store(error) => Self::Store(error),
        }
    }
}

impl Failure for IssueError {
    fn reason(&self) -> Reason {
        Reason::Unavailable(match self {
            Self::Owner(_) | Self::Label(_) | Self::Actor(_) => return Reason::Unacceptable,
            Self::Refused(refusal) => return Reason::NotIssued(*refusal),
            Self::Random(_) => UnavailableCause::NoRandomness,
            Self::Hash(_) => UnavailableCause::HashingFailed,
            Self::Busy => UnavailableCause::HashingBusy,
            Self::Policy(_) => UnavailableCause::PolicyFailed,
            Self::IdTaken | Self::Store(_) => UnavailableCause::StoreFailed,
            Self::Audit => UnavailableCause::AuditFailed,
        })
    }

    fn unrecorded() -> Self {
        Self::Audit
    }
}

impl From<DrawError> for IssueError {
    fn from(error: DrawError) -> Self {
        match error {
            DrawError::Random(error) => Self::Random(error),
            DrawError::Hash(error) => Self::Hash(error),
            DrawError::Busy => Self::Busy,
        }
    }
}

impl From<Objection> for IssueError {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Refused(refusal) => Self::Refused(refusal),
            Objection::Policy(error) => Self::Policy(error),
            Objection::Store(error) => Self::Store(error),
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

/// Why the desk did not do what it was asked for a token, an owner or the policy.
///
/// `Display` is one phrase for a log. What to tell the person who asked is in [`Refused`](Self::Refused): an
/// [`IssueRefusal`] says what would be allowed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManageError {
    /// The actor's name is not acceptable.
    Actor(TextError),
    /// The label is not acceptable.
    Label(TextError),
    /// There is no such token, or it is not the actor's to see.
    NotFound,
    /// The rules do not allow it.
    Refused(IssueRefusal),
    /// The token is revoked, which is final.
    Revoked,
    /// The token ends earlier already, and an expiry never moves to a later time.
    ExpiryNotEarlier {
        /// When it ends.
        expires_at: Timestamp,
    },
    /// The token has two secrets that are in use. An overlap of zero ends both.
    RotationUnderway {
        /// When the older one ends, and the token can be rotated again.
        until: Timestamp,
    },
    /// Somebody else kept changing it meanwhile.
    Conflict,
    /// There are no random bytes.
    Random(RandomError),
    /// The secret could not be hashed.
    Hash(HashError),
    /// The hash workers are busy.
    Busy,
    /// The policy could not be told, or not be changed.
    Policy(StoreError),
    /// The store could not answer; what was asked may or may not be done.
    Store(StoreError),
    /// It is done, and the event could not be recorded.
    Audit,
}

impl ManageError {
    pub(super) fn of_update(error: UpdateError) -> Self {
        match error {
            UpdateError::Missing => Self::NotFound,
            // Revoked, or narrowed, by somebody else since it was read: the next look finds it so.
            UpdateError::Conflict | UpdateError::Rejected(ChangeError::Revoked | ChangeError::Widens) => Self::Conflict,
            UpdateError::Store(error) => Self::Store(error),
        }
    }
}

impl Failure for ManageError {
    fn reason(&self) -> Reason {
        Reason::Unavailable(match self {
            Self::Actor(_) | Self::Label(_) | Self::ExpiryNotEarlier { .. } => return Reason::Unacceptable,
            Self::NotFound => return Reason::Unknown,
            Self::Refused(refusal) => return Reason::NotIssued(*refusal),
            Self::Revoked => return Reason::Revoked,
            Self::RotationUnderway { .. } => return Reason::RotationUnderway,
            Self::Conflict => UnavailableCause::Contended,
            Self::Random(_) => UnavailableCause::NoRandomness,
            Self::Hash(_) => UnavailableCause::HashingFailed,
            Self::Busy => UnavailableCause::HashingBusy,
            Self::Policy(_) => UnavailableCause::PolicyFailed,
            Self::Store(_) => UnavailableCause::StoreFailed,
            Self::Audit => UnavailableCause::AuditFailed,
        })
    }

    fn unrecorded() -> Self {
        Self::Audit
    }
}

impl From<DrawError> for ManageError {
    fn from(error: DrawError) -> Self {
        match error {
            DrawError::Random(error) => Self::Random(error),
            DrawError::Hash(error) => Self::Hash(error),
            DrawError::Busy => Self::Busy,
        }
    }
}

impl From<Objection> for ManageError {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Refused(refusal) => Self::Refused(refusal),
            Objection::Policy(error) => Self::Policy(error),
            Objection::Store(error) => Self::Store(error),
        }
    }
}

impl fmt::Display for ManageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Actor(_) => "the actor's name is not acceptable",
            Self::Label(_) => "the label is not acceptable",
            Self::NotFound => "there is no such token",
            Self::Refused(_) => "the rules of the desk do not allow it",
            Self::Revoked => "the token is revoked",
            Self::ExpiryNotEarlier { expires_at } => {
                return write!(f, "the expiry can only move to before {expires_at}");
            }
            Self::RotationUnderway { until } => {
                return write!(f, "the token's new secret is in use, and the old one works until {until}");
            }
            Self::Conflict => "somebody else kept changing it at the same time",
            Self::Random(_) => "no random secret could be drawn",
            Self::Hash(_) => "the secret could not be hashed",
            Self::Busy => "the hash workers are busy",
            Self::Policy(_) => "the issue policy could not be read or changed",
            Self::Store(_) => "the change could not be stored",
            Self::Audit => "it is done, and the audit event could not be recorded",
        })
    }
}

impl StdError for ManageError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Actor(error) | Self::Label(error) => Some(error),
            Self::Refused(error) => Some(error),
            Self::Random(error) => Some(error),
            Self::Hash(error) => Some(error),
            Self::Policy(error) | Self::Store(error) => Some(error),
            Self::NotFound
            | Self::Revoked
            | Self::ExpiryNotEarlier { .. }
            | Self::RotationUnderway { .. }
            | Self::Conflict
            | Self::Busy
            | Self::Audit => None,
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
