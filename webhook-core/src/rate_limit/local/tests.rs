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
fn the_burst_goes_at_once_and_then_the_rate() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(10.0, 3));
    assert_eq!(take(&limiter, START, request(1, limit, 5)), Grant { tokens: 3, retry_at: after(100) });
    assert_eq!(take(&limiter, after(99), request(1, limit, 1)), Grant { tokens: 0, retry_at: after(100) });
    assert_eq!(take(&limiter, after(100), request(1, limit, 2)), Grant { tokens: 1, retry_at: after(200) });
    assert_eq!(take(&limiter, after(60_000), request(1, limit, 9)).tokens, 3, "no more than the burst is saved up");
}

#[test]
fn a_fast_rate_does_not_drift() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(70_000.0, 1000));
    let taken: u32 = (0..=10_000).map(|millis| take(&limiter, after(millis), request(1, limit, 1000)).tokens).sum();
    assert!((700_900..=701_000).contains(&taken), "{taken}");
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(1.0, 4));
    let requests = [request(1, limit, 3), request(2, limit, 1), request(1, limit, 3), request(3, limit, 0)];
    let grants = limiter.take(START, &requests).now_or_never().unwrap().unwrap();
    assert_eq!(grants.iter().map(|grant| grant.tokens).collect::<Vec<_>>(), [3, 1, 1, 0]);
}

#[test]
fn tokens_given_back_are_there_again_but_never_more_than_the_burst() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(1.0, 5));
    assert_eq!(take(&limiter, START, request(1, limit, 5)).tokens, 5);
    give_back(&limiter, START, request(1, limit, 2));
    assert_eq!(take(&limiter, START, request(1, limit, 5)).tokens, 2);
    give_back(&limiter, START, request(1, limit, 50));
    assert_eq!(take(&limiter, START, request(1, limit, 50)).tokens, 5);
}

#[test]
fn a_changed_limit_holds_at_once() {
    let limiter = LocalRateLimiter::new();
    assert_eq!(take(&limiter, START, request(1, limit(0.001, 100), 100)).tokens, 100);
    let faster = take(&limiter, START, request(1, limit(100.0, 10), 1));
    assert_eq!(faster, Grant { tokens: 0, retry_at: after(10) }, "what was taken still counts, at the new rate");
    assert_eq!(take(&limiter, after(50), request(1, limit(100.0, 10), 9)).tokens, 5);
}

#[test]
fn a_clock_that_goes_back_gives_nothing_and_blocks_for_no_longer_than_the_burst() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(1.0, 2));
    assert_eq!(take(&limiter, after(3_600_000), request(1, limit, 2)).tokens, 2);
    assert_eq!(take(&limiter, START, request(1, limit, 2)), Grant { tokens: 0, retry_at: after(1000) });
}

#[test]
fn calls_a_little_out_of_order_get_nothing_extra() {
    let (limiter, limit) = (LocalRateLimiter::new(), limit(1.0, 2));
    assert_eq!(take(&limiter, after(1000), request(1, limit, 2)).tokens, 2);
    assert_eq!(take(&limiter, after(500), request(1, limit, 2)), Grant { tokens: 0, retry_at: after(2000) });
    assert_eq!(take(&limiter, after(1999), request(1, limit, 2)).tokens, 0);
    assert_eq!(take(&limiter, after(2000), request(1, limit, 2)).tokens, 1);
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

#[test]
fn the_extremes_do_not_overflow() {
    let limiter = LocalRateLimiter::new();
    for limit in [limit(0.000_01, 100_000), limit(100_000.0, 1), limit(100_000.0, 100_000)] {
        for now in [Timestamp::EPOCH, START, Timestamp::MAX] {
            assert!(take(&limiter, now, request(1, limit, u32::MAX)).tokens <= limit.burst());
            give_back(&limiter, now, request(1, limit, u32::MAX));
            assert!(take(&limiter, now, request(1, limit, 1)).retry_at >= now);
        }
    }
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
