use std::time::Duration;

use super::{FailedAttempt, MAX_ATTEMPTS, RetryPolicy, RetryPolicyError, check_step};

/// Doubles the step after each failure, up to a longest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExponentialBackoff {
    initial: Duration,
    max: Duration,
    max_attempts: u32,
}

impl ExponentialBackoff {
    /// Waits `initial` after the first failure and twice as long after each further one, but never longer than
    /// `max`; makes `max_attempts` attempts in all.
    ///
    /// # Errors
    ///
    /// `initial` is zero or above `max`, `max` is above 30 days, or `max_attempts` is not between 1 and 101.
    pub fn new(initial: Duration, max: Duration, max_attempts: u32) -> Result<Self, RetryPolicyError> {
        check_step(max)?;
        if initial.is_zero() {
            return Err(RetryPolicyError::ZeroInitial);
        }
        if initial > max {
            return Err(RetryPolicyError::InitialAboveMax { initial, max });
        }
        if !(1..=MAX_ATTEMPTS).contains(&max_attempts) {
            return Err(RetryPolicyError::AttemptsOutOfRange { max_attempts });
        }
        Ok(Self { initial, max, max_attempts })
    }

    /// The step after the first failure.
    pub const fn initial(&self) -> Duration {
        self.initial
    }

    /// The longest step.
    pub const fn max(&self) -> Duration {
        self.max
    }
}

impl Default for ExponentialBackoff {
    /// Six attempts, with steps from 10 seconds up to at most 15 minutes.
    fn default() -> Self {
        Self { initial: Duration::from_secs(10), max: Duration::from_secs(900), max_attempts: 6 }
    }
}

impl RetryPolicy for ExponentialBackoff {
    fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    fn next_step(&self, failed: &FailedAttempt) -> Option<Duration> {
        if failed.number >= self.max_attempts {
            return None;
        }
        let doubled = 2_u32
            .checked_pow(failed.number.saturating_sub(1))
            .and_then(|factor| self.initial.checked_mul(factor))
            .unwrap_or(self.max);
        Some(doubled.min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be() {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        assert_eq!(ExponentialBackoff::new(Duration::ZERO, day, 3), Err(RetryPolicyError::ZeroInitial));
        assert_eq!(
            ExponentialBackoff::new(day, second, 3),
            Err(RetryPolicyError::InitialAboveMax { initial: day, max: second })
        );
        assert_eq!(ExponentialBackoff::new(second, day * 31, 3), Err(RetryPolicyError::StepTooLong { step: day * 31 }));
        for max_attempts in [0, 102] {
            assert_eq!(
                ExponentialBackoff::new(second, day, max_attempts),
                Err(RetryPolicyError::AttemptsOutOfRange { max_attempts })
            );
        }
    }

    #[test]
    fn the_default_can_be() {
        let ExponentialBackoff { initial, max, max_attempts } = ExponentialBackoff::default();
        assert_eq!(ExponentialBackoff::new(initial, max, max_attempts), Ok(ExponentialBackoff::default()));
    }
}
