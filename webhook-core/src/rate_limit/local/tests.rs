use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const START: Timestamp = Timestamp::from_millis(1_767_323_045_678);

fn request(number: u128, limit: RateLimit, want: u32) -> TokenRequest {
    TokenRequest { target: TargetId::from_uuid(Uuid::from_u128(number)), limit, want }
}

fn limit(per_second: f64, burst: u32) -> RateLimit {
    RateLimit::per_second(per_second).unwrap().with_burst(burst).unwrap()
}

fn after(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

/// The local limiter never waits.
fn take(limiter: &LocalRateLimiter, now: Timestamp, request: TokenRequest) -> Grant {
    limiter.take(now, &[request]).now_or_never().unwrap().unwrap()[0]
}

fn give_back(limiter: &LocalRateLimiter, now: Timestamp, request: TokenRequest) {
    limiter.give_back(now, &[request]).now_or_never().unwrap().unwrap();
}

#[test]
fn full_buckets_are_forgotten() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(100.0, 1));
    for number in 0..100_000 {
        take(&limiter, after(number), request(number.into(), limit, 1));
    }
    let buckets = limiter.buckets();
    assert!(buckets.by_target.len() <= 2 * PRUNE_ABOVE, "{}", buckets.by_target.len());
    assert!(buckets.by_target.capacity() <= 8 * PRUNE_ABOVE, "{}", buckets.by_target.capacity());
}

proptest! {
    #[test]
    fn no_span_of_time_has_more_than_the_rate_and_the_burst(
        per_second in prop_oneof![0.1..5.0, 5.0..200.0, 200.0..100_000.0],
        burst in 1_u32..200,
        calls in proptest::collection::vec((0_u64..400, 0_u32..300, 0_u32..50), 1..60),
    ) {
        let (limiter, limit) = (LocalRateLimiter::new(), limit(per_second, burst));
        let (mut millis, mut used) = (0, Vec::new());
        for (pause, want, unused) in calls {
            millis += pause;
            let grant = take(&limiter, after(millis), request(1, limit, want));
            prop_assert!(grant.tokens <= want);
            prop_assert!(grant.tokens == want || grant.retry_at > after(millis));
            let unused = unused.min(grant.tokens);
            give_back(&limiter, after(millis), request(1, limit, unused));
            used.push((millis, grant.tokens - unused));
        }
        for (index, (first, _)) in used.iter().enumerate() {
            let mut total = 0.0;
            for (last, tokens) in &used[index..] {
                total += f64::from(*tokens);
                let allowed = per_second * (last - first) as f64 / 1000.0 + f64::from(burst);
                prop_assert!(total <= allowed + 1e-6, "{total} in {} ms, {allowed} allowed", last - first);
            }
        }
    }

    #[test]
    fn the_next_token_is_there_when_promised_and_not_before(per_second in 0.1..900.0, burst in 1_u32..50, pause in 0_u64..5000) {
        let (limiter, limit) = (LocalRateLimiter::new(), limit(per_second, burst));
        take(&limiter, START, request(1, limit, burst));
        let now = after(pause);
        let grant = take(&limiter, now, request(1, limit, u32::MAX));
        prop_assert!(grant.retry_at > now);
        prop_assert_eq!(take(&limiter, grant.retry_at - Duration::from_millis(1), request(1, limit, 1)).tokens, 0);
        prop_assert!(take(&limiter, grant.retry_at, request(1, limit, 1)).tokens == 1);
    }
}
