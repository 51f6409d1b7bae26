//! What happens when Redis is slow, gone, full, read-only, emptied or cut off: done to real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cache;
mod engine;
mod notifier;
mod queue;
mod rate_limiter;

use std::time::Duration;

use tokio::time::Instant;
use webhook_core::Timestamp;
use webhook_queue_redis::{Redis, RedisOptions};

fn redis(url: &str) -> Redis {
    Redis::new(&RedisOptions::new(url).unwrap())
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(seconds)
}

/// Asks again until the answer is yes.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(20), "not so after 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
