#![doc = include_str!("../README.md")]

mod attempt;
mod clock;
mod entropy;
mod event_type;
mod id;
mod matching;
mod pattern;
mod rate_limit;
mod retry;
mod secret;
mod timestamp;

pub use attempt::ErrorKind;
pub use clock::{Clock, SystemClock};
pub use entropy::{Entropy, OsEntropy};
pub use event_type::{EventType, ParseEventTypeError};
pub use id::{AttemptId, DeliveryId, EventId, ParseIdError, ParseTenantError, SubscriptionId, TargetId, TenantId};
pub use matching::{MatchIndex, TooMany};
pub use pattern::{EventPattern, ParseEventPatternError};
pub use rate_limit::{Grant, LocalRateLimiter, RateLimit, RateLimitError, RateLimiter, RateLimiterError, TokenRequest};
pub use retry::{
    ExponentialBackoff, FailedAttempt, MAX_RETRY_AFTER, RetryPolicy, RetryPolicyError, RetrySchedule, RetrySpec,
    next_due, parse_retry_after,
};
pub use secret::Secret;
pub use timestamp::{ParseTimestampError, Timestamp};
