//! The conformance suite for rate limiters: see [`rate_limiter_conformance`](crate::rate_limiter_conformance).

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::{Grant, RateLimit, RateLimiter, TargetId, Timestamp, TokenRequest};

/// Expands to one `#[test]` for each promise of [`RateLimiter`](crate::RateLimiter).
///
/// The argument is a path to an async function, or a closure that gives a future, whose output is
/// `(Arc<dyn RateLimiter>, guard)`: a fresh limiter, and what keeps its resources alive until the case ends.
#[macro_export]
macro_rules! rate_limiter_conformance {
    ($factory:expr) => {
        $crate::rate_limiter_conformance! { @test ($factory)
            the_burst_goes_at_once_and_then_the_rate
            a_fast_rate_does_not_drift
            a_rate_without_an_end_to_its_digits_is_never_exceeded
            answers_come_in_the_order_of_the_requests
            tokens_given_back_are_there_again_but_never_more_than_the_burst
            a_changed_limit_holds_at_once
            a_clock_that_goes_back_gives_nothing_and_blocks_for_no_longer_than_the_burst
            calls_a_little_out_of_order_get_nothing_extra
            the_extremes_do_not_overflow
            concurrent_calls_share_one_burst
            the_next_token_is_there_when_promised_and_not_before
        }
    };
    (@test ($factory:expr) $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::run_case(async {
                    let (limiter, guard) = $factory().await;
                    $crate::testing::rate_limiter::$case(limiter).await;
                    drop(guard);
                });
            }
        )*
    };
}

const START: Timestamp = Timestamp::from_millis(1_767_323_045_678);

fn request(number: u128, limit: RateLimit, want: u32) -> TokenRequest {
    TokenRequest { target: TargetId::from_uuid(Uuid::from_u128(number)), limit, want }
}

fn limit(per_second: f64, burst: u32) -> RateLimit {
    RateLimit::per_second(per_second).and_then(|limit| limit.with_burst(burst)).expect("the limit is within bounds")
}

fn after(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

async fn take(limiter: &dyn RateLimiter, now: Timestamp, request: TokenRequest) -> Grant {
    limiter.take(now, &[request]).await.expect("the limiter works")[0]
}

async fn give_back(limiter: &dyn RateLimiter, now: Timestamp, request: TokenRequest) {
    limiter.give_back(now, &[request]).await.expect("the limiter works");
}

#[doc(hidden)]
pub async fn the_burst_goes_at_once_and_then_the_rate(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(10.0, 3);
    let grant = |tokens, millis| Grant { tokens, retry_at: after(millis) };
    assert_eq!(take(&*limiter, START, request(1, limit, 5)).await, grant(3, 100));
    assert_eq!(take(&*limiter, after(99), request(1, limit, 1)).await, grant(0, 100));
    assert_eq!(take(&*limiter, after(100), request(1, limit, 2)).await, grant(1, 200));
    let rested = take(&*limiter, after(60_000), request(1, limit, 9)).await;
    assert_eq!(rested.tokens, 3, "no more than the burst is saved up");
}

#[doc(hidden)]
pub async fn a_fast_rate_does_not_drift(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(70_000.0, 1000);
    let mut taken = 0;
    for millis in 0..=1_000 {
        taken += take(&*limiter, after(millis), request(1, limit, 1000)).await.tokens;
    }
    assert!((70_900..=71_000).contains(&taken), "{taken}");
}

#[doc(hidden)]
pub async fn a_rate_without_an_end_to_its_digits_is_never_exceeded(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(7.0, 7);
    let mut used = Vec::new();
    for step in 0..300 {
        let millis = step * 37;
        let grant = take(&*limiter, after(millis), request(1, limit, 3)).await;
        assert!(grant.tokens == 3 || grant.retry_at > after(millis));
        let unused = u32::from(step % 5 == 0).min(grant.tokens);
        give_back(&*limiter, after(millis), request(1, limit, unused)).await;
        used.push((millis, grant.tokens - unused));
    }
    for (index, (first, _)) in used.iter().enumerate() {
        let mut total = 0.0;
        for (last, tokens) in &used[index..] {
            total += f64::from(*tokens);
            let allowed = 7.0 * (last - first) as f64 / 1000.0 + 7.0;
            assert!(total <= allowed + 1e-6, "{total} in {} ms, {allowed} allowed", last - first);
        }
    }
    let total: u32 = used.iter().map(|(_, tokens)| tokens).sum();
    assert!(total > 70, "{total}");
}

#[doc(hidden)]
pub async fn answers_come_in_the_order_of_the_requests(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(1.0, 4);
    let requests = [request(1, limit, 3), request(2, limit, 1), request(1, limit, 3), request(3, limit, 0)];
    let grants = limiter.take(START, &requests).await.expect("the limiter works");
    assert_eq!(grants.iter().map(|grant| grant.tokens).collect::<Vec<_>>(), [3, 1, 1, 0]);
    assert!(limiter.take(START, &[]).await.expect("the limiter works").is_empty());
}

#[doc(hidden)]
pub async fn tokens_given_back_are_there_again_but_never_more_than_the_burst(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(1.0, 5);
    assert_eq!(take(&*limiter, START, request(1, limit, 5)).await.tokens, 5);
    give_back(&*limiter, START, request(1, limit, 2)).await;
    assert_eq!(take(&*limiter, START, request(1, limit, 5)).await.tokens, 2);
    give_back(&*limiter, START, request(1, limit, 50)).await;
    assert_eq!(take(&*limiter, START, request(1, limit, 50)).await.tokens, 5);
}

#[doc(hidden)]
pub async fn a_changed_limit_holds_at_once(limiter: Arc<dyn RateLimiter>) {
    assert_eq!(take(&*limiter, START, request(1, limit(0.001, 100), 100)).await.tokens, 100);
    let faster = take(&*limiter, START, request(1, limit(100.0, 10), 1)).await;
    let expected = Grant { tokens: 0, retry_at: after(10) };
    assert_eq!(faster, expected, "what was taken still counts, at the new rate");
    assert_eq!(take(&*limiter, after(50), request(1, limit(100.0, 10), 9)).await.tokens, 5);
}

#[doc(hidden)]
pub async fn a_clock_that_goes_back_gives_nothing_and_blocks_for_no_longer_than_the_burst(
    limiter: Arc<dyn RateLimiter>,
) {
    let limit = limit(1.0, 2);
    assert_eq!(take(&*limiter, after(3_600_000), request(1, limit, 2)).await.tokens, 2);
    let expected = Grant { tokens: 0, retry_at: after(1000) };
    assert_eq!(take(&*limiter, START, request(1, limit, 2)).await, expected);
}

#[doc(hidden)]
pub async fn calls_a_little_out_of_order_get_nothing_extra(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(1.0, 2);
    assert_eq!(take(&*limiter, after(1000), request(1, limit, 2)).await.tokens, 2);
    let expected = Grant { tokens: 0, retry_at: after(2000) };
    assert_eq!(take(&*limiter, after(500), request(1, limit, 2)).await, expected);
    assert_eq!(take(&*limiter, after(1999), request(1, limit, 2)).await.tokens, 0);
    assert_eq!(take(&*limiter, after(2000), request(1, limit, 2)).await.tokens, 1);
}

#[doc(hidden)]
pub async fn the_extremes_do_not_overflow(limiter: Arc<dyn RateLimiter>) {
    for limit in [limit(0.000_01, 100_000), limit(100_000.0, 1), limit(100_000.0, 100_000)] {
        for now in [Timestamp::EPOCH, START, Timestamp::MAX] {
            assert!(take(&*limiter, now, request(1, limit, u32::MAX)).await.tokens <= limit.burst());
            give_back(&*limiter, now, request(1, limit, u32::MAX)).await;
            assert!(take(&*limiter, now, request(1, limit, 1)).await.retry_at >= now);
        }
    }
}

#[doc(hidden)]
pub async fn concurrent_calls_share_one_burst(limiter: Arc<dyn RateLimiter>) {
    let limit = limit(1.0, 1000);
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let limiter = Arc::clone(&limiter);
            tokio::spawn(async move {
                let mut tokens = 0;
                for _ in 0..20 {
                    tokens += take(&*limiter, START, request(1, limit, 7)).await.tokens;
                }
                tokens
            })
        })
        .collect();
    let mut taken = 0;
    for call in calls {
        taken += call.await.expect("no call panics");
    }
    assert_eq!(taken, 1000);
}

#[doc(hidden)]
pub async fn the_next_token_is_there_when_promised_and_not_before(limiter: Arc<dyn RateLimiter>) {
    for (number, (per_second, burst, pause)) in
        (1_u128..).zip([(0.3, 1, 0), (3.0, 5, 1234), (97.7, 40, 3), (899.0, 2, 1), (333.3, 3, 5000)])
    {
        let limit = limit(per_second, burst);
        take(&*limiter, START, request(number, limit, burst)).await;
        let grant = take(&*limiter, after(pause), request(number, limit, u32::MAX)).await;
        assert!(grant.retry_at > after(pause));
        let just_before = grant.retry_at - Duration::from_millis(1);
        assert_eq!(take(&*limiter, just_before, request(number, limit, 1)).await.tokens, 0);
        assert_eq!(take(&*limiter, grant.retry_at, request(number, limit, 1)).await.tokens, 1);
    }
}
