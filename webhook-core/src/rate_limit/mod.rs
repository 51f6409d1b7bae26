//! How fast a target may be sent to.

mod local;

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize, Serializer};

pub use local::LocalRateLimiter;

use crate::{TargetId, Timestamp};

const MAX_PER_SECOND: f64 = 100_000.0;
const MAX_BURST: u32 = 100_000;

/// A steady rate, and how many may go at once after a pause.
///
/// In any second, at most `per_second + burst` go. Its JSON is `{"per_second", "burst"?}`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct RateLimit {
    #[serde(serialize_with = "whole_or_decimal")]
    per_second: f64,
    burst: u32,
}

/// A rate limit that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitError {
    /// The rate is not between 0.00001 and 100,000 a second.
    #[error("per_second is 0.00001 to 100000, not {per_second}")]
    PerSecond {
        /// The rate.
        per_second: f64,
    },
    /// The burst is not between 1 and 100,000.
    #[error("burst is 1 to 100000, not {burst}")]
    Burst {
        /// The burst.
        burst: u32,
    },
}

impl RateLimit {
    /// The lowest rate: about one a day.
    pub const MIN_PER_SECOND: f64 = 0.000_01;

    /// `per_second` each second (0.00001 to 100,000), with a burst of as many, rounded up.
    ///
    /// # Errors
    ///
    /// The rate is out of bounds.
    pub fn per_second(per_second: f64) -> Result<Self, RateLimitError> {
        if !(Self::MIN_PER_SECOND..=MAX_PER_SECOND).contains(&per_second) {
            return Err(RateLimitError::PerSecond { per_second });
        }
        Ok(Self { per_second, burst: per_second.ceil() as u32 })
    }

    /// How many may go at once after a pause (1 to 100,000).
    ///
    /// # Errors
    ///
    /// The burst is out of bounds.
    pub fn with_burst(self, burst: u32) -> Result<Self, RateLimitError> {
        if !(1..=MAX_BURST).contains(&burst) {
            return Err(RateLimitError::Burst { burst });
        }
        Ok(Self { burst, ..self })
    }

    /// How many go each second.
    pub const fn rate(&self) -> f64 {
        self.per_second
    }

    /// How many may go at once after a pause.
    pub const fn burst(&self) -> u32 {
        self.burst
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    per_second: f64,
    burst: Option<u32>,
}

impl TryFrom<Fields> for RateLimit {
    type Error = RateLimitError;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let limit = Self::per_second(fields.per_second)?;
        fields.burst.map_or(Ok(limit), |burst| limit.with_burst(burst))
    }
}

fn whole_or_decimal<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 { serializer.serialize_u64(*number as u64) } else { serializer.serialize_f64(*number) }
}

/// Asks for tokens of a target, or gives them back. One token is one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRequest {
    /// Whose tokens.
    pub target: TargetId,
    /// The limit of that target, as it stands now.
    pub limit: RateLimit,
    /// How many tokens.
    pub want: u32,
}

/// The answer to a [`TokenRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many tokens were taken, at most as many as wanted.
    pub tokens: u32,
    /// When the next token after these is there. Only of use when there were fewer than wanted; it is later than
    /// `now` then.
    pub retry_at: Timestamp,
}

/// A rate limiter that could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimiterError {
    /// It could not be reached, or not in time: try again later.
    #[error("the rate limiter is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It answered what it should not: trying again does not help.
    #[error("the rate limiter failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl RateLimiterError {
    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Counts what goes to each target, in this process or across many.
///
/// # Contract
///
/// - For each target, at most `burst` plus `per_second` times the length of any span of time are taken and not given
///   back within that span, whatever calls run at once.
/// - A target that was not asked for long enough has `burst` tokens.
/// - When the limit of a target changes, the new one holds from the next call on: no wait is longer than the new limit
///   can cause, and what was just taken still counts.
/// - Calls whose `now` is up to a second out of order are counted exactly. A clock set back further blocks a target for no
///   longer than its `burst` takes to come back.
/// - Targets that are full again take no memory for ever.
#[async_trait]
pub trait RateLimiter: Debug + Send + Sync + 'static {
    /// Takes up to `want` tokens for each request.
    ///
    /// # Contract
    ///
    /// - One answer for each request, in the same order. Requests for the same target are served one after the other.
    /// - A request that wants more than there is gets what there is.
    ///
    /// # Errors
    ///
    /// The limiter cannot answer; tokens may have been taken.
    async fn take(&self, now: Timestamp, requests: &[TokenRequest]) -> Result<Vec<Grant>, RateLimiterError>;

    /// Gives back tokens that were taken and not used.
    ///
    /// # Contract
    ///
    /// - Giving back more than was taken leaves a target with `burst` tokens, never with more.
    ///
    /// # Errors
    ///
    /// The limiter cannot answer; the tokens come back with time.
    async fn give_back(&self, now: Timestamp, unused: &[TokenRequest]) -> Result<(), RateLimiterError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RateLimit, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn the_burst_defaults_to_the_rate_rounded_up() {
        for (json, burst, written) in [
            (r#"{"per_second":5}"#, 5, r#"{"per_second":5,"burst":5}"#),
            (r#"{"per_second":0.1}"#, 1, r#"{"per_second":0.1,"burst":1}"#),
            (r#"{"per_second":2.5}"#, 3, r#"{"per_second":2.5,"burst":3}"#),
            (r#"{"per_second":100000,"burst":1}"#, 1, r#"{"per_second":100000,"burst":1}"#),
        ] {
            let limit = read(json).unwrap();
            assert_eq!(limit.burst(), burst, "{json}");
            assert_eq!(serde_json::to_string(&limit).unwrap(), written);
        }
    }

    #[test]
    fn refuses_what_cannot_be() {
        for (json, reason) in [
            (r#"{"per_second":0}"#, "per_second is"),
            (r#"{"per_second":-1}"#, "per_second is"),
            (r#"{"per_second":1e-300}"#, "per_second is"),
            (r#"{"per_second":100000.5}"#, "per_second is"),
            (r#"{"per_second":5,"burst":0}"#, "burst is"),
            (r#"{"per_second":5,"burst":100001}"#, "burst is"),
            (r#"{"per_second":5,"burst":1.5}"#, "invalid type"),
            (r#"{"per_second":5,"per_minute":1}"#, "unknown field"),
            (r#"{"burst":5}"#, "missing field"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
        assert!(RateLimit::per_second(f64::NAN).is_err());
    }
}
