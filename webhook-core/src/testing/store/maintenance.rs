//! Promises of `MaintenanceStore`.

use super::scene::{LEASE, Scene, at};
use crate::store::{AcceptItem, Backlog, DeliveryFilter, EventFilter, PageRequest, PruneRequest, PruneStep, Recorded};
use crate::{DeliveryId, DeliveryState, EventId, Reason, Timestamp};

pub async fn a_store_that_works_answers_a_ping(scene: Scene) {
    scene.store.ping().await.expect("the store works");
}

async fn step(scene: &Scene, ended_before: Timestamp, cursor: Option<EventId>, limit: u32) -> PruneStep {
    let request = PruneRequest { ended_before, now: at(5_000), cursor, limit };
    scene.store.prune(request).await.expect("the store works")
}

/// Steps until everything was looked at; how many events went.
async fn prune(scene: &Scene, ended_before: Timestamp, limit: u32) -> u64 {
    let (mut cursor, mut events) = (None, 0);
    for _ in 0..1_000 {
        let done = step(scene, ended_before, cursor, limit).await;
        assert!(done.events <= u64::from(limit));
        events += done.events;
        cursor = done.cursor;
        if cursor.is_none() {
            return events;
        }
    }
    panic!("pruning does not come to an end");
}

async fn exists(scene: &Scene, event: EventId) -> bool {
    scene.store.event(&scene.tenant, event).await.expect("the store works").is_some()
}

pub async fn an_event_goes_when_its_last_delivery_ended_long_enough_ago(scene: Scene) {
    let records = scene.subscribe_many(3).await;
    let event = scene.event(&scene.tenant, at(1));
    let deliveries: Vec<_> = records.iter().map(|record| scene.to(record, at(1))).collect();
    let ids: Vec<DeliveryId> = deliveries.iter().map(|new| new.id).collect();
    let id = event.id;
    scene.accept(vec![AcceptItem::new(event, deliveries)]).await;
    scene.deliver(ids[0], at(10)).await;
    scene.deliver(ids[1], at(20)).await;
    assert_eq!(prune(&scene, at(4_000), 10).await, 0, "one delivery is open");
    scene.store.cancel(&scene.tenant, ids[2], at(30)).await.expect("the store works");
    assert_eq!(prune(&scene, at(30), 10).await, 0, "the last one ended just then");
    scene.store.retry(&scene.tenant, ids[0], at(40)).await.expect("the store works");
    assert_eq!(prune(&scene, at(4_000), 10).await, 0, "one was opened again");
    scene.deliver(ids[0], at(50)).await;
    assert_eq!(prune(&scene, at(50), 10).await, 0);
    assert!(exists(&scene, id).await);
    assert_eq!(prune(&scene, at(51), 10).await, 1);
    assert!(!exists(&scene, id).await);
}

pub async fn an_event_without_deliveries_counts_from_when_it_was_accepted(scene: Scene) {
    let event = scene.event(&scene.tenant, at(10));
    let id = event.id;
    scene.accept(vec![AcceptItem::new(event, Vec::new())]).await;
    assert_eq!(prune(&scene, at(10), 10).await, 0);
    assert!(exists(&scene, id).await);
    assert_eq!(prune(&scene, at(11), 10).await, 1);
    assert!(!exists(&scene, id).await);
}

pub async fn deliveries_and_attempts_go_with_their_event(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, gone) = scene.emit(&record, at(1)).await;
    scene.deliver(gone, at(2)).await;
    let (_, stays) = scene.emit(&record, at(1)).await;
    scene.deliver(stays, at(9)).await;
    assert_eq!(prune(&scene, at(5), 10).await, 1);
    assert_eq!(scene.store.delivery(&scene.tenant, gone).await.expect("the store works"), None);
    assert_eq!(scene.store.attempts_of(&scene.tenant, gone).await.expect("the store works"), []);
    let attempts = scene.store.list_attempts(&scene.tenant, record.id, PageRequest::offset(10, 0)).await;
    let attempts = attempts.expect("the store works");
    assert_eq!((attempts.items.len(), attempts.total), (1, Some(1)));
    assert_eq!(attempts.items[0].delivery_id, stays);
    let stats = scene.store.stats(&scene.tenant, None, at(0)).await.expect("the store works");
    assert_eq!((stats.events, stats.successes, stats.deliveries["delivered"]), (1, 1, 1));
}

pub async fn steps_of_pruning_look_at_every_event_once(scene: Scene) {
    let record = scene.subscribe().await;
    let mut kept = Vec::new();
    for second in 0..23 {
        let (event, delivery) = scene.emit(&record, at(second)).await;
        if second % 3 == 0 {
            kept.insert(0, event);
        } else {
            scene.deliver(delivery, at(second)).await;
        }
    }
    let (mut cursor, mut events, mut steps) = (None, 0, 0);
    loop {
        let done = step(&scene, at(1_000), cursor, 4).await;
        assert!(done.events <= 4);
        assert!(done.cursor.is_none() || done.cursor > cursor, "a step goes on");
        (events, steps, cursor) = (events + done.events, steps + 1, done.cursor);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(events, 15);
    assert!((6..=7).contains(&steps), "23 events in {steps} steps of 4");
    let left = scene.store.list_events(&scene.tenant, &EventFilter::default(), PageRequest::newest(100)).await;
    assert_eq!(left.expect("the store works").items.iter().map(|event| event.id).collect::<Vec<_>>(), kept);
}

pub async fn deliveries_of_deleted_subscriptions_are_cancelled_in_steps(scene: Scene) {
    let (record, other) = (scene.subscribe().await, scene.subscribe().await);
    let (_, ended) = scene.emit(&record, at(1)).await;
    scene.deliver(ended, at(1)).await;
    let mut pending = Vec::new();
    for _ in 0..5 {
        pending.push(scene.emit(&record, at(1)).await.1);
    }
    let (_, stays) = scene.emit(&other, at(1)).await;
    let lease = scene.lease(pending[0], at(1)).await;
    let cancel = async |limit| scene.store.cancel_orphans(at(20), limit).await.expect("the store works");
    assert_eq!(cancel(100).await, 0);
    scene.store.delete_subscription(&scene.tenant, record.id, at(10)).await.expect("the store works");
    assert_eq!((cancel(2).await, cancel(2).await, cancel(2).await, cancel(2).await), (2, 2, 1, 0));
    for delivery in &pending {
        let stored = scene.delivery(*delivery).await;
        assert_eq!((stored.state, stored.reason), (DeliveryState::Cancelled, Some(Reason::SubscriptionDeleted)));
        assert_eq!((stored.completed_at, stored.leased), (Some(at(20)), false));
    }
    assert_eq!(scene.record(at(21), scene.success(&lease, at(2))).await, Recorded::Fenced);
    assert_eq!(scene.delivery(ended).await.state, DeliveryState::Delivered);
    assert_eq!(scene.delivery(stays).await.state, DeliveryState::Pending);
}

pub async fn deliveries_of_many_deleted_subscriptions_are_cancelled(scene: Scene) {
    let records = scene.subscribe_many(40).await;
    for some in [&records[..], &records[3..20], &records[7..8]] {
        scene.accept(vec![scene.item_to(some, at(1))]).await;
    }
    let (gone, stay) = records.split_at(30);
    for record in gone {
        scene.store.delete_subscription(&scene.tenant, record.id, at(10)).await.expect("the store works");
    }
    let mut steps = Vec::new();
    while steps.last() != Some(&0) && steps.len() < 20 {
        steps.push(scene.store.cancel_orphans(at(20), 20).await.expect("the store works"));
    }
    assert_eq!(steps, [20, 20, 8, 0]);
    let request = PageRequest::newest(100);
    let all = scene.store.list_deliveries(&scene.tenant, &DeliveryFilter::default(), request).await;
    for delivery in all.expect("the store works").items {
        let stays = stay.iter().any(|record| Some(record.id) == delivery.subscription_id);
        let state = if stays { DeliveryState::Pending } else { DeliveryState::Cancelled };
        assert_eq!(delivery.state, state);
    }
}

pub async fn the_backlog_counts_what_is_pending_and_what_is_due(scene: Scene) {
    let backlog = async |now| scene.store.backlog(now).await.expect("the store works");
    assert_eq!(backlog(at(1)).await, Backlog::default());
    let record = scene.subscribe().await;
    let foreign = scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    let (_, leased) = scene.emit(&record, at(1)).await;
    scene.lease(leased, at(1)).await;
    let (_, ended) = scene.emit(&record, at(1)).await;
    scene.deliver(ended, at(1)).await;
    scene.emit(&foreign, at(3)).await;
    scene.emit(&record, at(4)).await;
    scene.emit(&record, at(400)).await;
    assert_eq!(backlog(at(2)).await, Backlog { pending: 4, due: 0, oldest_due: None });
    assert_eq!(backlog(at(1 + LEASE)).await, Backlog { pending: 4, due: 2, oldest_due: Some(at(3)) });
}
