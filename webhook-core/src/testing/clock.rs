//! Clocks that tests govern.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Clock, Timestamp};

/// A clock that stands still until it is told otherwise.
#[derive(Debug)]
pub struct ManualClock {
    millis: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { millis: AtomicI64::new(now.as_millis()) }
    }

    /// Puts the clock to `now`, which may be earlier than before.
    pub fn set(&self, now: Timestamp) {
        self.millis.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Puts the clock forward by `span`; the time then.
    pub fn advance(&self, span: Duration) -> Timestamp {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let forward = |millis: i64| Timestamp::from_millis(millis.saturating_add(span)).as_millis();
        match self.millis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |millis| Some(forward(millis))) {
            Ok(before) | Err(before) => Timestamp::from_millis(forward(before)),
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

/// A clock that goes with tokio's time: when that is paused or advanced, so is this.
#[derive(Clone, Copy, Debug)]
pub struct PausedClock {
    base: Timestamp,
    start: Instant,
}

impl PausedClock {
    /// A clock that shows `base` now.
    pub fn new(base: Timestamp) -> Self {
        Self { base, start: Instant::now() }
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.base + self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp::from_millis(1_000));
        assert_eq!(clock.now(), Timestamp::from_millis(1_000));
        assert_eq!(clock.advance(Duration::from_millis(500)), Timestamp::from_millis(1_500));
        assert_eq!(clock.now(), Timestamp::from_millis(1_500));
        clock.set(Timestamp::from_millis(7));
        assert_eq!(clock.now(), Timestamp::from_millis(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_paused_clock_follows_tokios_time() {
        let clock = PausedClock::new(Timestamp::from_millis(1_000));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(3_601_000));
    }
}
