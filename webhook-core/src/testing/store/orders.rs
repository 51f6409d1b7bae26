//! Promises of `HistoryStore` about orders: retrying, cancelling, recovering.

use super::scene::{LEASE, Scene, at};
use crate::store::{
    AcceptItem, AddedDelivery, CancelOutcome, DeliveryFilter, NextStep, PageRequest, Recorded, RetryOutcome,
    TargetEffect,
};
use crate::{DeliveryId, DeliveryState, EventId, Reason, SubscriptionId, SubscriptionRecord, TenantId, Timestamp};

async fn retry(scene: &Scene, id: DeliveryId, now: Timestamp) -> RetryOutcome {
    scene.store.retry(&scene.tenant, id, now).await.expect("the store works")
}

async fn cancel(scene: &Scene, id: DeliveryId, now: Timestamp) -> CancelOutcome {
    scene.store.cancel(&scene.tenant, id, now).await.expect("the store works")
}

pub async fn a_retried_delivery_remembers_its_end_and_can_go_back_to_it(scene: Scene) {
    let record = scene.subscribe().await;
    let ends = [
        (DeliveryState::Delivered, None),
        (DeliveryState::Exhausted, Some(Reason::AttemptsExhausted)),
        (DeliveryState::Cancelled, Some(Reason::Requested)),
    ];
    for (state, reason) in ends {
        let (_, delivery) = scene.emit(&record, at(1)).await;
        let lease = scene.lease(delivery, at(1)).await;
        assert_eq!(lease.reopened, None);
        scene.record(at(2), scene.failure(&lease, at(1), NextStep::End(state, reason))).await;
        assert_eq!(retry(&scene, delivery, at(100)).await, RetryOutcome::Done);
        let stored = scene.delivery(delivery).await;
        assert_eq!((stored.state, stored.reason, stored.completed_at), (DeliveryState::Pending, None, None));
        assert_eq!((stored.next_at, stored.attempts), (at(100), 1));
        let lease = scene.lease(delivery, at(100)).await;
        assert_eq!((lease.reopened, lease.attempts), (Some((state, reason)), 1));
        let outcome = scene.failure(&lease, at(100), NextStep::End(state, reason));
        assert_eq!(scene.record(at(101), outcome).await, Recorded::Done);
        let stored = scene.delivery(delivery).await;
        assert_eq!((stored.state, stored.reason, stored.completed_at), (state, reason, Some(at(101))));
        assert_eq!(stored.attempts, 2);
        assert_eq!(retry(&scene, delivery, at(200)).await, RetryOutcome::Done);
        let lease = scene.lease(delivery, at(200)).await;
        assert_eq!(lease.reopened, Some((state, reason)), "it can be retried again");
        scene.record(at(201), scene.success(&lease, at(200))).await;
        assert_eq!(retry(&scene, delivery, at(300)).await, RetryOutcome::Done);
        let lease = scene.lease(delivery, at(300)).await;
        assert_eq!(lease.reopened, Some((DeliveryState::Delivered, None)), "the last end counts");
    }
}

pub async fn a_pending_delivery_only_becomes_due_and_a_reopened_one_stays_so(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(500)).await;
    assert_eq!(retry(&scene, delivery, at(10)).await, RetryOutcome::Done);
    let stored = scene.delivery(delivery).await;
    assert_eq!((stored.next_at, stored.attempts, stored.state), (at(10), 0, DeliveryState::Pending));
    let lease = scene.lease(delivery, at(10)).await;
    assert_eq!(lease.reopened, None);
    scene.record(at(11), scene.success(&lease, at(10))).await;

    assert_eq!(retry(&scene, delivery, at(20)).await, RetryOutcome::Done);
    let lease = scene.lease(delivery, at(20)).await;
    let reopened = lease.reopened;
    scene.record(at(21), scene.failure(&lease, at(20), NextStep::RetryAt(at(900)))).await;
    assert_eq!(retry(&scene, delivery, at(30)).await, RetryOutcome::Done);
    let lease = scene.lease(delivery, at(30)).await;
    assert_eq!((lease.reopened, reopened), (reopened, Some((DeliveryState::Delivered, None))));
}

pub async fn a_leased_delivery_is_not_retried(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    let lease = scene.lease(delivery, at(1)).await;
    let before = scene.delivery(delivery).await;
    assert_eq!(retry(&scene, delivery, at(LEASE)).await, RetryOutcome::Leased);
    assert_eq!(scene.delivery(delivery).await, before);
    assert_eq!(scene.record(at(2), scene.success(&lease, at(1))).await, Recorded::Done);
}

pub async fn a_delivery_whose_lease_ended_is_retried(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    scene.lease(delivery, at(1)).await;
    assert_eq!(retry(&scene, delivery, at(1 + LEASE)).await, RetryOutcome::Done);
    assert_eq!(scene.lease(delivery, at(1 + LEASE)).await.attempts, 0);
}

pub async fn a_retry_ends_a_pause(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    scene.affect(delivery, at(2), TargetEffect::Pause(at(500))).await;
    assert_eq!(retry(&scene, delivery, at(3)).await, RetryOutcome::Done);
    let stored = scene.stored(&record).await;
    assert_eq!((stored.paused_until, stored.version), (None, record.version));
    assert_eq!(scene.claim(at(3), 10).await.len(), 1);
}

pub async fn a_delivery_of_a_deleted_subscription_or_another_tenant_is_not_retried(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, pending) = scene.emit(&record, at(1)).await;
    let (_, ended) = scene.emit(&record, at(1)).await;
    scene.deliver(ended, at(1)).await;
    let foreign = scene.store.retry(&scene.stranger, ended, at(2)).await.expect("the store works");
    assert_eq!(foreign, RetryOutcome::Missing);
    assert_eq!(retry(&scene, DeliveryId::from_uuid(scene.uuid(at(1))), at(2)).await, RetryOutcome::Missing);
    scene.store.delete_subscription(&scene.tenant, record.id, at(2)).await.expect("the store works");
    for delivery in [pending, ended] {
        let before = scene.delivery(delivery).await;
        assert_eq!(retry(&scene, delivery, at(3)).await, RetryOutcome::TargetGone);
        assert_eq!(scene.delivery(delivery).await, before);
    }
}

pub async fn a_retried_delivery_has_lost_no_lease(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    for round in 0..6 {
        scene.claim(at(1 + round * LEASE), 10).await;
    }
    assert_eq!(scene.delivery(delivery).await.reason, Some(Reason::LostLeases));
    assert_eq!(retry(&scene, delivery, at(500)).await, RetryOutcome::Done);
    let lease = scene.lease(delivery, at(500)).await;
    assert_eq!(lease.reopened, Some((DeliveryState::Exhausted, Some(Reason::LostLeases))));
    scene.lease(delivery, at(500 + LEASE)).await;
    assert_eq!(scene.delivery(delivery).await.lost_leases, 1);
}

pub async fn a_cancelled_delivery_is_over_and_its_lease_void(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    let lease = scene.lease(delivery, at(1)).await;
    assert_eq!(cancel(&scene, delivery, at(2)).await, CancelOutcome::Done);
    let stored = scene.delivery(delivery).await;
    assert_eq!((stored.state, stored.reason), (DeliveryState::Cancelled, Some(Reason::Requested)));
    assert_eq!((stored.completed_at, stored.leased), (Some(at(2)), false));
    assert_eq!(scene.record(at(3), scene.success(&lease, at(1))).await, Recorded::Fenced);
    assert_eq!(scene.claim(at(1_000), 10).await, []);
}

pub async fn a_delivery_that_ended_or_is_foreign_is_not_cancelled(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    let foreign = scene.store.cancel(&scene.stranger, delivery, at(1)).await.expect("the store works");
    assert_eq!(foreign, CancelOutcome::Missing);
    assert_eq!(cancel(&scene, DeliveryId::from_uuid(scene.uuid(at(1))), at(1)).await, CancelOutcome::Missing);
    scene.deliver(delivery, at(2)).await;
    let before = scene.delivery(delivery).await;
    assert_eq!(cancel(&scene, delivery, at(3)).await, CancelOutcome::Finished);
    assert_eq!(scene.delivery(delivery).await, before);
}

async fn recoverable(
    scene: &Scene,
    id: SubscriptionId,
    window: (u64, u64),
    after: Option<EventId>,
    limit: u32,
) -> Vec<(EventId, Option<(DeliveryId, DeliveryState)>)> {
    let (since, until) = (at(window.0), at(window.1));
    let found = scene.store.recoverable(&scene.tenant, id, since, until, after, limit).await;
    found.expect("the store works").into_iter().map(|event| (event.event, event.delivery)).collect()
}

pub async fn recoverable_events_come_oldest_first_with_their_deliveries(scene: Scene) {
    let (record, other) = (scene.subscribe().await, scene.subscribe().await);
    let mut expected = Vec::new();
    for second in 0..6 {
        let (event, delivery) = scene.emit(if second % 2 == 0 { &record } else { &other }, at(second)).await;
        if second == 2 {
            scene.deliver(delivery, at(5)).await;
        }
        let state = if second == 2 { DeliveryState::Delivered } else { DeliveryState::Pending };
        expected.push((event, (second % 2 == 0).then_some((delivery, state))));
    }
    assert_eq!(recoverable(&scene, record.id, (1, 5), None, 10).await, expected[1..5], "the end is exclusive");
    assert_eq!(recoverable(&scene, record.id, (1, 5), None, 2).await, expected[1..3]);
    assert_eq!(recoverable(&scene, record.id, (1, 5), Some(expected[2].0), 10).await, expected[3..5]);
}

pub async fn direct_and_foreign_events_cannot_be_recovered_and_types_do_not_matter(scene: Scene) {
    let record = scene.subscribe().await;
    let mut direct = scene.event(&scene.tenant, at(1));
    direct.direct = true;
    let mut untyped = scene.event(&scene.tenant, at(1));
    untyped.event_type = None;
    let foreign = scene.event(&scene.stranger, at(1));
    let wanted = untyped.id;
    for event in [direct, untyped, foreign] {
        scene.accept(vec![AcceptItem::new(event, Vec::new())]).await;
    }
    assert_eq!(recoverable(&scene, record.id, (0, 9), None, 10).await, [(wanted, None)]);
}

async fn add(scene: &Scene, tenant: &TenantId, record: &SubscriptionRecord, events: &[EventId]) -> u64 {
    let add = |event: &EventId| AddedDelivery { id: DeliveryId::from_uuid(scene.uuid(at(60))), event: *event };
    let added: Vec<_> = events.iter().map(add).collect();
    scene.store.add_deliveries(tenant, record.id, &added, at(60)).await.expect("the store works")
}

async fn deliveries_to(scene: &Scene, record: &SubscriptionRecord) -> Vec<crate::Delivery> {
    let filter = DeliveryFilter { subscription: Some(record.id), ..DeliveryFilter::default() };
    let page = scene.store.list_deliveries(&record.tenant, &filter, PageRequest::newest(100)).await;
    page.expect("the store works").items
}

pub async fn added_deliveries_are_due_now_and_added_once(scene: Scene) {
    let (record, missed) = (scene.subscribe().await, scene.subscribe().await);
    let (has, _) = scene.emit(&missed, at(1)).await;
    let (first, _) = scene.emit(&record, at(1)).await;
    let (second, _) = scene.emit(&record, at(2)).await;
    let unknown = EventId::from_uuid(scene.uuid(at(1)));
    let events = [has, first, second, unknown, first];
    assert_eq!(add(&scene, &scene.tenant, &missed, &events).await, 2);
    assert_eq!(add(&scene, &scene.tenant, &missed, &events).await, 0);
    let deliveries = deliveries_to(&scene, &missed).await;
    assert_eq!(deliveries.iter().map(|delivery| delivery.event_id).collect::<Vec<_>>(), [second, first, has]);
    assert_eq!((deliveries[0].next_at, deliveries[0].created_at), (at(60), at(60)));
    let recoverable = recoverable(&scene, missed.id, (0, 9), None, 10).await;
    assert!(recoverable.iter().all(|(_, delivery)| delivery.is_some()));
    let stored = scene.store.event(&scene.tenant, first).await.expect("the store works").expect("it is there");
    assert_eq!(stored.1, 1, "how many it was given when it was accepted");
    assert_eq!(scene.claim_ids(at(60), &[deliveries[0].id]).await.leases.len(), 1);
}

pub async fn nothing_is_added_to_a_deleted_or_foreign_subscription_or_for_a_foreign_event(scene: Scene) {
    let record = scene.subscribe().await;
    let foreign = scene.insert(scene.record_of(&scene.stranger, at(0))).await;
    let event = scene.event(&scene.tenant, at(1));
    let id = event.id;
    scene.accept(vec![AcceptItem::new(event, Vec::new())]).await;
    assert_eq!(add(&scene, &scene.tenant, &foreign, &[id]).await, 0);
    assert_eq!(add(&scene, &scene.stranger, &foreign, &[id]).await, 0);
    assert_eq!(add(&scene, &scene.stranger, &record, &[id]).await, 0);
    scene.store.delete_subscription(&scene.tenant, record.id, at(2)).await.expect("the store works");
    assert_eq!(add(&scene, &scene.tenant, &record, &[id]).await, 0);
    assert_eq!(scene.store.backlog(at(99)).await.expect("the store works").pending, 0);
}
