//! Promises of `EventStore::accept` about idempotency keys and about what happens at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::scene::{Scene, at, key};
use crate::store::{AcceptItem, AcceptOutcome, AcceptUnit, EventFilter, IdempotencyKey, ItemOutcome, PageRequest};
use crate::{EventReceipt, Generation, Timestamp};

/// A unit with one event under an item key.
fn keyed(scene: &Scene, now: Timestamp, key: IdempotencyKey) -> AcceptUnit {
    let mut item = AcceptItem::new(scene.event(&scene.tenant, now), Vec::new());
    item.key = Some(key);
    AcceptUnit::new(scene.tenant.clone(), Generation::ZERO, vec![item])
}

fn receipt(unit: &AcceptUnit, index: usize) -> EventReceipt {
    EventReceipt::of(&unit.items[index].event, &unit.items[index].deliveries)
}

async fn stored(scene: &Scene) -> u64 {
    let page = scene.store.list_events(&scene.tenant, &EventFilter::default(), PageRequest::offset(1, 0)).await;
    page.expect("the store works").total.expect("an offset gives the total")
}

pub async fn a_key_used_again_gives_the_first_receipt_within_a_call_and_in_a_later_one(scene: Scene) {
    let units =
        [keyed(&scene, at(1), key("k", 1)), keyed(&scene, at(1), key("k", 1)), keyed(&scene, at(1), key("k", 2))];
    let first = receipt(&units[0], 0);
    let expected = [
        AcceptOutcome::Done(vec![ItemOutcome::Created(first.clone())]),
        AcceptOutcome::Done(vec![ItemOutcome::Duplicate(first.clone())]),
        AcceptOutcome::Done(vec![ItemOutcome::Conflict]),
    ];
    assert_eq!(scene.accept_units(at(1), &units).await, expected);
    let later = [keyed(&scene, at(2), key("k", 1)), keyed(&scene, at(2), key("k", 2))];
    assert_eq!(scene.accept_units(at(2), &later).await, expected[1..]);
    assert_eq!(stored(&scene).await, 1);
}

pub async fn a_key_counts_for_its_tenant_scope_and_time(scene: Scene) {
    let first = keyed(&scene, at(1), key("k", 1));
    let elsewhere = keyed(&scene, at(1), IdempotencyKey::new("other", "k".to_owned(), [1; 32], at(10_000)));
    let mut foreign = keyed(&scene, at(1), key("k", 1));
    foreign.tenant = scene.stranger.clone();
    foreign.items[0].event.tenant = scene.stranger.clone();
    for outcome in scene.accept_units(at(1), &[first, elsewhere, foreign]).await {
        assert!(matches!(&outcome, AcceptOutcome::Done(items) if matches!(items[0], ItemOutcome::Created(_))));
    }
    let later = IdempotencyKey::new("test", "k".to_owned(), [2; 32], at(20_000));
    let again = [keyed(&scene, at(10_000), later.clone()), keyed(&scene, at(10_000), later)];
    let receipt = receipt(&again[0], 0);
    let outcomes = scene.accept_units(at(10_000), &again).await;
    assert_eq!(outcomes[0], AcceptOutcome::Done(vec![ItemOutcome::Created(receipt.clone())]), "the old one expired");
    assert_eq!(outcomes[1], AcceptOutcome::Done(vec![ItemOutcome::Duplicate(receipt)]), "the new one replaced it");
}

pub async fn the_key_of_a_call_gives_all_its_receipts_again_whatever_changed_meanwhile(scene: Scene) {
    scene.accept_units(at(1), &[keyed(&scene, at(1), key("taken", 1))]).await;
    let mut unit = keyed(&scene, at(1), key("taken", 2));
    unit.key = Some(key("call", 1));
    unit.items.insert(0, AcceptItem::new(scene.event(&scene.tenant, at(1)), Vec::new()));
    let first = receipt(&unit, 0);
    let outcomes = scene.accept_units(at(1), std::slice::from_ref(&unit)).await;
    let created = vec![ItemOutcome::Created(first.clone()), ItemOutcome::Conflict];
    assert_eq!(outcomes, [AcceptOutcome::Done(created)], "one bad item fails alone");
    scene.subscribe().await;
    let outcomes = scene.accept_units(at(2), std::slice::from_ref(&unit)).await;
    assert_eq!(outcomes, [AcceptOutcome::Done(vec![ItemOutcome::Duplicate(first), ItemOutcome::Conflict])]);
    // Without events, and whatever the generation, it only asks.
    let ask = |text, fingerprint| {
        let mut unit = AcceptUnit::new(scene.tenant.clone(), Generation::new(i64::MAX), Vec::new());
        unit.key = Some(key(text, fingerprint));
        unit
    };
    let outcomes = scene.accept_units(at(2), &[ask("call", 1), ask("call", 2), ask("free", 1), ask("free", 2)]).await;
    let again = AcceptOutcome::Done(vec![ItemOutcome::Duplicate(receipt(&unit, 0)), ItemOutcome::Conflict]);
    assert_eq!(outcomes, [again, AcceptOutcome::Conflict, AcceptOutcome::Stale, AcceptOutcome::Stale]);
    unit.key = Some(key("call", 2));
    assert_eq!(scene.accept_units(at(2), &[unit]).await, [AcceptOutcome::Conflict]);
    assert_eq!(stored(&scene).await, 2);
}

pub async fn a_stale_unit_does_not_use_up_its_key(scene: Scene) {
    let mut unit = keyed(&scene, at(1), key("k", 1));
    unit.key = Some(key("call", 1));
    unit.generation = Generation::new(7);
    assert_eq!(scene.accept_units(at(1), std::slice::from_ref(&unit)).await, [AcceptOutcome::Stale]);
    unit.generation = Generation::ZERO;
    let expected = AcceptOutcome::Done(vec![ItemOutcome::Created(receipt(&unit, 0))]);
    assert_eq!(scene.accept_units(at(1), &[unit]).await, [expected]);
}

pub async fn of_64_concurrent_calls_with_one_key_exactly_one_creates(scene: Scene) {
    let scene = Arc::new(scene);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.accept_units(at(1), &[keyed(&scene, at(1), key("k", 1))]).await })
        })
        .collect();
    let (mut created, mut repeated) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.expect("no task panics").as_slice() {
            [AcceptOutcome::Done(items)] => match items.as_slice() {
                [ItemOutcome::Created(receipt)] => created.push(receipt.clone()),
                [ItemOutcome::Duplicate(receipt)] => repeated.push(receipt.clone()),
                other => panic!("unexpected: {other:?}"),
            },
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!((created.len(), repeated.len()), (1, 63));
    assert!(repeated.iter().all(|receipt| *receipt == created[0]));
    assert_eq!(stored(&scene).await, 1);
}

pub async fn no_accept_that_begins_after_a_change_goes_by_what_was_before(scene: Scene) {
    let scene = Arc::new(scene);
    let changed = Arc::new(AtomicI64::new(0));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (scene, changed) = (Arc::clone(&scene), Arc::clone(&changed));
            tokio::spawn(async move {
                for _ in 0..50 {
                    let used = scene.generation(&scene.tenant).await;
                    tokio::task::yield_now().await;
                    let seen = changed.load(Ordering::SeqCst);
                    let items = vec![AcceptItem::new(scene.event(&scene.tenant, at(1)), Vec::new())];
                    let unit = AcceptUnit::new(scene.tenant.clone(), used, items);
                    if let [AcceptOutcome::Done(_)] = scene.accept_units(at(1), &[unit]).await.as_slice() {
                        assert!(used.get() >= seen, "accepted at {used:?} after generation {seen}");
                    }
                }
            })
        })
        .collect();
    for _ in 0..30 {
        let record = scene.subscribe().await;
        changed.store(record.version.get(), Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.expect("no task panics");
    }
}
