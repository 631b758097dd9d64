//! Time as an input: wall clock, monotonic clock and timers.
//!
//! Expiry is judged by the wall clock, because people write dates; freshness by the monotonic one, because a
//! stepped wall clock must never make a stale record fresh. Everything that asks for the time asks a [`Clock`],
//! so tests turn it by hand (`ManualClock` in `test_util`) and no runtime is assumed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point of wall-clock time, in whole milliseconds since 1970-01-01T00:00:00Z.
///
/// Readings before 1970 become 1970, readings after the year 9999 its last millisecond, so every timestamp has an
/// RFC 3339 form, which is what [`Display`](fmt::Display) prints.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::Timestamp;
///
/// let noon = Timestamp::from_unix_millis(1_760_000_000_000);
/// assert_eq!(noon.to_string(), "2025-10-09T08:53:20.000Z");
/// assert!(noon + Duration::from_secs(1) > noon);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Self {
        if millis > Self::MAX.0 { Self::MAX } else { Self(millis) }
    }

    /// `seconds` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self::from_unix_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at [`Timestamp::MAX`].
    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self::from_unix_millis(self.0.saturating_add(millis))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the Unix epoch.
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(0) + time.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(timestamp.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis((*self).into()).fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A length of time in the largest unit that leaves no rest: `90d`, `36h`, `1500ms`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let millis = self.0.as_millis();
        let (length, name) = UNITS.into_iter().find(|(unit, _)| millis % *unit == 0).unwrap_or((1, "ms"));
        write!(f, "{}{name}", millis / length)
    }
}

/// A reading of a clock that never goes back: the time since that clock's own, arbitrary start.
///
/// In nanoseconds; it stands still after the 584 years that these last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// A reading `elapsed` after the clock's start.
    #[must_use]
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(nanos(elapsed))
    }

    /// The time from `earlier` to `self`, zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

impl fmt::Debug for Monotonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monotonic({:?})", Duration::from_nanos(self.0))
    }
}

impl std::ops::Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Monotonic,
}

impl Moment {
    /// Before all that anybody reads.
    pub(crate) const START: Self =
        Self { wall: Timestamp::from_unix_millis(0), monotonic: Monotonic::from_start(Duration::ZERO) };

    #[inline(always)]
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        let (wall, monotonic) = clock.now();
        Self { wall, monotonic }
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self { wall: self.wall + duration, monotonic: self.monotonic + duration }
    }
}

/// A timer returned by [`Clock::sleep`]: resolves once, after the asked time.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the crate learns what time it is.
///
/// An implementor *must* never let [`monotonic`](Clock::monotonic) go back and *may* be coarse by up to 10 ms;
/// timers may be late, never early.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall-clock time, by which expiry is judged.
    fn wall(&self) -> Timestamp;

    /// A monotonic reading, by which freshness is judged.
    fn monotonic(&self) -> Monotonic;

    /// Both readings, as [`wall`](Clock::wall) and [`monotonic`](Clock::monotonic) give them: asked for once by a request. To
    /// be overridden only where one reading gives both.
    fn now(&self) -> (Timestamp, Monotonic) {
        (self.wall(), self.monotonic())
    }

    /// A future that resolves when `duration` has passed.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The machine's clocks, with timers that need no async runtime.
///
/// On Linux the clocks are the kernel's coarse ones, which lag by one of its ticks: 1 to 10 ms, as it was built. A token
/// may work that much longer. Reading one costs a fifth of reading a precise one, and the hot path reads both.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Monotonic,
}

impl SystemClock {
    /// A clock whose monotonic readings start now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: machine::monotonic() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline(always)]
    fn wall(&self) -> Timestamp {
        machine::wall()
    }

    #[inline(always)]
    fn monotonic(&self) -> Monotonic {
        Monotonic(machine::monotonic().0.saturating_sub(self.start.0))
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(futures_timer::Delay::new(duration))
    }
}

/// The one place that reads the machine's clocks.
#[cfg(target_os = "linux")]
mod machine {
    use nix::time::{ClockId, clock_gettime};

    use crate::clock::{Monotonic, Timestamp};

    pub(super) fn wall() -> Timestamp {
        let (seconds, nanos) = read(ClockId::CLOCK_REALTIME_COARSE);
        Timestamp::from_unix_millis(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000))
    }

    /// Since an arbitrary point, the same for the whole process.
    pub(super) fn monotonic() -> Monotonic {
        let (seconds, nanos) = read(ClockId::CLOCK_MONOTONIC_COARSE);
        Monotonic(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// Seconds, and nanoseconds less than one. Every kernel since 2.6.32 has these clocks; on one that has not, time
    /// stands still at zero, as on a machine without a clock.
    #[inline(always)]
    fn read(clock: ClockId) -> (u64, u64) {
        let time = clock_gettime(clock).map(|time| (time.tv_sec(), time.tv_nsec())).unwrap_or_default();
        (u64::try_from(time.0).unwrap_or(0), u64::try_from(time.1).unwrap_or(0))
    }
}

/// The one place that reads the machine's clocks.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clocks")]
mod machine {
    use std::sync::OnceLock;
    use std::time::{Instant, SystemTime};

    use crate::clock::{Monotonic, Timestamp};

    pub(super) fn wall() -> Timestamp {
        SystemTime::now().into()
    }

    /// Since an arbitrary point, the same for the whole process.
    pub(super) fn monotonic() -> Monotonic {
        static START: OnceLock<Instant> = OnceLock::new();
        Monotonic::from_start(START.get_or_init(Instant::now).elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_saturate_instead_of_wrapping() {
        assert_eq!(Timestamp::from_unix_millis(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_unix_seconds(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(9)).unix_millis(), 0);
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is tested is that the coarse clock is near the precise one")]
    fn the_machines_clocks_lag_by_no_more_than_a_tick_and_never_go_back() {
        let clock = SystemClock::new();
        let (mut last, tick) = (clock.monotonic(), Duration::from_millis(10));
        for _ in 0..10_000 {
            // Read between two readings of the coarse clock, so that being interrupted proves nothing.
            let earliest = clock.wall();
            let precise = Timestamp::from(SystemTime::now());
            assert!(earliest <= precise, "{earliest} {precise}");
            assert!(precise <= clock.wall() + tick, "{precise}");
            assert!(last <= clock.monotonic());
            last = clock.monotonic();
        }
    }

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Timestamp::from_unix_millis(5), Timestamp::from_unix_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn a_span_is_told_in_its_largest_whole_unit() {
        for (millis, text) in [(0, "0d"), (1, "1ms"), (1500, "1500ms"), (60_000, "1m"), (129_600_000, "36h")] {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
        assert_eq!(Span(Duration::from_secs(90 * 86_400)).to_string(), "90d");
    }

    #[test]
    fn a_time_before_the_epoch_is_the_epoch() {
        let noon = Timestamp::from_unix_seconds(100);
        assert_eq!(noon - Duration::from_secs(40), Timestamp::from_unix_seconds(60));
        assert_eq!(noon - Duration::MAX, Timestamp::from_unix_seconds(0));
    }
}
