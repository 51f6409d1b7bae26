//! The rate limiter alone.

use std::time::Duration;

use tokio::time::Instant;
use webhook_core::{RateLimit, RateLimiter, TargetId, TokenRequest};
use webhook_queue_redis::RedisRateLimiter;
use webhook_test_servers::RedisServer;

use crate::{at, eventually, redis};

fn request(want: u32) -> TokenRequest {
    let target = "00000000-0000-7000-8000-000000000001".parse::<TargetId>().unwrap();
    let limit = RateLimit::per_second(100.0).unwrap().with_burst(40).unwrap();
    TokenRequest { target, limit, want }
}

async fn take(limiter: &RedisRateLimiter, seconds: u64, want: u32) -> u32 {
    limiter.take(at(seconds), &[request(want)]).await.unwrap()[0].tokens
}

#[tokio::test]
async fn limiters_of_several_processes_share_one_bucket() {
    let server = RedisServer::start();
    let limiters = [(); 3].map(|()| RedisRateLimiter::new(redis(&server.url())));
    let mut taken = 0;
    for limiter in &limiters {
        taken += take(limiter, 0, 30).await;
    }
    assert_eq!(taken, 40);
    assert_eq!(server.command(&["DBSIZE"]), "1");
}

#[tokio::test]
async fn without_redis_each_process_goes_by_its_share_and_together_again_after() {
    let server = RedisServer::start();
    let limiter = RedisRateLimiter::new(redis(&server.url())).with_processes(4);
    assert_eq!(take(&limiter, 0, 25).await, 25);
    server.pause();
    let start = Instant::now();
    assert_eq!(take(&limiter, 0, 25).await, 0, "its share of the burst is spent");
    assert!(start.elapsed() < Duration::from_millis(600));
    for second in 1..10 {
        assert_eq!(take(&limiter, second, 99).await, 10, "a quarter of the burst");
    }
    assert!(start.elapsed() < Duration::from_millis(1_800), "not every call waits for the deadline");
    server.resume();
    eventually("the whole burst is there", async || take(&limiter, 20, 99).await == 40).await;
}

#[tokio::test]
async fn full_buckets_leave_no_key_behind() {
    let server = RedisServer::start();
    let limiter = RedisRateLimiter::new(redis(&server.url()));
    assert_eq!(take(&limiter, 0, 5).await, 5);
    let key = "{wh:0}:rate:00000000-0000-7000-8000-000000000001";
    let kept: u64 = server.command(&["PTTL", key]).parse().unwrap();
    assert!((9_000..=10_050).contains(&kept), "{kept}");
    limiter.give_back(at(0), &[request(5)]).await.unwrap();
    assert_eq!(server.command(&["DBSIZE"]), "0");
}
