//! The rate limiter: one bucket for each target, in Redis.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use tokio::time::Instant;
use webhook_core::{Grant, LocalRateLimiter, RateLimit, RateLimiter, RateLimiterError, Timestamp, TokenRequest};

use crate::Redis;
use crate::link::{LinkError, Wire, all};

static TAKE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("scripts/bucket.lua"), include_str!("scripts/take.lua"))));
static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("scripts/bucket.lua"), include_str!("scripts/give_back.lua"))));

/// After a call that failed, Redis is not asked for so long.
const REST: Duration = Duration::from_secs(1);

/// Counts across all processes that share a Redis.
///
/// The generic cell rate algorithm (ITU-T I.371), as [`LocalRateLimiter`] has it, in one script. While Redis does not
/// answer, each process goes by a share of the rate: see [`RedisRateLimiter::with_processes`]. Around such a change, and
/// each time Redis forgets its buckets, at most one more burst goes.
///
/// While only some processes are cut off from Redis, those that reach it have the whole rate there and each of the others has
/// its share on top: with `k` of `n` cut off, up to `1 + k / n` times the rate.
#[derive(Debug)]
pub struct RedisRateLimiter {
    redis: Redis,
    processes: u32,
    /// What this process took, by its share: with Redis too, so that a change of the two gives nobody a full bucket.
    local: LocalRateLimiter,
    away_until: Mutex<Option<Instant>>,
}

impl RedisRateLimiter {
    /// The buckets in this Redis.
    pub fn new(redis: Redis) -> Self {
        Self { redis, processes: 4, local: LocalRateLimiter::new(), away_until: Mutex::default() }
    }

    /// How many processes share the limits, at least one; 4 by default. While Redis does not answer, each of them goes
    /// by that fraction of every limit, but at least by the lowest rate there is and a burst of one.
    #[must_use]
    pub fn with_processes(mut self, processes: u32) -> Self {
        self.processes = processes.max(1);
        self
    }

    fn share(&self, request: &TokenRequest) -> TokenRequest {
        let rate = (request.limit.rate() / f64::from(self.processes)).max(RateLimit::MIN_PER_SECOND);
        let burst = (request.limit.burst() / self.processes).max(1);
        let share = RateLimit::per_second(rate).and_then(|limit| limit.with_burst(burst));
        TokenRequest { limit: share.unwrap_or(request.limit), ..*request }
    }

    fn shares(&self, requests: &[TokenRequest]) -> Vec<TokenRequest> {
        requests.iter().map(|request| self.share(request)).collect()
    }

    /// Asks Redis, unless it did not answer a moment ago.
    async fn ask(&self, script: &Script, now: Timestamp, requests: &[TokenRequest]) -> Option<Vec<Vec<i64>>> {
        if self.away_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let calls = self.calls(requests);
        let asked = self.redis.link.call(|wire| async move {
            let answers = calls.values().map(|positions| self.run(script, wire.clone(), now, requests, positions));
            let mut of_request = vec![Vec::new(); requests.len()];
            for (positions, answers) in calls.values().zip(all(answers).await?) {
                for (position, answer) in positions.iter().zip(answers.chunks(2)) {
                    of_request[*position] = answer.to_vec();
                }
            }
            Ok(of_request)
        });
        let asked = asked.await;
        self.remember(&asked);
        asked.ok()
    }

    /// The requests of each shard, by their positions: the keys of one script are in one slot.
    fn calls(&self, requests: &[TokenRequest]) -> BTreeMap<u16, Vec<usize>> {
        let mut calls: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (position, request) in requests.iter().enumerate() {
            calls.entry(self.redis.keys.of_target(request.target)).or_default().push(position);
        }
        calls
    }

    async fn run(
        &self,
        script: &Script,
        mut wire: Wire,
        now: Timestamp,
        requests: &[TokenRequest],
        positions: &[usize],
    ) -> redis::RedisResult<Vec<i64>> {
        let mut call = script.prepare_invoke();
        call.arg(now.as_millis());
        for request in positions.iter().map(|position| &requests[*position]) {
            // The time between two tokens in nanoseconds, rounded up.
            let interval = (1e9 / request.limit.rate()).ceil() as u64;
            call.key(self.redis.keys.bucket(request.target));
            call.arg(request.want).arg(interval).arg(request.limit.burst());
        }
        call.invoke_async::<Option<Vec<i64>>>(&mut wire).await.map(Option::unwrap_or_default)
    }

    fn remember<T>(&self, asked: &Result<T, LinkError>) {
        let mut away_until = self.away_until();
        match asked {
            Ok(_) => {
                if away_until.take().is_some() {
                    tracing::info!("the shared rate limiter answers again");
                }
            }
            Err(error) => {
                if away_until.replace(Instant::now() + REST).is_none() {
                    let error: &(dyn std::error::Error + 'static) = error;
                    tracing::warn!(error, "the shared rate limiter does not answer; each process goes by its share");
                }
            }
        }
    }

    fn away_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    async fn take(&self, now: Timestamp, requests: &[TokenRequest]) -> Result<Vec<Grant>, RateLimiterError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let Some(answers) = self.ask(&TAKE, now, requests).await else {
            return self.local.take(now, &self.shares(requests)).await;
        };
        let grants: Option<Vec<Grant>> = answers.iter().map(|answer| grant(answer)).collect();
        let nonsense = || RateLimiterError::Failed(LinkError::Nonsense("a grant without its two numbers").into());
        let grants = grants.ok_or_else(nonsense)?;
        let mut taken = self.shares(requests);
        for (request, grant) in taken.iter_mut().zip(&grants) {
            request.want = grant.tokens;
        }
        self.local.take(now, &taken).await?;
        Ok(grants)
    }

    async fn give_back(&self, now: Timestamp, unused: &[TokenRequest]) -> Result<(), RateLimiterError> {
        if unused.is_empty() {
            return Ok(());
        }
        self.local.give_back(now, &self.shares(unused)).await?;
        // What Redis does not hear comes back with time.
        self.ask(&GIVE_BACK, now, unused).await;
        Ok(())
    }
}

fn grant(answer: &[i64]) -> Option<Grant> {
    let [tokens, retry_at] = answer else { return None };
    Some(Grant { tokens: u32::try_from(*tokens).ok()?, retry_at: Timestamp::from_millis(*retry_at) })
}
