use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Grant, RateLimit, RateLimiter, RateLimiterError, TokenRequest};
use crate::{TargetId, Timestamp};

/// Below this many targets, those that are full again are not looked for.
const PRUNE_ABOVE: usize = 1024;

/// Calls may come this much out of the order of their times and still be counted exactly, in nanoseconds.
const MAX_SKEW: u128 = 1_000_000_000;

/// Counts within this process: with several processes, each has the whole rate for itself.
///
/// The generic cell rate algorithm (ITU-T I.371): one instant per target, up to which its tokens are spent. Targets that
/// are full again are forgotten; the memory is that of those that are not.
#[derive(Debug, Default)]
pub struct LocalRateLimiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    by_target: HashMap<TargetId, Bucket>,
    /// How many there were after the last pruning.
    pruned_to: usize,
}

/// Times are nanoseconds since the Unix epoch: a fast rate has many tokens in a millisecond.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// The bucket is full again here.
    full_at: u128,
    /// The limit by which that was reckoned.
    limit: RateLimit,
}

impl LocalRateLimiter {
    /// A limiter to which every target is new.
    pub fn new() -> Self {
        Self::default()
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        // No bucket is left half changed by a panic.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RateLimiter for LocalRateLimiter {
    async fn take(&self, now: Timestamp, requests: &[TokenRequest]) -> Result<Vec<Grant>, RateLimiterError> {
        let mut buckets = self.buckets();
        let grants = requests.iter().map(|request| buckets.take(nanos(now), request)).collect();
        buckets.prune(nanos(now));
        Ok(grants)
    }

    async fn give_back(&self, now: Timestamp, unused: &[TokenRequest]) -> Result<(), RateLimiterError> {
        let mut buckets = self.buckets();
        for request in unused {
            buckets.give_back(nanos(now), request);
        }
        Ok(())
    }
}

impl Buckets {
    fn take(&mut self, now: u128, request: &TokenRequest) -> Grant {
        let (interval, depth) = (interval(&request.limit), depth(&request.limit));
        let spent = self.spent(now, request);
        let tokens = u32::try_from(depth.saturating_sub(spent) / interval).unwrap_or(u32::MAX).min(request.want);
        let spent = spent + interval * u128::from(tokens);
        if tokens > 0 {
            self.by_target.insert(request.target, Bucket { full_at: now + spent, limit: request.limit });
        }
        Grant { tokens, retry_at: timestamp_rounded_up(now + (spent + interval).saturating_sub(depth)) }
    }

    fn give_back(&mut self, now: u128, request: &TokenRequest) {
        let returned = interval(&request.limit) * u128::from(request.want);
        let spent = self.spent(now, request).saturating_sub(returned);
        if let Some(bucket) = self.by_target.get_mut(&request.target) {
            bucket.full_at = now + spent;
        }
    }

    /// The time that the tokens spent take to come back, under the limit of this request.
    fn spent(&mut self, now: u128, request: &TokenRequest) -> u128 {
        let Some(bucket) = self.by_target.get_mut(&request.target) else { return 0 };
        let spent = bucket.full_at.saturating_sub(now);
        let depth = depth(&request.limit);
        if bucket.limit == request.limit && spent <= depth + MAX_SKEW {
            return spent;
        }
        // The limit changed, or the clock was set back: as many tokens as before, but no longer a wait than for all.
        let spent = (spent * interval(&request.limit)).div_ceil(interval(&bucket.limit)).min(depth);
        *bucket = Bucket { full_at: now + spent, limit: request.limit };
        spent
    }

    /// Forgets the full buckets once as many were added as were left the last time.
    fn prune(&mut self, now: u128) {
        if self.by_target.len() < PRUNE_ABOVE.max(2 * self.pruned_to) {
            return;
        }
        self.by_target.retain(|_, bucket| bucket.full_at + MAX_SKEW > now);
        self.pruned_to = self.by_target.len();
        self.by_target.shrink_to(PRUNE_ABOVE.max(2 * self.pruned_to));
    }
}

/// The time between two tokens, in nanoseconds, rounded up.
fn interval(limit: &RateLimit) -> u128 {
    (1e9 / limit.rate()).ceil() as u128
}

/// The time in which a whole burst comes back, in nanoseconds.
fn depth(limit: &RateLimit) -> u128 {
    interval(limit) * u128::from(limit.burst())
}

fn nanos(time: Timestamp) -> u128 {
    u128::from(time.as_millis().unsigned_abs()) * 1_000_000
}

fn timestamp_rounded_up(nanos: u128) -> Timestamp {
    Timestamp::from_millis(i64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
