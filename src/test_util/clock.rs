//! A clock that is turned by hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::lock;
use crate::clock::{Clock, Monotonic, Sleep, Timestamp};

/// A clock that stands still until it is turned. A clone is another handle to the same clock.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{Clock, test_util::ManualClock};
///
/// let clock = ManualClock::default();
/// let (wall, monotonic) = (clock.wall(), clock.monotonic());
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.wall().since(wall), Duration::from_secs(5));
/// clock.step_wall(wall);
/// assert_eq!(clock.monotonic().since(monotonic), Duration::from_secs(5), "only the wall clock was stepped");
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    /// Time since the clock's start: the monotonic reading.
    elapsed: Duration,
    /// What the wall clock was set to, and `elapsed` at that moment: kept apart so that no part of a millisecond is lost.
    wall_set: (Timestamp, Duration),
    /// Timers that have been polled and are not due, by deadline and number.
    sleepers: BTreeMap<Deadline, Waker>,
    next_number: u64,
}

/// The `elapsed` at which a timer is due, and a number that tells timers of one deadline apart.
type Deadline = (Duration, u64);

impl ManualClock {
    /// Where the default clock stands: 2026-01-01T00:00:00Z.
    pub const START: Timestamp = Timestamp::from_unix_seconds(1_767_225_600);

    /// A clock that shows `wall`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        let wall_set = (wall, Duration::ZERO);
        Self(Arc::new(Mutex::new(Hands {
            elapsed: Duration::ZERO,
            wall_set,
            sleepers: BTreeMap::new(),
            next_number: 0,
        })))
    }

    /// Lets `duration` pass on both clocks and wakes the timers that have become due, the earliest first.
    pub fn advance(&self, duration: Duration) {
        let due = lock(&self.0).advance(duration);
        // Out of the lock: a waker runs other people's code, which may well ask for the time.
        due.into_values().for_each(Waker::wake);
    }

    /// Sets the wall clock, forwards or back, as an administrator or NTP does. No timer moves.
    pub fn step_wall(&self, to: Timestamp) {
        let mut hands = lock(&self.0);
        hands.wall_set = (to, hands.elapsed);
    }

    /// How many timers wait: polled, not due, not dropped.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        lock(&self.0).sleepers.len()
    }
}

impl Default for ManualClock {
    /// A clock that shows [`ManualClock::START`].
    fn default() -> Self {
        Self::new(Self::START)
    }
}

impl Hands {
    /// Moves on, and hands over the wakers of the timers that have become due.
    fn advance(&mut self, duration: Duration) -> BTreeMap<Deadline, Waker> {
        self.elapsed = self.elapsed.saturating_add(duration);
        let later = self.sleepers.split_off(&(self.elapsed, u64::MAX));
        mem::replace(&mut self.sleepers, later)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        let hands = lock(&self.0);
        let (wall, set_at) = hands.wall_set;
        wall + hands.elapsed.saturating_sub(set_at)
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(lock(&self.0).elapsed)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let mut hands = lock(&self.0);
        let deadline = (hands.elapsed.saturating_add(duration), hands.next_number);
        hands.next_number += 1;
        Box::pin(Sleeper { clock: self.clone(), deadline })
    }
}

/// One timer. It is on the clock's list from its first poll until it is due or dropped.
#[derive(Debug)]
struct Sleeper {
    clock: ManualClock,
    deadline: Deadline,
}

impl Future for Sleeper {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut hands = lock(&self.clock.0);
        if self.deadline.0 <= hands.elapsed {
            return Poll::Ready(());
        }
        let replaced = hands.sleepers.insert(self.deadline, waker);
        // In this order: dropping a waker may drop a task, and with it another timer, which locks the clock.
        drop(hands);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let waker = lock(&self.clock.0).sleepers.remove(&self.deadline);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::task::noop_waker_ref;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn poll(sleep: &mut Sleep) -> Poll<()> {
        sleep.poll_unpin(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn a_timer_is_due_at_its_deadline_and_not_before() {
        let clock = ManualClock::default();
        let mut timer = clock.sleep(SECOND);
        assert_eq!(poll(&mut timer), Poll::Pending);
        clock.advance(SECOND - Duration::from_nanos(1));
        assert_eq!(poll(&mut timer), Poll::Pending);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(clock.sleepers(), 0, "a due timer leaves the list");
        assert_eq!(poll(&mut timer), Poll::Ready(()));
        assert_eq!(poll(&mut clock.sleep(Duration::ZERO)), Poll::Ready(()));
    }

    #[test]
    fn a_timer_runs_from_when_it_was_made() {
        let clock = ManualClock::default();
        let mut timer = clock.sleep(SECOND);
        clock.advance(SECOND);
        assert_eq!(poll(&mut timer), Poll::Ready(()));
    }

    #[tokio::test]
    async fn turning_the_clock_wakes_a_waiting_task() {
        let clock = ManualClock::default();
        let task = tokio::spawn(clock.sleep(SECOND));
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(SECOND);
        task.await.unwrap();
    }

    #[test]
    fn a_dropped_timer_leaves_nothing_behind() {
        let clock = ManualClock::default();
        let (mut kept, mut dropped) = (clock.sleep(SECOND), clock.sleep(SECOND));
        assert!(poll(&mut kept).is_pending() && poll(&mut dropped).is_pending());
        assert_eq!(clock.sleepers(), 2);
        drop(dropped);
        assert_eq!(clock.sleepers(), 1);
    }

    #[test]
    fn a_stepped_wall_clock_moves_no_timer_and_goes_on_from_there() {
        let clock = ManualClock::default();
        let (mut timer, start) = (clock.sleep(SECOND), clock.monotonic());
        clock.step_wall(Timestamp::MAX);
        assert_eq!(clock.monotonic(), start);
        assert_eq!(poll(&mut timer), Poll::Pending);
        clock.step_wall(Timestamp::from_unix_seconds(5));
        clock.advance(Duration::from_micros(500));
        clock.advance(Duration::from_micros(500));
        assert_eq!(clock.wall(), Timestamp::from_unix_millis(5001));
    }
}
