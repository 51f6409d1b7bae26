//! The queue and the rate limiter keep every promise, on one server and on a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use webhook_core::{Queue, RateLimiter};
use webhook_queue_redis::{Redis, RedisOptions, RedisQueue, RedisRateLimiter};
use webhook_test_servers::{RedisCluster, TestRedis};

static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);

/// The deadline is not what is tested here, and this machine may be busy.
fn open(url: &str, prefix: &str) -> RedisOptions {
    RedisOptions::new(url).unwrap().with_prefix(prefix).unwrap().with_deadline(Duration::from_secs(10))
}

mod queue_on_one_server {
    use super::*;

    async fn fresh() -> (Arc<dyn Queue>, TestRedis) {
        let server = TestRedis::fresh();
        let queue = RedisQueue::new(Redis::new(&open(server.url(), server.prefix())));
        (Arc::new(queue), server)
    }

    webhook_core::queue_conformance!(fresh);
}

mod queue_of_five_shards_on_one_server {
    use super::*;

    async fn fresh() -> (Arc<dyn Queue>, TestRedis) {
        let server = TestRedis::fresh();
        let queue = RedisQueue::new(Redis::new(&open(server.url(), server.prefix()).with_shards(5)));
        (Arc::new(queue), server)
    }

    webhook_core::queue_conformance!(fresh);
}

mod queue_on_a_cluster {
    use super::*;

    async fn fresh() -> (Arc<dyn Queue>, ()) {
        let prefix = TestRedis::prefix_of_its_own();
        (Arc::new(RedisQueue::new(Redis::new(&open(&CLUSTER.url(), &prefix)))), ())
    }

    webhook_core::queue_conformance!(fresh);
}

mod rate_limiter_on_one_server {
    use super::*;

    async fn fresh() -> (Arc<dyn RateLimiter>, TestRedis) {
        let server = TestRedis::fresh();
        let limiter = RedisRateLimiter::new(Redis::new(&open(server.url(), server.prefix())));
        (Arc::new(limiter), server)
    }

    webhook_core::rate_limiter_conformance!(fresh);
}

mod rate_limiter_on_a_cluster {
    use super::*;

    async fn fresh() -> (Arc<dyn RateLimiter>, ()) {
        let prefix = TestRedis::prefix_of_its_own();
        (Arc::new(RedisRateLimiter::new(Redis::new(&open(&CLUSTER.url(), &prefix)))), ())
    }

    webhook_core::rate_limiter_conformance!(fresh);
}
