//! Obeying a store's change feed.
//!
//! # What it guarantees
//! * What a notice names is asked for again before its next use.
//! * After a gap anything may have changed: everything is distrusted when the feed is connected again.
//! * While the feed is away, records age as they do without one.
//!
//! A feed that fails or panics is connected anew, after a wait that doubles from 100 ms to 10 s.

use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};

use super::{Authenticator, Core};
use crate::base62;
use crate::decision::StoreError;
use crate::store::{ChangeFeed, Notice};
use crate::text::Causes;

/// After a connection that held, the next one is tried so soon.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Whether a gate is told of changes that other processes make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FeedState {
    /// No feed is followed: records are believed until their TTL.
    #[default]
    NotFollowed,
    /// A feed is followed and not connected: records are believed until their TTL.
    Interrupted,
    /// Changes arrive.
    Connected,
}

/// The feeds a gate follows.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    followed: AtomicUsize,
    connected: AtomicUsize,
}

impl Feeds {
    pub(super) fn state(&self) -> FeedState {
        let (followed, connected) = (self.followed.load(Ordering::Relaxed), self.connected.load(Ordering::Relaxed));
        match followed {
            0 => FeedState::NotFollowed,
            _ if connected >= followed => FeedState::Connected,
            _ => FeedState::Interrupted,
        }
    }
}

/// Counts as followed, or as connected, until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Authenticator {
    pub(super) fn follow<F: ChangeFeed>(&self, mut feed: F) -> impl Future<Output = ()> + Send + use<F> {
        let (core, feeds) = (Arc::downgrade(&self.0), Arc::clone(&self.0.feeds));
        let (clock, ended) = (Arc::clone(&self.0.clock), self.0.life.ended());
        let following = async move {
            let _followed = Counted::new(&feeds.followed);
            let mut wait = FIRST_WAIT;
            // The gate is not held while the feed is waited for.
            let obey = |notice: &Notice| core.upgrade().is_some_and(|core| core.obey(notice));
            loop {
                let began = clock.monotonic();
                let (error, told) = attend(&mut feed, &feeds, obey).await;
                tracing::warn!(cause = %error, "the change feed is interrupted: records are believed until their TTL");
                // A connection that breaks at once is none: each costs every token in use a look-up.
                let held = told || clock.monotonic().since(began) >= LONGEST_WAIT;
                wait = if held { FIRST_WAIT } else { wait };
                clock.sleep(jittered(wait)).await;
                wait = wait.saturating_mul(2).min(LONGEST_WAIT);
            }
        };
        select(Box::pin(following), ended).map(|ended: Either<((), _), _>| drop(ended))
    }
}

/// Between half of a wait and all of it, so that processes which lost the same store do not come back as one.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0];
    // Without randomness all wait alike.
    let share = base62::random_bytes(&mut random).map_or(256, |()| 129 + u32::from(random[0]) / 2);
    wait * share / 256
}

/// Follows one connection to its end, and says whether it has told anything.
async fn attend<F: ChangeFeed>(feed: &mut F, feeds: &Feeds, obey: impl Fn(&Notice) -> bool) -> (String, bool) {
    if let Err(error) = guarded(feed.connect()).await {
        return (error, false);
    }
    let _connected = Counted::new(&feeds.connected);
    // Whatever happened while nobody listened.
    let (mut notice, mut told) = (Notice::All, false);
    loop {
        if !obey(&notice) {
            // The gate is gone, and with it whoever polls this.
            return pending().await;
        }
        notice = match guarded(feed.next()).await {
            Ok(notice) => notice,
            Err(error) => return (error, told),
        };
        told = true;
    }
}

/// A feed that panics has failed.
async fn guarded<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer.map_err(|error| Causes(&error).to_string()),
        Err(_) => Err("the change feed panicked".to_owned()),
    }
}

impl Core {
    /// Always true: a gate that is there has obeyed.
    fn obey(&self, notice: &Notice) -> bool {
        match notice {
            Notice::Token { id, revision } => self.cache.distrust_before(id, *revision),
            Notice::Owner(owner) => self.cache.distrust_owner(owner),
            Notice::All => self.cache.distrust_all(),
        }
        true
    }
}
