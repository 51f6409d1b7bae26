//! How old a signature may be.

use std::time::Duration;

use super::VerifyFailure;
use crate::Timestamp;

/// How far the time of a signature may be from now, the ends included.
///
/// This bounds how long a request that somebody recorded can be sent again. It is no idempotency: within the window, and
/// without one, only the memory of message ids tells a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    past: Option<Duration>,
    future: Option<Duration>,
}

/// Digits of a time in seconds; the year 9999 has twelve.
pub(super) const SECONDS_DIGITS: usize = 12;
/// Digits of a time in milliseconds.
pub(super) const MILLIS_DIGITS: usize = 15;
/// What most senders recommend.
pub(super) const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);

impl Tolerance {
    /// Any time.
    pub const ANY: Self = Self { past: None, future: None };

    /// That far in the past and in the future.
    pub const fn within(span: Duration) -> Self {
        Self { past: Some(span), future: Some(span) }
    }

    /// That far in the past, and any time in the future.
    pub const fn past(span: Duration) -> Self {
        Self { past: Some(span), future: None }
    }

    /// Compares whole seconds: a fraction of now does not count.
    pub(super) fn check_seconds(self, signed: i64, now: Timestamp) -> Result<Timestamp, VerifyFailure> {
        self.check(now.as_secs().saturating_sub(signed).saturating_mul(1000))?;
        Ok(Timestamp::from_millis(signed.saturating_mul(1000)))
    }

    /// Compares milliseconds: half a second past the end is too late.
    pub(super) fn check_millis(self, signed: i64, now: Timestamp) -> Result<Timestamp, VerifyFailure> {
        self.check(now.as_millis().saturating_sub(signed))?;
        Ok(Timestamp::from_millis(signed))
    }

    fn check(self, age: i64) -> Result<(), VerifyFailure> {
        let (limit, failure) =
            if age > 0 { (self.past, VerifyFailure::TooOld) } else { (self.future, VerifyFailure::TooNew) };
        match limit {
            Some(limit) if u128::from(age.unsigned_abs()) > limit.as_millis() => Err(failure),
            _ => Ok(()),
        }
    }
}
