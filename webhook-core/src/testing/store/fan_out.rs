//! Promises about events with many deliveries, which a store may keep together until something happens to them.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::{LEASE, Scene, at};
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, CancelOutcome, ClaimRequest, DeliveryFilter, ItemOutcome, Lease, LeaseGrant,
    NextStep, PageRequest, Recorded, Release, Room, TargetEffect, Updated,
};
use crate::{
    Delivery, DeliveryId, DeliveryState, DisabledReason, EventId, Reason, SubscriptionRecord, TargetId, Timestamp,
};

/// Two full runs of ids, and the beginning of a third.
pub(super) const LARGE: usize = 130;

/// Accepts an event with a delivery to each of them.
pub(super) async fn emit(scene: &Scene, records: &[SubscriptionRecord], now: Timestamp) -> (EventId, Vec<DeliveryId>) {
    let item = scene.item_to(records, now);
    let ids = (item.event.id, ids_of(&item));
    scene.accept(vec![item]).await;
    ids
}

pub(super) fn ids_of(item: &AcceptItem) -> Vec<DeliveryId> {
    item.deliveries.iter().map(|new| new.id).collect()
}

pub(super) fn of_event(event: EventId) -> DeliveryFilter {
    DeliveryFilter { event: Some(event), ..DeliveryFilter::default() }
}

/// What a filter finds, page by page and by offset; both must show the same.
pub(super) async fn listed(scene: &Scene, filter: &DeliveryFilter, limit: u32) -> Vec<Delivery> {
    let list = async |page| scene.store.list_deliveries(&scene.tenant, filter, page).await.expect("the store works");
    let (mut all, mut page) = (Vec::new(), PageRequest::newest(limit));
    loop {
        let found = list(page).await;
        let last = found.items.last().map(|delivery| delivery.id.as_uuid());
        all.extend(found.items);
        let Some(last) = last.filter(|_| found.has_more) else { break };
        page = PageRequest::after(limit, last);
    }
    let mut by_offset = Vec::new();
    loop {
        let found = list(PageRequest::offset(limit, by_offset.len() as u64)).await;
        assert_eq!(found.total, Some(all.len() as u64), "as many as the pages show");
        by_offset.extend(found.items);
        if !found.has_more {
            break;
        }
    }
    assert_eq!(by_offset, all, "by offset and page by page");
    all
}

/// All deliveries of the tenant by their ids.
pub(super) async fn everything(scene: &Scene) -> BTreeMap<DeliveryId, Delivery> {
    let all = listed(scene, &DeliveryFilter::default(), 500).await;
    all.into_iter().map(|delivery| (delivery.id, delivery)).collect()
}

/// Claims until nothing is left, going on from the cursor.
pub(super) async fn claim_all(scene: &Scene, now: Timestamp, limit: u32, room: &Room) -> (Vec<Lease>, u32) {
    let (mut leases, mut lost, mut cursor, mut idle) = (Vec::new(), 0, None, 0);
    while idle < 3 {
        let until = now + std::time::Duration::from_secs(LEASE);
        let request = ClaimRequest::new(now, until, scene.token(), limit, room).with_cursor(cursor);
        let claimed = scene.claim_with(request).await;
        assert!(claimed.leases.len() <= limit as usize);
        cursor = claimed.cursor;
        lost += claimed.lost;
        idle = if claimed.leases.is_empty() && claimed.lost == 0 && cursor.is_none() { idle + 1 } else { 0 };
        leases.extend(claimed.leases);
    }
    (leases, lost)
}

/// The deliveries that were leased, each of which must have been so once.
pub(super) fn once(leases: &[Lease]) -> BTreeSet<DeliveryId> {
    let ids: BTreeSet<_> = leases.iter().map(|lease| lease.delivery).collect();
    assert_eq!(ids.len(), leases.len(), "none is leased twice");
    ids
}

pub(super) async fn succeed(scene: &Scene, leases: &[Lease], now: Timestamp) {
    let outcomes: Vec<_> = leases.iter().map(|lease| scene.success(lease, now)).collect();
    let recorded = scene.store.record(now, &outcomes).await.expect("the store works");
    assert_eq!(recorded, vec![Recorded::Done; leases.len()]);
}

pub async fn a_large_event_is_listed_completely_whatever_becomes_of_its_deliveries(scene: Scene) {
    let records = scene.subscribe_many(LARGE).await;
    let (earlier, _) = emit(&scene, &records[..5], at(1)).await;
    let (event, ids) = emit(&scene, &records, at(2)).await;
    let (later, _) = emit(&scene, &records[60..70], at(3)).await;
    let check = async |pending: usize| {
        let filter = of_event(event);
        let mut expected = ids.clone();
        expected.reverse();
        for limit in [7, 50, 200] {
            let found = listed(&scene, &filter, limit).await;
            assert_eq!(found.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), expected);
        }
        let all = listed(&scene, &DeliveryFilter::default(), 33).await;
        let events: Vec<_> = all.iter().map(|delivery| delivery.event_id).collect();
        assert_eq!(events, [vec![later; 10], vec![event; LARGE], vec![earlier; 5]].concat(), "newest first");
        let state = |state| DeliveryFilter { state: Some(state), ..of_event(event) };
        let waiting = listed(&scene, &state(DeliveryState::Pending), 9).await;
        assert_eq!(waiting.len(), pending);
        for (delivery, record) in waiting.iter().zip(records.iter().rev()).filter(|_| pending == LARGE) {
            assert_eq!((delivery.subscription_id, delivery.created_at), (Some(record.id), at(2)));
            assert_eq!(delivery.event_type.as_ref().map(|of| of.as_str()), Some("order.paid"));
        }
        for (record, count) in [(&records[0], 2), (&records[63], 2), (&records[64], 2), (&records[LARGE - 1], 1)] {
            let filter = DeliveryFilter { subscription: Some(record.id), ..DeliveryFilter::default() };
            assert_eq!(listed(&scene, &filter, 1).await.len(), count);
            let filter = DeliveryFilter { since: Some(at(2)), ..filter };
            let since = listed(&scene, &filter, 10).await;
            assert!(since.iter().all(|delivery| delivery.created_at >= at(2)) && since.len() <= count);
        }
    };
    check(LARGE).await;
    let named: Vec<_> = ids.iter().copied().skip(1).step_by(3).collect();
    let leases = scene.claim_ids(at(3), &named).await.leases;
    assert_eq!(leases.len(), named.len());
    check(LARGE).await;
    succeed(&scene, &leases[..20], at(4)).await;
    check(LARGE - 20).await;
    for id in [ids[0], ids[63], ids[64], ids[129], leases[20].delivery] {
        let outcome = scene.store.cancel(&scene.tenant, id, at(5)).await.expect("the store works");
        assert_eq!(outcome, CancelOutcome::Done);
    }
    let release = |lease: &Lease| Release { delivery: lease.delivery, token: lease.token, due: at(6) };
    let releases: Vec<_> = leases[21..30].iter().map(release).collect();
    scene.store.release(&releases).await.expect("the store works");
    check(LARGE - 25).await;
    let (leases, _) = claim_all(&scene, at(6), 10, &Room::all(u32::MAX)).await;
    check(LARGE - 25).await;
    succeed(&scene, &leases, at(7)).await;
    check(leases_open(&scene, event).await).await;
}

/// How many deliveries of an event are still leased.
pub(super) async fn leases_open(scene: &Scene, event: EventId) -> usize {
    let all = listed(scene, &of_event(event), 200).await;
    assert!(all.iter().all(|delivery| delivery.leased == (delivery.state == DeliveryState::Pending)));
    all.iter().filter(|delivery| delivery.leased).count()
}

pub async fn claims_of_any_size_give_each_delivery_of_a_large_event_once(scene: Scene) {
    for (round, limit) in [(0, 1), (1, 7), (2, 64)] {
        let now = at(100 * round);
        let records = scene.subscribe_many(LARGE).await;
        let (_, ids) = emit(&scene, &records, now).await;
        let mut room = Room::all(u32::MAX);
        let full: Vec<_> = [5, 6, 7, 63, 64, 128].into();
        room.of.extend(full.iter().map(|index: &usize| (TargetId::from(records[*index].id), 0)));
        let (disabled, deleted, paused) = ([0, 20, 65], [1, 21, 66], [2, 22, 67]);
        let mut enabled = Vec::new();
        for index in disabled {
            let mut record = records[index].clone();
            record.disabled = Some(DisabledReason::Requested);
            let updated = scene.store.update_subscription(&record).await.expect("the store works");
            let Updated::Done(version) = updated else { panic!("the update is current: {updated:?}") };
            enabled.push(SubscriptionRecord { version, disabled: None, ..record });
        }
        for index in paused {
            let (_, pausing) = scene.emit(&records[index], now).await;
            scene.affect(pausing, now, TargetEffect::Pause(at(100 * round + 20))).await;
        }
        for index in deleted {
            scene.store.delete_subscription(&scene.tenant, records[index].id, now).await.expect("the store works");
        }
        let some = |indexes: &[usize]| indexes.iter().map(|index| ids[*index]).collect::<BTreeSet<_>>();
        let held = [&disabled[..], &deleted, &paused, &full].concat();
        let expected = ids.iter().copied().collect::<BTreeSet<_>>().difference(&some(&held)).copied().collect();

        let (leases, lost) = claim_all(&scene, now, limit, &room).await;
        assert_eq!((once(&leases), lost), (expected, 0), "with limit {limit}");
        for lease in &leases {
            let index = ids.iter().position(|id| *id == lease.delivery).expect("it is one of the event's");
            assert_eq!(lease.target.id(), records[index].id.into());
            assert_eq!((lease.version, lease.attempts, lease.payload_bytes), (records[index].version, 0, 2));
        }
        succeed(&scene, &leases, now).await;
        let everywhere = Room::all(u32::MAX);
        let (leases, _) = claim_all(&scene, now, limit, &everywhere).await;
        assert_eq!(once(&leases), some(&full), "where there was no room");
        succeed(&scene, &leases, now).await;
        let now = at(100 * round + 20);
        let (leases, _) = claim_all(&scene, now, limit, &everywhere).await;
        assert_eq!(once(&leases), some(&paused), "pauses end by themselves");
        succeed(&scene, &leases, now).await;
        for record in &enabled {
            scene.store.update_subscription(record).await.expect("the store works");
        }
        let (leases, _) = claim_all(&scene, now, limit, &everywhere).await;
        assert_eq!(once(&leases), some(&disabled), "what was held goes on");
        succeed(&scene, &leases, now).await;
    }
}

pub async fn named_deliveries_of_a_large_event_are_leased_and_the_others_wait(scene: Scene) {
    let records = scene.subscribe_many(LARGE).await;
    let (_, ids) = emit(&scene, &records, at(1)).await;
    let (_, pausing) = scene.emit(&records[9], at(1)).await;
    scene.affect(pausing, at(1), TargetEffect::Pause(at(50))).await;
    let before = everything(&scene).await;
    let mut room = Room::all(u32::MAX);
    room.of.insert(records[70].id.into(), 0);
    let named = [ids[3], ids[9], ids[62], ids[63], ids[64], ids[70], ids[129]];
    let request = ClaimRequest::new(at(2), at(32), scene.token(), 4, &room);
    let leases = scene.store.claim_ids(request, &named).await.expect("the store works").leases;
    assert_eq!(leases.len(), 4, "the limit");
    assert!(once(&leases).is_subset(&[ids[3], ids[62], ids[63], ids[64], ids[129]].into()));
    let leased = once(&leases);
    for (id, delivery) in everything(&scene).await {
        if leased.contains(&id) {
            assert_eq!((delivery.leased, delivery.next_at), (true, at(32)));
        } else {
            assert_eq!(delivery, before[&id]);
        }
    }
    assert_eq!(scene.claim_ids(at(2), &named).await.leases.len(), 2, "one waits for the limit, one for room");
    let (rest, _) = claim_all(&scene, at(2), 64, &Room::all(u32::MAX)).await;
    assert_eq!(once(&rest).len(), LARGE - 7);
}

pub async fn each_delivery_of_a_large_event_loses_its_own_lease(scene: Scene) {
    let records = scene.subscribe_many(LARGE).await;
    let mut item = scene.item_to(&records, at(1));
    for new in &mut item.deliveries[50..100] {
        new.lease = Some(LeaseGrant { token: scene.token(), until: at(1 + LEASE) });
    }
    let token = scene.token();
    for new in &mut item.deliveries[100..] {
        new.lease = Some(LeaseGrant { token, until: at(1 + LEASE) });
    }
    let (event, ids) = (item.event.id, ids_of(&item));
    scene.accept(vec![item]).await;
    let room = Room::all(u32::MAX);
    let (leases, lost) = claim_all(&scene, at(1), 2, &room).await;
    assert_eq!((once(&leases), lost), (ids[..50].iter().copied().collect(), 0));
    for round in 1..5 {
        let now = at(1 + round * LEASE);
        assert_eq!(claim_all(&scene, at(round * LEASE), 64, &room).await, (Vec::new(), 0));
        let (leases, lost) = claim_all(&scene, now, 7, &room).await;
        assert_eq!((once(&leases).len(), lost), (LARGE, 130), "in round {round}");
        assert!(leases.iter().all(|lease| lease.attempts == 0));
        for delivery in listed(&scene, &of_event(event), 200).await {
            assert_eq!((u64::from(delivery.lost_leases), delivery.attempts, delivery.leased), (round, 0, true));
        }
    }
    let last = claim_all(&scene, at(1 + 5 * LEASE), 7, &room).await;
    assert_eq!(last, (Vec::new(), 130));
    let all = listed(&scene, &of_event(event), 200).await;
    assert!(all.iter().all(|delivery| delivery.reason == Some(Reason::LostLeases)) && all.len() == LARGE);
}

pub async fn deliveries_of_large_events_come_oldest_due_first_to_each_target(scene: Scene) {
    let records = scene.subscribe_many(8).await;
    let rounds = [(1, u32::MAX), (7, u32::MAX), (64, u32::MAX), (64, 1), (7, 2)];
    for (begin, (limit, room)) in (0..).step_by(100).zip(rounds) {
        let mut expected: BTreeMap<TargetId, Vec<(u64, DeliveryId)>> = BTreeMap::new();
        for (event, second) in [5, 3, 9, 1, 7, 2, 4, 0].into_iter().enumerate() {
            let some = records.iter().enumerate().filter(|(index, _)| (index + event) % 3 > 0 || event == 4);
            let some: Vec<_> = some.map(|(_, record)| record.clone()).collect();
            let some = if event == 5 { &some[..2] } else { &some };
            let (_, ids) = emit(&scene, some, at(begin + second)).await;
            for (record, id) in some.iter().zip(ids) {
                expected.entry(record.id.into()).or_default().push((second, id));
            }
        }
        let (mut given, mut cursor): (BTreeMap<TargetId, Vec<DeliveryId>>, _) = (BTreeMap::new(), None);
        let all: usize = expected.values().map(Vec::len).sum();
        let (mut count, room, now) = (0, Room::all(room), at(begin + 10));
        for _ in 0..3 * all {
            let request = ClaimRequest::new(now, at(begin + 40), scene.token(), limit, &room).with_cursor(cursor);
            let claimed = scene.claim_with(request).await;
            cursor = claimed.cursor;
            count += claimed.leases.len();
            for lease in &claimed.leases {
                given.entry(lease.target.id()).or_default().push(lease.delivery);
            }
            succeed(&scene, &claimed.leases, now).await;
            if count == all {
                break;
            }
        }
        for (target, mut expected) in expected {
            expected.sort_unstable_by_key(|(second, _)| *second);
            let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
            assert_eq!(given.get(&target), Some(&expected), "with limit {limit} and room {}", room.default);
        }
    }
}

pub async fn a_large_event_accepted_again_changes_nothing(scene: Scene) {
    let records = scene.subscribe_many(LARGE).await;
    let mut item = scene.item_to(&records, at(1));
    let token = scene.token();
    for new in item.deliveries.iter_mut().step_by(5) {
        new.lease = Some(LeaseGrant { token, until: at(1 + LEASE) });
    }
    scene.accept(vec![item.clone()]).await;
    let leases = scene.claim(at(1), 100).await;
    succeed(&scene, &leases[..60], at(2)).await;
    let retried = scene.failure(&leases[60], at(2), NextStep::RetryAt(at(90)));
    assert_eq!(scene.record(at(2), retried).await, Recorded::Done);
    scene.store.cancel(&scene.tenant, item.deliveries[0].id, at(2)).await.expect("the store works");
    let before = everything(&scene).await;
    assert_eq!(before.len(), LARGE);
    let accept = async |items| {
        let unit = AcceptUnit::new(scene.tenant.clone(), records[LARGE - 1].version, items);
        let Some(AcceptOutcome::Done(items)) = scene.accept_units(at(3), &[unit]).await.pop() else {
            panic!("the unit is not stale")
        };
        assert!(items.iter().all(|item| matches!(item, ItemOutcome::Created(_))), "{items:?}");
    };
    accept(vec![item.clone()]).await;
    assert_eq!(everything(&scene).await, before);
    let another = scene.item_to(&records, at(3));
    let new: BTreeSet<_> = another.deliveries.iter().map(|new| new.id).collect();
    accept(vec![another, item]).await;
    let (added, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        everything(&scene).await.into_iter().partition(|(id, _)| new.contains(id));
    assert_eq!(others, before, "beside a new event");
    assert_eq!(added.len(), LARGE);
    assert_eq!(scene.store.backlog(at(3)).await.expect("the store works").pending, 2 * 130 - 61);
}
