//! When a failed delivery is tried again.
//!
//! A policy names the steps between attempts; [`next_due`] turns a step into a time and holds the rules that no
//! policy may forget: jitter, `Retry-After`, and the failures that are final.

mod exponential;
mod retry_after;
mod schedule;
mod spec;

use std::fmt::Debug;
use std::time::Duration;

pub use exponential::ExponentialBackoff;
pub use retry_after::{MAX_RETRY_AFTER, parse_retry_after};
pub use schedule::RetrySchedule;
pub use spec::RetrySpec;

use crate::{Entropy, ErrorKind, Timestamp};

/// The longest step between two attempts: 30 days.
const MAX_STEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The most attempts that the policies of this crate make.
const MAX_ATTEMPTS: u32 = 101;

/// An attempt that failed, as a [`RetryPolicy`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// Its number among the attempts of its delivery, from 1.
    pub number: u32,
    /// Why it failed.
    pub kind: ErrorKind,
    /// The status of the answer, where there was one.
    pub status_code: Option<u16>,
}

impl FailedAttempt {
    /// The attempt with this number, counted from 1, that failed without an answer.
    pub const fn new(number: u32, kind: ErrorKind) -> Self {
        Self { number, kind, status_code: None }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn with_status_code(mut self, status_code: u16) -> Self {
        self.status_code = Some(status_code);
        self
    }

    /// Whether no policy may retry it: the address guard refused the target, or the answer was 410 Gone.
    const fn is_final(&self) -> bool {
        matches!(self.kind, ErrorKind::Blocked) || matches!(self.status_code, Some(410))
    }
}

/// Says how often a delivery is tried, and how long to wait in between.
///
/// # Contract
///
/// - Both methods are pure: the same question has the same answer. They do not block, read no clock and add no
///   jitter; [`next_due`] does that.
/// - `max_attempts` is at least 1: the first attempt is always made.
/// - `next_step` is `None` once `failed.number` has reached `max_attempts`. It may be `None` earlier.
pub trait RetryPolicy: Debug + Send + Sync + 'static {
    /// How many attempts a delivery gets, the first one included.
    fn max_attempts(&self) -> u32;

    /// The time from this failure to the next attempt, before jitter; `None` gives up.
    fn next_step(&self, failed: &FailedAttempt) -> Option<Duration>;
}

/// When a delivery is due again after a failed attempt, or `None` when that attempt was its last.
///
/// - Attempts that the address guard refused, and those answered with 410 Gone, are never retried, nor is one
///   whose number has reached the policy's `max_attempts`.
/// - Without `retry_after`, the next attempt comes after 50–100 % of the policy's step.
/// - With it, the next attempt comes no earlier than the longer of the step and `retry_after`, and at most 10 %
///   later than that. The value counts for at most [`MAX_RETRY_AFTER`].
/// - A step counts for at most 30 days. Times are rounded up to the millisecond.
pub fn next_due(
    policy: &dyn RetryPolicy,
    failed: &FailedAttempt,
    retry_after: Option<Duration>,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Option<Timestamp> {
    if failed.is_final() || failed.number >= policy.max_attempts() {
        return None;
    }
    let step = millis_rounded_up(policy.next_step(failed)?.min(MAX_STEP));
    let wait = match retry_after {
        None => step - share(step / 2, entropy),
        Some(asked) => {
            let base = step.max(millis_rounded_up(asked.min(MAX_RETRY_AFTER)));
            base + share(base / 10, entropy)
        }
    };
    Some(now + Duration::from_millis(wait))
}

/// A random share of `whole`, from nothing to all of it.
fn share(whole: u64, entropy: &dyn Entropy) -> u64 {
    (whole as f64 * entropy.next_unit()) as u64
}

fn millis_rounded_up(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A retry policy that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryPolicyError {
    /// A schedule is longer than 100 delays.
    #[error("a retry schedule has at most 100 delays, this one has {count}")]
    TooManyDelays {
        /// How many it has.
        count: usize,
    },
    /// A step is longer than 30 days.
    #[error("{step:?} between two attempts is longer than 30 days")]
    StepTooLong {
        /// The step.
        step: Duration,
    },
    /// A doubling step starts at zero.
    #[error("the first step of an exponential backoff is zero")]
    ZeroInitial,
    /// The first step is longer than the longest one.
    #[error("the first step of {initial:?} is longer than the longest of {max:?}")]
    InitialAboveMax {
        /// The first step.
        initial: Duration,
        /// The longest step.
        max: Duration,
    },
    /// The number of attempts is not between 1 and 101.
    #[error("a delivery has 1 to 101 attempts, not {max_attempts}")]
    AttemptsOutOfRange {
        /// How many were asked for.
        max_attempts: u32,
    },
    /// A specification has both a schedule and the fields of an exponential backoff.
    #[error("a retry policy is either a schedule or exponential, not both")]
    Mixed,
}

fn check_step(step: Duration) -> Result<(), RetryPolicyError> {
    if step > MAX_STEP { Err(RetryPolicyError::StepTooLong { step }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
