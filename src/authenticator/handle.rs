//! What an application tells a gate, and learns of it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join, select};

use super::{Authenticator, Stats};
use crate::audit::Unflushed;
use crate::id::{OwnerId, TokenId};
use crate::store::ChangeFeed;

/// Tells a gate, and all clones of it, that something has changed. Cheap to clone.
///
/// When one of its methods has returned, nothing that this gate read before is believed, even if a look-up was under
/// way: the next use of the token asks the store. Secrets that were proved stay proved, so that costs a look-up, not a
/// hash. All methods are synchronous, wait for no I/O, and can be called from anywhere.
///
/// An issuer made by the layer's `issuer` tells its gate by itself. A handle is for changes made elsewhere.
///
/// # Example
/// ```
/// use tower_token_auth::{MemoryStore, TokenAuthLayer, TokenId};
///
/// let layer = TokenAuthLayer::new(MemoryStore::new());
/// let handle = layer.handle();
/// // Another process has revoked this token:
/// handle.invalidate(&TokenId::generate()?);
/// # Ok::<(), tower_token_auth::RandomError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AuthHandle(pub(super) Authenticator);

impl AuthHandle {
    /// One token has changed: was revoked, paused, rotated, or created under an id that was unknown.
    pub fn invalidate(&self, id: &TokenId) {
        self.0.distrust(id);
    }

    /// All tokens of one owner have changed, such as when the owner was barred.
    ///
    /// # Cost
    /// Walks over all remembered tokens, and makes every look-up under way start anew.
    pub fn invalidate_owner(&self, owner: &OwnerId) {
        self.0.distrust_owner(owner);
    }

    /// Anything may have changed.
    ///
    /// # Cost
    /// Walks over all remembered tokens; each costs a look-up before its next use.
    pub fn invalidate_all(&self) {
        self.0.distrust_all();
    }

    /// Obeys a store's change feed: what other processes change is asked for again before its next use. Spawn the
    /// future beside the server; it ends with the gate, or at [`shutdown`](Self::shutdown).
    ///
    /// A feed that fails is connected anew, and after a gap everything is distrusted. While it is away, records are
    /// believed until their TTL; [`Stats::feed`] tells.
    ///
    /// # Cancellation
    /// Dropped, the gate is told nothing any more, and says so in its [`stats`](Self::stats).
    pub fn follow<F: ChangeFeed>(&self, feed: F) -> impl Future<Output = ()> + Send + use<F> {
        self.0.follow(feed)
    }

    /// What the gate has done and holds.
    ///
    /// # Cost
    /// Reads some dozens of counters and takes two short locks (the crew's, an audit queue's): cheap enough for every
    /// request, and meant for a scrape.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Ends [`background`](crate::TokenAuthLayer::background) and every [`follow`](Self::follow), writes the tokens' last
    /// uses, and waits until the audit events of before are written, at most for `deadline`. The gate goes on judging.
    ///
    /// # Errors
    /// [`Unflushed`] with what waits when the deadline has passed, or when the store did not take the last uses: a
    /// second call tries again.
    ///
    /// # Cancellation
    /// Dropped, the events are written all the same if the process lives on. The last uses wait for another call.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), Unflushed> {
        let core = &self.0.0;
        core.attendance.retire();
        core.life.end();
        let both = join(core.recorder.flush(), core.upkeep.flush());
        let uses = || core.upkeep.waiting() as u64;
        match select(pin!(both), core.clock.sleep(deadline)).await {
            Either::Left((((), true), _)) => Ok(()),
            Either::Left((((), false), _)) => Err(Unflushed::new(0, uses())),
            Either::Right(_) => Err(Unflushed::new(core.recorder.stats().queued, uses())),
        }
    }
}
