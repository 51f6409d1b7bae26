use proptest::prelude::*;

use super::*;

/// Answers every failure with the same step.
#[derive(Debug)]
struct Always(Duration);

impl RetryPolicy for Always {
    fn max_attempts(&self) -> u32 {
        12
    }

    fn next_step(&self, _: &FailedAttempt) -> Option<Duration> {
        Some(self.0)
    }
}

#[derive(Debug)]
struct FixedEntropy(u64);

impl Entropy for FixedEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for (byte, chance) in bytes.iter_mut().zip(self.0.to_le_bytes().into_iter().cycle()) {
            *byte = chance;
        }
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_678);

fn timed_out(number: u32) -> FailedAttempt {
    FailedAttempt::new(number, ErrorKind::Timeout)
}

fn wait(step: Duration, retry_after: Option<Duration>, chance: u64) -> Duration {
    next_due(&Always(step), &timed_out(1), retry_after, NOW, &FixedEntropy(chance)).unwrap().since(NOW)
}

#[test]
fn jitter_spans_half_of_the_step_to_all_of_it() {
    let minute = Duration::from_secs(60);
    assert_eq!(wait(minute, None, 0), minute);
    assert_eq!(wait(minute, None, 1 << 63), Duration::from_secs(45));
    assert!(wait(minute, None, u64::MAX) <= Duration::from_millis(30_001));
}

#[test]
fn jitter_only_adds_to_retry_after() {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    assert_eq!(wait(minute, Some(hour / 2), 0), hour / 2, "longer than the step");
    assert_eq!(wait(hour * 5, Some(minute), 0), hour * 5, "shorter than the step");
    assert_eq!(wait(minute, Some(hour * 90), 0), hour, "capped");
    assert_eq!(wait(minute, Some(minute * 10), 1 << 63), Duration::from_secs(630));
}

#[test]
fn a_refused_address_and_410_are_final() {
    let due = |failed| next_due(&Always(Duration::from_secs(1)), &failed, None, NOW, &FixedEntropy(0));
    assert_eq!(due(FailedAttempt::new(1, ErrorKind::Blocked)), None);
    assert_eq!(due(FailedAttempt::new(1, ErrorKind::Status).with_status_code(410)), None);
    for code in [301, 400, 404, 429, 500, 503] {
        assert!(due(FailedAttempt::new(1, ErrorKind::Status).with_status_code(code)).is_some(), "{code}");
    }
}

#[test]
fn a_policy_that_never_gives_up_is_still_held_to_its_attempts() {
    let due = |number| next_due(&Always(Duration::ZERO), &timed_out(number), None, NOW, &FixedEntropy(0));
    assert!(due(11).is_some());
    assert_eq!(due(12), None);
    assert_eq!(due(u32::MAX), None);
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..100_000_000_000).prop_map(Duration::from_micros),
        (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

proptest! {
    #[test]
    fn the_next_attempt_is_within_the_range_of_its_step(step in any_duration(), chance: u64) {
        let bounded = step.min(MAX_STEP);
        let wait = wait(step, None, chance);
        prop_assert!(wait >= bounded / 2, "{wait:?} of {step:?}");
        prop_assert!(wait < bounded + Duration::from_millis(1), "{wait:?} of {step:?}");
    }

    #[test]
    fn the_next_attempt_is_never_before_retry_after(step in any_duration(), asked in any_duration(), chance: u64) {
        let base = step.min(MAX_STEP).max(asked.min(MAX_RETRY_AFTER));
        let wait = wait(step, Some(asked), chance);
        prop_assert!(wait >= base, "{wait:?} for {step:?} and {asked:?}");
        prop_assert!(wait < base + base / 10 + Duration::from_millis(2), "{wait:?} for {step:?} and {asked:?}");
    }

    #[test]
    fn no_time_overflows(millis: i64, step in any_duration(), asked in proptest::option::of(any_duration()), chance: u64) {
        let now = Timestamp::from_millis(millis);
        let due = next_due(&Always(step), &timed_out(1), asked, now, &FixedEntropy(chance));
        prop_assert!(due.is_some_and(|due| due >= now));
    }

    #[test]
    fn exponential_steps_double_until_the_cap(initial in 1_u64..1_000_000, max in 0_u64..2_000_000_000, attempts in 1_u32..=101) {
        let (initial, max) = (Duration::from_millis(initial), Duration::from_millis(initial + max));
        let policy = ExponentialBackoff::new(initial, max, attempts).unwrap();
        let mut expected = initial;
        for number in 1..attempts {
            prop_assert_eq!(policy.next_step(&timed_out(number)), Some(expected));
            expected = (expected * 2).min(max);
        }
        prop_assert_eq!(policy.next_step(&timed_out(attempts)), None);
    }

    #[test]
    fn a_schedule_of_n_delays_is_n_plus_one_attempts(delays in proptest::collection::vec(0_u64..2_592_000, 0..=100), number: u32) {
        let delays: Vec<_> = delays.into_iter().map(Duration::from_secs).collect();
        let policy = RetrySchedule::new(delays.clone()).unwrap();
        prop_assert_eq!(policy.max_attempts() as usize, delays.len() + 1);
        for (delay, number) in delays.iter().zip(1..) {
            prop_assert_eq!(policy.next_step(&timed_out(number)), Some(*delay));
        }
        prop_assert_eq!(policy.next_step(&timed_out(number.max(policy.max_attempts()))), None);
    }
}
