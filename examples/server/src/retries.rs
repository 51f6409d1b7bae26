//! The retry policy of subscriptions without their own.

use std::sync::Arc;
use std::time::Duration;

use webhook_core::{ExponentialBackoff, RetryPolicy, RetryPolicyError, RetrySchedule};

use crate::flags::Flags;

const RETRIES: u32 = 5;
const INITIAL: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(900);

/// The schedule where one is given; else exponential steps where anything about them is; else the default schedule.
pub(crate) fn policy(flags: &Flags) -> Result<Arc<dyn RetryPolicy>, RetryPolicyError> {
    if let Some(delays) = &flags.retry_schedule {
        return Ok(Arc::new(RetrySchedule::new(delays.0.iter().copied())?));
    }
    if flags.max_retries.is_none() && flags.retry_initial.is_none() && flags.retry_max.is_none() {
        return Ok(Arc::new(RetrySchedule::default()));
    }
    // What is not given makes room for what is.
    let initial = flags.retry_initial.unwrap_or_else(|| INITIAL.min(flags.retry_max.unwrap_or(INITIAL)));
    let longest = flags.retry_max.unwrap_or_else(|| LONGEST.max(initial));
    let attempts = flags.max_retries.unwrap_or(RETRIES).saturating_add(1);
    Ok(Arc::new(ExponentialBackoff::new(initial, longest, attempts)?))
}

#[cfg(test)]
mod tests {
    use webhook_core::{ErrorKind, FailedAttempt};

    use super::*;

    fn steps(arguments: &[&str]) -> Vec<f64> {
        let policy = policy(&Flags::of(arguments).unwrap()).unwrap();
        let step = |number| policy.next_step(&FailedAttempt::new(number, ErrorKind::Timeout)).unwrap();
        (1..policy.max_attempts()).map(|number| step(number).as_secs_f64()).collect()
    }

    #[test]
    fn the_default_is_the_long_schedule() {
        assert_eq!(steps(&[]).len(), 11);
    }

    #[test]
    fn any_flag_chooses_exponential_steps() {
        assert_eq!(steps(&["--max-retries=3"]), [10.0, 20.0, 40.0]);
        assert_eq!(steps(&["--retry-initial=1"]), [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(steps(&["--retry-max=5"]), [5.0; 5]);
        assert!(steps(&["--max-retries=0"]).is_empty());
    }

    #[test]
    fn a_schedule_wins() {
        assert_eq!(steps(&["--retry-schedule=1,0.5", "--max-retries=9"]), [1.0, 0.5]);
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert!(policy(&Flags::of(&["--max-retries=101"]).unwrap()).is_err());
        assert!(policy(&Flags::of(&["--retry-initial=9", "--retry-max=3"]).unwrap()).is_err());
    }
}
