//! What is better done before somebody waits for it, or while nobody does.
//!
//! A token in use whose record nears its TTL is *due*. The hot path says so, once for each record, and goes on; the
//! background asks the store meanwhile. Nothing depends on it: where it does not run, or has too much to do, the first
//! request after the TTL asks and waits.
//!
//! The background also does the gate's [upkeep](super::upkeep).

use std::future::Future;
use std::sync::{Arc, Weak};
#[cfg(feature = "metrics")]
use std::time::Duration;

use async_channel::{Receiver, Sender, TrySendError};
use futures_util::StreamExt;
use futures_util::future::{Either, join4, select};

#[cfg(feature = "metrics")]
use super::AuthHandle;
use super::attendance::Attendance;
use super::upkeep::Attending;
use super::{Authenticator, Core, chores};
use crate::clock::Clock;
use crate::id::TokenId;

/// How many due tokens may wait for the background. One that finds no room waits for its TTL instead.
const WAITING: usize = 1_024;

/// Tokens that are due, on their way to the background.
pub(super) struct Due {
    sender: Sender<TokenId>,
    receiver: Receiver<TokenId>,
    attendance: Arc<Attendance>,
    /// Whether the application counts on the background.
    wanted: bool,
}

impl Due {
    pub(super) fn new(wanted: bool, attendance: Arc<Attendance>) -> Self {
        let (sender, receiver) = async_channel::bounded(WAITING);
        Self { sender, receiver, attendance, wanted }
    }

    /// Tells the background, if it runs.
    pub(super) fn tell(&self, id: TokenId) {
        if self.attendance.is_running() {
            // A full queue is no reason to wait.
            let _: Result<(), TrySendError<TokenId>> = self.sender.try_send(id);
        } else if self.wanted {
            self.attendance.miss();
        }
    }
}

impl Authenticator {
    /// Does what is due until the gate is gone or shut down, and then writes last uses once more. Holds nothing that
    /// keeps the gate alive.
    pub(crate) fn background(&self) -> impl Future<Output = ()> + Send + use<> {
        let core = &self.0;
        let (weak, due, limit) = (Arc::downgrade(core), core.due.receiver.clone(), core.refreshes);
        let (upkeep, ended) = (Arc::clone(&core.upkeep), core.life.ended());
        let clock = Arc::clone(&core.clock);
        async move {
            let _attending = Attending::new(&upkeep);
            let work = join4(
                due.for_each_concurrent(limit, |id| refresh(Weak::clone(&weak), id)),
                upkeep.flush_regularly(),
                chores::work(Weak::clone(&weak), Arc::clone(&upkeep)),
                publish(Weak::clone(&weak), clock),
            );
            match select(Box::pin(work), ended).await {
                Either::Left(_) | Either::Right(_) => {}
            }
            upkeep.flush().await;
        }
    }
}

async fn refresh(core: Weak<Core>, id: TokenId) {
    // The gate is not held while the store is waited for.
    let Some(lookup) = core.upgrade().and_then(|core| core.lookups.refresh(&id)) else { return };
    if let (Err(cause), Some(core)) = (lookup.await, core.upgrade()) {
        core.excuse(&id, cause);
    }
}

/// Publishes the gate's numbers from time to time, as long as there is a gate.
#[cfg(feature = "metrics")]
async fn publish(core: Weak<Core>, clock: Arc<dyn Clock>) {
    const EVERY: Duration = Duration::from_secs(10);
    while let Some(core) = core.upgrade() {
        AuthHandle(Authenticator(core)).publish_metrics();
        clock.sleep(EVERY).await;
    }
}

#[cfg(not(feature = "metrics"))]
async fn publish(_: Weak<Core>, _: Arc<dyn Clock>) {
    std::future::pending::<()>().await;
}
