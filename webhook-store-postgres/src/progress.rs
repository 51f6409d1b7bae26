//! What a process remembers between claims.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use webhook_core::Timestamp;

use crate::fan_out;

/// Lost leases are looked for this often.
const RESCUE_INTERVAL: Duration = Duration::from_millis(500);
/// So often the look for lost leases begins at the very beginning.
const RESCUE_SWEEP: Duration = Duration::from_secs(60);
/// Between these it passes over what was over so long ago when all were found: longer than any claim takes to commit.
const RESCUE_SLACK: Duration = Duration::from_secs(60);
/// After a walk that found one target alone, so many claims go without.
const SKIPPED_ALONE: u32 = 8;
/// After a walk that found several, so many: one whose turn only a walk brings waits for a few claims.
const SKIPPED: u32 = 4;
/// So often a claim looks from the very beginning.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// What is due so much earlier than what was seen last is still found: transactions commit late.
const SLACK: Duration = Duration::from_secs(5);
/// Where the oldest has waited longer than that anyway, what comes before it may wait for the next look from the very
/// beginning; claims would rather not step over all that was leased in these seconds.
const SLACK_WHEN_LATE: Duration = Duration::from_millis(200);

/// What a process remembers between claims. All of it only saves work.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    rescued_at: Option<Timestamp>,
    rescue_swept_at: Option<Timestamp>,
    rescue_floor: Option<Timestamp>,
    swept_at: Option<Timestamp>,
    floor: Option<Timestamp>,
    /// The floor is close to what a claim saw that was late.
    late: bool,
    /// Claims that still go without a walk.
    alone: u32,
    /// Deliveries in a fan-out, on average of those seen last; 0 before any was seen.
    crowd: u32,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From where on to look for lost leases, when it is time to.
    pub(crate) fn rescue(&self, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state();
        if !is_over(state.rescued_at, RESCUE_INTERVAL, now) {
            return None;
        }
        state.rescued_at = Some(now);
        let known = state.rescue_floor.filter(|_| !is_over(state.rescue_swept_at, RESCUE_SWEEP, now));
        if known.is_none() {
            (state.rescue_swept_at, state.rescue_floor) = (Some(now), None);
        }
        Some(known.unwrap_or(Timestamp::EPOCH))
    }

    /// Those that were over by then were found, or some are left.
    pub(crate) fn rescued(&self, now: Timestamp, more: bool) {
        let mut state = self.state();
        match more {
            true => (state.rescued_at, state.rescue_floor) = (None, None),
            false => state.rescue_floor = Some(now - RESCUE_SLACK),
        }
    }

    /// Where to begin to look.
    pub(crate) fn floor(&self, now: Timestamp) -> Timestamp {
        let mut state = self.state();
        if is_over(state.swept_at, SWEEP_INTERVAL, now) {
            // The floor stays for the claims after one that does not get through from there.
            state.swept_at = Some(now);
            return Timestamp::EPOCH;
        }
        state.floor.unwrap_or(Timestamp::EPOCH)
    }

    /// Whether something may be due before the floor that is late too: others had it locked, or let it go.
    pub(crate) fn may_hide(&self, floor: Timestamp) -> bool {
        floor > Timestamp::EPOCH && self.state().late
    }

    /// So many fan-outs have about so many deliveries.
    pub(crate) fn fan_outs(&self, deliveries: i64) -> i64 {
        let crowd = match self.state().crowd {
            0 => fan_out::LEAST as i64,
            seen => i64::from(seen),
        };
        (deliveries + crowd - 1) / crowd
    }

    /// Those seen had so many deliveries.
    pub(crate) fn saw_fan_outs(&self, fan_outs: usize, deliveries: usize) {
        self.state().crowd = u32::try_from(deliveries / fan_outs.max(1)).unwrap_or(u32::MAX).max(1);
    }

    /// Whether a claim may go without a walk: there was one a few claims ago.
    pub(crate) fn skips_walk(&self) -> bool {
        let mut state = self.state();
        let skips = state.alone > 0;
        state.alone = state.alone.saturating_sub(1);
        skips
    }

    /// A walk over everything there is found so many targets with something due.
    pub(crate) fn walked(&self, targets: usize) {
        self.state().alone = if targets <= 1 { SKIPPED_ALONE } else { SKIPPED };
    }

    /// Nothing is due before `oldest`, or before `now` if nothing is due at all.
    pub(crate) fn saw(&self, oldest: Option<Timestamp>, now: Timestamp) {
        let oldest = oldest.unwrap_or(now);
        let late = now.since(oldest) > SLACK;
        let slack = if late { SLACK_WHEN_LATE } else { SLACK };
        let mut state = self.state();
        (state.floor, state.late) = (Some(oldest - slack), late);
    }
}

fn is_over(last: Option<Timestamp>, interval: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| now < last || now.since(last) >= interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn lost_leases_are_looked_for_from_the_beginning_now_and_then_and_whenever_some_were_left() {
        let progress = Progress::default();
        assert_eq!(progress.rescue(at(0)), Some(Timestamp::EPOCH));
        progress.rescued(at(0), false);
        assert_eq!(progress.rescue(at(499)), None);
        assert_eq!(progress.rescue(at(500)), Some(at(0) - RESCUE_SLACK));
        progress.rescued(at(500), true);
        assert_eq!(progress.rescue(at(501)), Some(Timestamp::EPOCH));
        // This one failed: nothing is known of what it would have found.
        assert_eq!(progress.rescue(at(1_001)), Some(Timestamp::EPOCH));
        progress.rescued(at(1_001), false);
        assert_eq!(progress.rescue(at(60_000)), Some(at(1_001) - RESCUE_SLACK));
        progress.rescued(at(60_000), false);
        assert_eq!(progress.rescue(at(61_001)), Some(Timestamp::EPOCH));
        progress.rescued(at(61_001), false);
        // The clock went back.
        assert_eq!(progress.rescue(at(30_000)), Some(Timestamp::EPOCH));
    }
}
