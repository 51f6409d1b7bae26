//! Values tried for as long as one wants, the same ones in every run.

use std::fmt::Debug;
use std::time::Duration;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use tokio::time::Instant;

/// How many values are drawn from one seed.
const CASES: u32 = 16;

/// How long all targets of a test run together: `FUZZ_SECONDS`, or else that many.
#[must_use]
pub fn fuzz_time(seconds: u64) -> Duration {
    Duration::from_secs(from_environment("FUZZ_SECONDS").unwrap_or(seconds))
}

/// Tries values until the time is over, and a few in any case.
///
/// Each few come from the next seed, `FUZZ_SEED` or 1 for the first.
///
/// # Panics
///
/// If `test` fails: with the smallest value found that does it, and the seed.
pub fn fuzz<S: Strategy<Value: Debug>>(
    time: Duration,
    values: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let end = Instant::now() + time;
    for seed in from_environment("FUZZ_SEED").unwrap_or(1).. {
        // A runner counts what succeeded over all its runs and stops at its number of cases: each round has its own.
        let config = Config {
            cases: CASES,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            max_shrink_iters: 10_000,
            ..Config::default()
        };
        if let Err(error) = TestRunner::new(config).run(values, &test) {
            panic!("FUZZ_SEED={seed}: {error}");
        }
        if Instant::now() >= end {
            return;
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_tried_until_the_time_is_over_and_are_others_in_each_round() {
        let tried = RefCell::new(HashSet::new());
        fuzz(Duration::from_millis(50), &any::<u64>(), |value| {
            tried.borrow_mut().insert(value);
            Ok(())
        });
        let tried = tried.into_inner().len();
        assert!(tried > 10 * CASES as usize, "{tried}");
    }
}
