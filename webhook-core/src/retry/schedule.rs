use std::sync::Arc;
use std::time::Duration;

use super::{FailedAttempt, MAX_ATTEMPTS, RetryPolicy, RetryPolicyError, check_step};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The steps of the default schedule, in seconds.
const DEFAULT: [u64; 11] =
    [5, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 24 * HOUR];

/// A fixed list of steps: `n` delays make `n + 1` attempts.
///
/// Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Arc<[Duration]>);

impl RetrySchedule {
    /// Waits each of `delays` in turn; with none, the first attempt is the only one.
    ///
    /// # Errors
    ///
    /// There are more than 100 delays, or one is longer than 30 days.
    pub fn new(delays: impl IntoIterator<Item = Duration>) -> Result<Self, RetryPolicyError> {
        let delays: Arc<[Duration]> = delays.into_iter().collect();
        if delays.len() >= MAX_ATTEMPTS as usize {
            return Err(RetryPolicyError::TooManyDelays { count: delays.len() });
        }
        delays.iter().try_for_each(|delay| check_step(*delay))?;
        Ok(Self(delays))
    }

    /// The delays, in order.
    pub fn delays(&self) -> &[Duration] {
        &self.0
    }
}

impl Default for RetrySchedule {
    /// Twelve attempts over about three days: after 5 and 30 seconds, 2, 10 and 30 minutes, 1, 3, 6, 12, 24 and again
    /// 24 hours.
    fn default() -> Self {
        Self(DEFAULT.map(Duration::from_secs).into())
    }
}

impl RetryPolicy for RetrySchedule {
    fn max_attempts(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn next_step(&self, failed: &FailedAttempt) -> Option<Duration> {
        let index = usize::try_from(failed.number.saturating_sub(1)).ok()?;
        self.0.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_default_is_twelve_attempts_over_about_three_days() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.max_attempts(), 12);
        let days = schedule.delays().iter().sum::<Duration>().as_secs_f64() / 86_400.0;
        assert!((2.9..3.1).contains(&days), "{days}");
        assert_eq!(RetrySchedule::new(schedule.delays().to_vec()), Ok(schedule));
    }

    #[test]
    fn no_delay_is_one_attempt() {
        let schedule = RetrySchedule::new([]).unwrap();
        assert_eq!(schedule.max_attempts(), 1);
        assert_eq!(schedule.next_step(&FailedAttempt::new(1, ErrorKind::Dns)), None);
    }

    #[test]
    fn refuses_what_is_too_long() {
        let second = Duration::from_secs(1);
        assert!(RetrySchedule::new([second; 100]).is_ok());
        assert_eq!(RetrySchedule::new([second; 101]), Err(RetryPolicyError::TooManyDelays { count: 101 }));
        let step = Duration::from_secs(30 * 86_400 + 1);
        assert_eq!(RetrySchedule::new([second, step]), Err(RetryPolicyError::StepTooLong { step }));
    }
}
