//! The gaps the writer leaves for other writers on the same file.

use std::time::Duration;

use tokio::time::Instant;

/// How long the writer counts on another writer after it has seen one.
const MEMORY: Duration = Duration::from_secs(10);
/// How often it looks for one.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Timers are no finer.
const SHORTEST_GAP: Duration = Duration::from_millis(1);
/// More is never owed: a batch that took long must not be followed by a long silence.
const LONGEST_GAP: Duration = Duration::from_millis(50);

/// Longer than SQLite's busy handler ever waits before it asks again: whoever waits for the lock gets it meanwhile.
const REST: Duration = Duration::from_millis(110);
/// So much more work than idle time makes tired; a writer that is never idle rests before the usual busy timeout of 5 s.
const TIRED: Duration = Duration::from_millis(2500);

/// Makes one batch after the other leave a part of the time to others.
///
/// SQLite's busy handler asks again at intervals of up to 100 ms and knows no queue: a writer that takes the lock again
/// at once would starve everybody else. The gap owed is 1/16 of the time worked, 1/4 while somebody else writes; that
/// lets others in soon, but only probably. Where others have written, a rest now and then makes it certain. Time without
/// work counts for both, so only a writer that is hardly ever idle waits at all.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    owed: Duration,
    strain: Duration,
    idle_since: Option<Instant>,
    data_version: Option<i64>,
    looked: Option<Instant>,
    others: Option<Instant>,
}

impl Pace {
    /// Waits until the next batch may begin.
    pub(crate) async fn leave_gap(&mut self) {
        let Some(idle_since) = self.idle_since else { return };
        let tired = self.others.is_some() && self.strain >= TIRED;
        let gap = if tired { REST } else { self.owed }.saturating_sub(idle_since.elapsed());
        if gap >= SHORTEST_GAP {
            tokio::time::sleep(gap).await;
        }
        let idle = idle_since.elapsed();
        self.owed = self.owed.saturating_sub(idle);
        self.strain = if idle >= REST { Duration::ZERO } else { self.strain.saturating_sub(idle) };
    }

    /// A batch that began at `began` is over.
    pub(crate) fn worked(&mut self, began: Instant) {
        let now = Instant::now();
        let crowded = self.others.is_some_and(|seen| now - seen < MEMORY);
        let share = if crowded { 4 } else { 16 };
        self.owed = (self.owed + (now - began) / share).min(LONGEST_GAP);
        self.strain += now - began;
        self.idle_since = Some(now);
    }

    /// It is time to look at `PRAGMA data_version` again.
    pub(crate) fn wants_look(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY)
    }

    /// `PRAGMA data_version`, which changes when another connection has written.
    pub(crate) fn saw(&mut self, data_version: i64) {
        let now = Instant::now();
        self.looked = Some(now);
        if self.data_version.replace(data_version).is_some_and(|before| before != data_version) {
            self.others = Some(now);
        }
    }

    /// The connection was replaced, and its `data_version` counts anew.
    pub(crate) fn forget_version(&mut self) {
        self.data_version = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn work(pace: &mut Pace, span: Duration) -> Duration {
        let idle = Instant::now();
        pace.leave_gap().await;
        let gap = idle.elapsed();
        let began = Instant::now();
        tokio::time::sleep(span).await;
        pace.worked(began);
        gap
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_writer_leaves_a_sixteenth_and_a_quarter_when_others_write() {
        let mut pace = Pace::default();
        let mut gaps = Duration::ZERO;
        for _ in 0..100 {
            gaps += work(&mut pace, Duration::from_millis(8)).await;
        }
        assert!((40..=60).contains(&gaps.as_millis()), "{gaps:?} in 800 ms");
        pace.saw(1);
        pace.saw(2);
        gaps = Duration::ZERO;
        for _ in 0..100 {
            gaps += work(&mut pace, Duration::from_millis(8)).await;
        }
        assert!((180..=220).contains(&gaps.as_millis()), "{gaps:?} in 800 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_is_never_idle_rests_long_enough_for_anyone_who_waits() {
        let (mut pace, began, mut rests) = (Pace::default(), Instant::now(), 0);
        pace.saw(1);
        pace.saw(2);
        while began.elapsed() < Duration::from_secs(10) {
            let gap = work(&mut pace, Duration::from_millis(8)).await;
            rests += u32::from(gap > Duration::from_millis(100));
        }
        assert_eq!(rests, 2, "the first ones while the gaps are a quarter");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_is_alone_or_often_idle_never_rests() {
        let mut pace = Pace::default();
        for _ in 0..1000 {
            assert!(work(&mut pace, Duration::from_millis(8)).await < Duration::from_millis(5), "alone");
        }
        let mut pace = Pace::default();
        pace.saw(1);
        pace.saw(2);
        for _ in 0..1000 {
            assert!(work(&mut pace, Duration::from_millis(8)).await < Duration::from_millis(50), "idle");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_pays_off_what_is_owed() {
        let mut pace = Pace::default();
        work(&mut pace, Duration::from_millis(100)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(work(&mut pace, Duration::from_millis(1)).await, Duration::ZERO);
    }
}
