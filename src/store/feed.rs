//! What a store tells of its changes, so that a gate need not wait for its records to age.

use std::future::Future;

use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::token::Revision;

/// Something has changed in the store.
///
/// It can only make a gate ask the store again: a notice that is wrong, doubled or forged costs look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// One token, which has this revision now where the feed tells it: a gate that has seen it already does nothing.
    Token {
        /// Which token.
        id: TokenId,
        /// Its revision after the change.
        revision: Option<Revision>,
    },
    /// All tokens of an owner.
    Owner(OwnerId),
    /// Anything.
    All,
}

/// Tells of the changes that any process makes in a store.
///
/// An implementor *must* tell of every change made after [`connect`](Self::connect) has returned, *must* answer an
/// error from [`next`](Self::next) once it can no longer be sure of that (a lost connection, a gap), and *must* notice
/// by itself when the other side is silently gone. It *may* tell of a change twice, late by less than its documented
/// bound, or of more than has changed.
pub trait ChangeFeed: Send + 'static {
    /// Connects, or connects again.
    ///
    /// # Errors
    /// [`StoreError`] when there is no connection; it is tried again after a while.
    fn connect(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Waits for the next change.
    ///
    /// # Errors
    /// [`StoreError`] when changes may be missed from here on: the feed is connected anew.
    fn next(&mut self) -> impl Future<Output = Result<Notice, StoreError>> + Send;
}
