//! Tells the time through a trait, so that tests and the simulator can be the ones who tell it.
//!
//! Only wall time: timers are tokio's, whose clock tests pause. [`RuntimeClock`] joins the two.

pub use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A source of wall time.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Nanoseconds since 1970; zero for times before it.
    fn unix_nanos(&self) -> u64 {
        u64::try_from(self.now().as_nanosecond()).unwrap_or_default()
    }

    /// The time of day cut to whole seconds, as API objects carry it.
    fn now_seconds(&self) -> Timestamp {
        let now = self.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// How long to wait so that what is done every `period` is done at whole seconds of the clock. Many machines whose
    /// clocks agree then wake a server, and its disk, once in a second and not once each. Periods of which half a
    /// second would be much are left as they are.
    fn until_beat(&self, period: Duration) -> Duration {
        const SECOND: u64 = 1_000_000_000;
        if period < LEAST_WITH_BEAT {
            return period;
        }
        let now = self.unix_nanos();
        let then = now.saturating_add(u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
        let beat = then.saturating_add(SECOND / 2) / SECOND * SECOND;
        Duration::from_nanos(beat.saturating_sub(now))
    }
}

/// The shortest period that is drawn to whole seconds.
const LEAST_WITH_BEAT: Duration = Duration::from_secs(5);

/// The machine's clock, shared.
pub fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    pub fn new(start: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new(start)))
    }

    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = now;
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *now = now.saturating_add(by).unwrap_or(Timestamp::MAX);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A clock that moves with tokio's, so that a test with paused time sees wall time and timers agree.
#[derive(Debug)]
pub struct RuntimeClock {
    start: Timestamp,
    origin: tokio::time::Instant,
}

impl RuntimeClock {
    /// Tells `start` now and moves on with tokio's clock.
    pub fn new(start: Timestamp) -> Arc<Self> {
        Arc::new(Self { start, origin: tokio::time::Instant::now() })
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        self.start.saturating_add(self.origin.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_500).unwrap()
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(start());
        assert_eq!(clock.now(), start());
        clock.advance(Duration::from_millis(600));
        assert_eq!(clock.now_seconds().to_string(), "2023-11-14T22:13:21Z");
        assert_eq!(clock.unix_nanos(), 1_700_000_001_100_000_000);
    }

    #[test]
    fn what_is_periodic_meets_at_whole_seconds() {
        let clock = ManualClock::new(start());
        for (late_by, period, expected) in [
            // From half past, the next whole second; from then on each period.
            (0, 10_000, 10_500),
            (500, 10_000, 10_000),
            // Who wakes a little late or early does not lose the beat.
            (503, 10_000, 9_997),
            (499, 10_000, 10_001),
            (500, 7_300, 7_000),
            (503, 250, 250),
            (503, 4_999, 4_999),
        ] {
            clock.set(start() + Duration::from_millis(late_by));
            let waits = clock.until_beat(Duration::from_millis(period));
            assert_eq!(waits, Duration::from_millis(expected), "{late_by} ms after, every {period} ms");
        }
        assert!(clock.until_beat(Duration::MAX) > Duration::from_secs(1 << 33));
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_clock_follows_paused_time() {
        let clock = RuntimeClock::new(start());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now_seconds().as_second(), start().as_second() + 2);
    }
}
