//! The conformance suite for queues: see [`queue_conformance`](crate::queue_conformance).

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::{DeliveryId, Hint, Queue, TargetId, Timestamp};

/// Expands to one `#[test]` for each promise of [`Queue`](crate::Queue).
///
/// The argument is a path to an async function, or a closure that gives a future, whose output is
/// `(Arc<dyn Queue>, guard)`: a fresh, empty queue, and what keeps its resources alive until the case ends.
#[macro_export]
macro_rules! queue_conformance {
    ($factory:expr) => {
        $crate::queue_conformance! { @test ($factory)
            a_hint_pushed_again_is_due_at_its_new_time
            no_hint_comes_before_it_is_due
            the_hints_due_first_come_first
            a_held_hint_comes_to_nobody_before_the_hold_ends
            a_held_hint_that_is_pushed_anew_comes_at_its_new_time
            concurrent_pops_never_share_a_hint
            hints_that_are_done_come_no_more
            the_depth_counts_each_hint_once_and_held_ones_too
        }
    };
    (@test ($factory:expr) $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testing::run_case(async {
                    let (queue, guard) = $factory().await;
                    $crate::testing::queue::$case(queue).await;
                    drop(guard);
                });
            }
        )*
    };
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(seconds)
}

fn hint(number: u128, due: Timestamp) -> Hint {
    let target = TargetId::from_uuid(Uuid::from_u128(number % 7));
    Hint::new(DeliveryId::from_uuid(Uuid::from_u128(number)), target, due)
}

async fn push(queue: &dyn Queue, hints: &[Hint]) {
    queue.push(hints).await.expect("the queue works");
}

async fn pop(queue: &dyn Queue, now: Timestamp, hold_until: Timestamp, limit: u32) -> Vec<Hint> {
    queue.pop(now, hold_until, limit).await.expect("the queue works")
}

#[doc(hidden)]
pub async fn a_hint_pushed_again_is_due_at_its_new_time(queue: Arc<dyn Queue>) {
    push(&*queue, &[hint(1, at(10)), hint(2, at(5))]).await;
    push(&*queue, &[hint(1, at(1)), hint(2, at(20))]).await;
    assert_eq!(pop(&*queue, at(6), at(100), 10).await, [hint(1, at(1))]);
    assert_eq!(pop(&*queue, at(20), at(100), 10).await, [hint(2, at(20))]);
}

#[doc(hidden)]
pub async fn no_hint_comes_before_it_is_due(queue: Arc<dyn Queue>) {
    push(&*queue, &[hint(1, at(10))]).await;
    let just_before = Timestamp::from_millis(at(10).as_millis() - 1);
    assert_eq!(pop(&*queue, just_before, at(100), 10).await, []);
    assert_eq!(pop(&*queue, at(10), at(100), 10).await, [hint(1, at(10))]);
}

#[doc(hidden)]
pub async fn the_hints_due_first_come_first(queue: Arc<dyn Queue>) {
    let hints: Vec<_> = (1..=50).map(|number| hint(number, at(100 - number as u64))).collect();
    push(&*queue, &hints).await;
    let mut expected = hints;
    expected.reverse();
    assert_eq!(pop(&*queue, at(200), at(300), 20).await, expected[..20]);
    assert_eq!(pop(&*queue, at(200), at(300), 100).await, expected[20..]);
}

#[doc(hidden)]
pub async fn a_held_hint_comes_to_nobody_before_the_hold_ends(queue: Arc<dyn Queue>) {
    push(&*queue, &[hint(1, at(1))]).await;
    assert_eq!(pop(&*queue, at(2), at(60), 10).await.len(), 1);
    assert_eq!(pop(&*queue, at(59), at(120), 10).await, []);
    assert_eq!(pop(&*queue, at(60), at(120), 10).await, [hint(1, at(60))]);
}

#[doc(hidden)]
pub async fn a_held_hint_that_is_pushed_anew_comes_at_its_new_time(queue: Arc<dyn Queue>) {
    push(&*queue, &[hint(1, at(1))]).await;
    assert_eq!(pop(&*queue, at(1), at(60), 10).await.len(), 1);
    push(&*queue, &[hint(1, at(5))]).await;
    assert_eq!(pop(&*queue, at(5), at(70), 10).await, [hint(1, at(5))]);
}

#[doc(hidden)]
pub async fn concurrent_pops_never_share_a_hint(queue: Arc<dyn Queue>) {
    let hints: Vec<_> = (1..=800).map(|number| hint(number, at(1))).collect();
    push(&*queue, &hints).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let hints = pop(&*queue, at(2), at(60), 7).await;
                    if hints.is_empty() {
                        return mine;
                    }
                    mine.extend(hints);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("no task panics").into_iter().map(|hint| hint.delivery));
    }
    all.sort_unstable();
    assert_eq!(all, hints.iter().map(|hint| hint.delivery).collect::<Vec<_>>());
}

#[doc(hidden)]
pub async fn hints_that_are_done_come_no_more(queue: Arc<dyn Queue>) {
    push(&*queue, &[hint(1, at(1)), hint(2, at(1)), hint(3, at(1))]).await;
    assert_eq!(pop(&*queue, at(1), at(2), 1).await.len(), 1);
    queue.done(&[hint(1, at(1)), hint(9, at(1)), hint(2, at(7))]).await.expect("the queue works");
    queue.done(&[]).await.expect("the queue works");
    let left: Vec<_> = pop(&*queue, at(1_000), at(2_000), 10).await.iter().map(|hint| hint.delivery).collect();
    assert_eq!(left, [hint(3, at(1)).delivery]);
}

#[doc(hidden)]
pub async fn the_depth_counts_each_hint_once_and_held_ones_too(queue: Arc<dyn Queue>) {
    assert_eq!(queue.depth().await.expect("the queue works"), 0);
    push(&*queue, &[hint(1, at(1)), hint(2, at(9)), hint(1, at(3))]).await;
    assert_eq!(queue.depth().await.expect("the queue works"), 2);
    assert_eq!(pop(&*queue, at(3), at(60), 10).await.len(), 1);
    assert_eq!(queue.depth().await.expect("the queue works"), 2);
}
