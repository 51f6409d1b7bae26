//! Promises of `HistoryStore` about what is shown.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::scene::{Scene, at};
use crate::store::{ActivityKind, DeliveryFilter, NextStep, PageRequest, Recorded, TargetEffect, Updated};
use crate::{AttemptId, DeliveryId, DeliveryState, DisabledReason, SubscriptionRecord};

pub async fn deliveries_of_other_tenants_are_unknown(scene: Scene) {
    let record = scene.subscribe().await;
    let (event, delivery) = scene.emit(&record, at(1)).await;
    assert_eq!(scene.store.delivery(&scene.stranger, delivery).await.expect("the store works"), None);
    let unknown = DeliveryId::from_uuid(scene.uuid(at(1)));
    assert_eq!(scene.store.delivery(&scene.tenant, unknown).await.expect("the store works"), None);
    for filter in [
        DeliveryFilter::default(),
        DeliveryFilter { subscription: Some(record.id), ..DeliveryFilter::default() },
        DeliveryFilter { event: Some(event), ..DeliveryFilter::default() },
    ] {
        let page = scene.store.list_deliveries(&scene.stranger, &filter, PageRequest::offset(10, 0)).await;
        let page = page.expect("the store works");
        assert_eq!((page.items.len(), page.total), (0, Some(0)));
    }
}

pub async fn a_pending_delivery_of_a_disabled_subscription_is_held(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, ended) = scene.emit(&record, at(1)).await;
    scene.deliver(ended, at(1)).await;
    let (_, pending) = scene.emit(&record, at(1)).await;
    assert!(!scene.delivery(pending).await.held);
    let disabled = SubscriptionRecord { disabled: Some(DisabledReason::Requested), ..record.clone() };
    let updated = scene.store.update_subscription(&disabled).await.expect("the store works");
    assert!(matches!(updated, Updated::Done(_)));
    assert!(scene.delivery(pending).await.held);
    assert!(!scene.delivery(ended).await.held);
    let filter = DeliveryFilter { state: Some(DeliveryState::Pending), ..DeliveryFilter::default() };
    let page = scene.store.list_deliveries(&scene.tenant, &filter, PageRequest::newest(10)).await;
    assert!(page.expect("the store works").items[0].held);
    assert!(scene.store.delete_subscription(&scene.tenant, record.id, at(2)).await.expect("the store works"));
    assert!(!scene.delivery(pending).await.held, "it waits for nothing any more");
}

pub async fn pages_of_deliveries_show_each_once(scene: Scene) {
    let record = scene.subscribe().await;
    let mut expected = Vec::new();
    for second in 0..7 {
        let (_, delivery) = scene.emit(&record, at(second)).await;
        expected.insert(0, scene.delivery(delivery).await);
    }
    let filter = DeliveryFilter::default();
    let list = async |page| scene.store.list_deliveries(&scene.tenant, &filter, page).await.expect("the store works");
    let first = list(PageRequest::newest(3)).await;
    assert_eq!((first.items.as_slice(), first.has_more, first.total), (&expected[..3], true, None));
    let second = list(PageRequest::after(4, expected[2].id.as_uuid())).await;
    assert_eq!((second.items.as_slice(), second.has_more), (&expected[3..], false));
    let middle = list(PageRequest::offset(3, 2)).await;
    assert_eq!((middle.items.as_slice(), middle.has_more, middle.total), (&expected[2..5], true, Some(7)));
}

pub async fn the_conditions_of_a_delivery_filter_all_hold(scene: Scene) {
    let (record, other) = (scene.subscribe().await, scene.subscribe().await);
    let mut wanted = Vec::new();
    for second in 0..4 {
        let (event, delivery) = scene.emit(&record, at(second)).await;
        scene.emit(&other, at(second)).await;
        if second % 2 == 1 {
            scene.deliver(delivery, at(10)).await;
            wanted.push((event, delivery));
        }
    }
    let mut filter = DeliveryFilter {
        state: Some(DeliveryState::Delivered),
        subscription: Some(record.id),
        event: None,
        since: Some(at(1)),
    };
    let list = async |filter: &DeliveryFilter| {
        let page = scene.store.list_deliveries(&scene.tenant, filter, PageRequest::offset(10, 0)).await;
        let page = page.expect("the store works");
        assert_eq!(page.total, Some(page.items.len() as u64));
        page.items.iter().map(|delivery| delivery.id).collect::<Vec<_>>()
    };
    assert_eq!(list(&filter).await, [wanted[1].1, wanted[0].1]);
    filter.since = Some(at(2));
    assert_eq!(list(&filter).await, [wanted[1].1]);
    filter.event = Some(wanted[0].0);
    assert_eq!(list(&filter).await, []);
}

pub async fn attempts_come_back_as_they_were_recorded(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    let mut expected = Vec::new();
    for status in [503, 429] {
        let lease = scene.lease(delivery, at(20)).await;
        let mut outcome = scene.failure(&lease, at(2), NextStep::RetryAt(at(10)));
        if let Some(attempt) = outcome.attempt.as_mut().map(Arc::make_mut) {
            attempt.status_code = Some(status);
            attempt.event_type = Some("order.paid".parse().expect("a legal type"));
            attempt.target_url = "https://example.com/h\u{f6}ok?x=%00".to_owned();
            attempt.duration = Duration::from_millis(4_321);
            attempt.request_headers = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "\u{e9}".to_owned())];
            attempt.response_headers = vec![("set-cookie".to_owned(), "x=\"y\"; z".to_owned())];
            attempt.response_body = Bytes::from_static(b"\x00\xff not UTF-8 \xc3");
            attempt.response_truncated = true;
            expected.push(attempt.clone());
        }
        assert_eq!(scene.record(at(21), outcome).await, Recorded::Done);
    }
    assert_eq!(scene.store.attempts_of(&scene.tenant, delivery).await.expect("the store works"), expected);
    expected.reverse();
    let page = scene.store.list_attempts(&scene.tenant, record.id, PageRequest::newest(10)).await;
    assert_eq!(page.expect("the store works").items, expected);
}

pub async fn attempts_of_other_tenants_are_not_shown(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    scene.deliver(delivery, at(2)).await;
    assert_eq!(scene.store.attempts_of(&scene.stranger, delivery).await.expect("the store works"), []);
    let page = scene.store.list_attempts(&scene.stranger, record.id, PageRequest::offset(10, 0)).await;
    let page = page.expect("the store works");
    assert_eq!((page.items.len(), page.has_more, page.total), (0, false, Some(0)));
}

pub async fn pages_of_attempts_show_each_once(scene: Scene) {
    let (record, other) = (scene.subscribe().await, scene.subscribe().await);
    let mut expected: Vec<AttemptId> = Vec::new();
    for second in 1..8 {
        for record in [&record, &other] {
            let (_, delivery) = scene.emit(record, at(second)).await;
            let lease = scene.lease(delivery, at(second)).await;
            let outcome = scene.success(&lease, at(second));
            if record.id != other.id {
                expected.insert(0, outcome.attempt.as_ref().expect("a success has an attempt").id);
            }
            assert_eq!(scene.record(at(second), outcome).await, Recorded::Done);
        }
    }
    let list = async |page| {
        let page = scene.store.list_attempts(&scene.tenant, record.id, page).await.expect("the store works");
        (page.items.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), page.has_more, page.total)
    };
    assert_eq!(list(PageRequest::newest(3)).await, (expected[..3].to_vec(), true, None));
    assert_eq!(list(PageRequest::after(4, expected[2].as_uuid())).await, (expected[3..].to_vec(), false, None));
    assert_eq!(list(PageRequest::offset(3, 2)).await, (expected[2..5].to_vec(), true, Some(7)));
}

pub async fn figures_count_what_happened_from_that_time_on(scene: Scene) {
    let (record, other) = (scene.subscribe().await, scene.subscribe().await);
    let disabled = SubscriptionRecord { disabled: Some(DisabledReason::Requested), ..other.clone() };
    scene.emit(&other, at(99)).await;
    scene.emit(&other, at(100)).await;
    scene.store.update_subscription(&disabled).await.expect("the store works");
    let (_, early) = scene.emit(&record, at(99)).await;
    scene.deliver(early, at(99)).await;
    let (_, failing) = scene.emit(&record, at(100)).await;
    let lease = scene.lease(failing, at(100)).await;
    scene.record(at(101), scene.failure(&lease, at(100), NextStep::RetryAt(at(900)))).await;
    let (_, fine) = scene.emit(&record, at(101)).await;
    scene.deliver(fine, at(102)).await;

    let stats = scene.store.stats(&scene.tenant, None, at(100)).await.expect("the store works");
    assert_eq!((stats.subscriptions, stats.enabled_subscriptions, stats.events), (2, 1, 3));
    assert_eq!((stats.successes, stats.failures), (1, 1));
    let states: Vec<_> = stats.deliveries.into_iter().collect();
    assert_eq!(states, [("cancelled", 0), ("delivered", 1), ("exhausted", 0), ("pending", 2)]);

    let stats = scene.store.stats(&scene.tenant, Some(record.id), at(100)).await.expect("the store works");
    assert_eq!((stats.subscriptions, stats.enabled_subscriptions, stats.events), (1, 1, 2));
    assert_eq!((stats.successes, stats.failures), (1, 1));
    assert_eq!((stats.deliveries["delivered"], stats.deliveries["pending"]), (1, 1));
}

pub async fn percentiles_are_by_nearest_rank(scene: Scene) {
    let record = scene.subscribe().await;
    let stats = scene.store.stats(&scene.tenant, None, at(0)).await.expect("the store works");
    assert_eq!((stats.p50_ms, stats.p99_ms), (None, None));
    let mut expected = Vec::new();
    for millis in [40, 10, 30, 20, 1_000] {
        let (_, delivery) = scene.emit(&record, at(1)).await;
        let lease = scene.lease(delivery, at(1)).await;
        let mut outcome = scene.success(&lease, at(1));
        if let Some(attempt) = outcome.attempt.as_mut().map(Arc::make_mut) {
            attempt.duration = Duration::from_millis(millis);
        }
        scene.record(at(2), outcome).await;
        let stats = scene.store.stats(&scene.tenant, Some(record.id), at(0)).await.expect("the store works");
        expected.push((stats.p50_ms, stats.p99_ms));
    }
    let pairs = [(40, 40), (10, 40), (30, 40), (20, 40), (30, 1_000)];
    assert_eq!(expected, pairs.map(|(p50, p99)| (Some(p50), Some(p99))));
}

pub async fn figures_leave_out_other_tenants(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    scene.deliver(delivery, at(1)).await;
    for only in [None, Some(record.id)] {
        let stats = scene.store.stats(&scene.stranger, only, at(0)).await.expect("the store works");
        assert_eq!((stats.subscriptions, stats.events, stats.successes, stats.p50_ms), (0, 0, 0, None));
        assert_eq!(stats.deliveries.len(), DeliveryState::ALL.len(), "every state is named");
        assert!(stats.deliveries.values().all(|count| *count == 0));
    }
}

pub async fn activity_shows_the_newest_first_and_only_the_tenants(scene: Scene) {
    let record = scene.subscribe().await;
    scene.insert(scene.record_of(&scene.stranger, at(50))).await;
    let (event, delivery) = scene.emit(&record, at(1)).await;
    let lease = scene.lease(delivery, at(2)).await;
    scene.record(at(9), scene.failure(&lease, at(2), NextStep::RetryAt(at(3)))).await;
    scene.affect(delivery, at(4), TargetEffect::None).await;
    let activity = scene.store.activity(&scene.tenant, 10).await.expect("the store works");
    let kinds: Vec<_> = activity.iter().map(|activity| (activity.kind, activity.at)).collect();
    let expected = [
        (ActivityKind::AttemptSucceeded, at(4)),
        (ActivityKind::AttemptFailed, at(2)),
        (ActivityKind::EventAccepted, at(1)),
        (ActivityKind::SubscriptionCreated, at(0)),
    ];
    assert_eq!(kinds, expected);
    assert_eq!((activity[1].subscription_id, activity[1].status_code), (Some(record.id), Some(500)));
    assert_eq!((activity[1].event_id, activity[1].delivery_id), (Some(event), Some(delivery)));
    assert_eq!((activity[2].event_id, activity[3].subscription_id), (Some(event), Some(record.id)));
    assert_eq!(scene.store.activity(&scene.tenant, 2).await.expect("the store works"), activity[..2]);
}
