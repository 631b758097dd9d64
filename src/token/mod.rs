//! A token in its two forms: the plaintext its holder has, the record a store keeps.
//!
//! They are two types on purpose: what is stored can be shown and copied, what is shown once can not.

mod attributes;
mod created_by;
mod noted;
mod plaintext;
mod record;
mod tag;

pub use attributes::{AttributeError, Attributes};
pub use created_by::{CreatedBy, CreatedByError};
pub(crate) use noted::Noted;
pub(crate) use plaintext::{CHECKSUM_LEN, Cut, ParsedToken, SEALED_LEN, Seal, ShapeError};
pub use plaintext::{PlaintextToken, Prefix, PrefixError};
pub(crate) use record::{DeadReason, Version, check_live};
pub use record::{LastUsed, RetiringSecret, Revision, SecretSlot, TokenRecord, TokenState, TokenStateError};
pub(crate) use tag::Tag;
