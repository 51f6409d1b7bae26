//! Promises about events with many deliveries, which a store may keep together until something happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scene::{LEASE, Scene, at};
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, AddedDelivery, Backlog, CancelOutcome, ClaimRequest, DeliveryFilter,
    ItemOutcome, Lease, LeaseGrant, NextStep, PageRequest, PruneRequest, Recorded, Release, RetryOutcome, Room,
    TargetEffect, Updated,
};
use crate::{
    Delivery, DeliveryId, DeliveryState, DisabledReason, EventId, Reason, SubscriptionRecord, TargetId, Timestamp,
};

/// Two full runs of ids, and the beginning of a third.
const LARGE: usize = 130;

/// Accepts an event with a delivery to each of them.
async fn emit(scene: &Scene, records: &[SubscriptionRecord], now: Timestamp) -> (EventId, Vec<DeliveryId>) {
    let item = scene.item_to(records, now);
    let ids = (item.event.id, ids_of(&item));
    scene.accept(vec![item]).await;
    ids
}

fn ids_of(item: &AcceptItem) -> Vec<DeliveryId> {
    item.deliveries.iter().map(|new| new.id).collect()
}

fn of_event(event: EventId) -> DeliveryFilter {
    DeliveryFilter { event: Some(event), ..DeliveryFilter::default() }
}

/// What a filter finds, page by page and by offset; both must show the same.
async fn listed(scene: &Scene, filter: &DeliveryFilter, limit: u32) -> Vec<Delivery> {
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
async fn everything(scene: &Scene) -> BTreeMap<DeliveryId, Delivery> {
    let all = listed(scene, &DeliveryFilter::default(), 500).await;
    all.into_iter().map(|delivery| (delivery.id, delivery)).collect()
}

/// Claims until nothing is left, going on from the cursor.
async fn claim_all(scene: &Scene, now: Timestamp, limit: u32, room: &Room) -> (Vec<Lease>, u32) {
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
fn once(leases: &[Lease]) -> BTreeSet<DeliveryId> {
    let ids: BTreeSet<_> = leases.iter().map(|lease| lease.delivery).collect();
    assert_eq!(ids.len(), leases.len(), "none is leased twice");
    ids
}

async fn succeed(scene: &Scene, leases: &[Lease], now: Timestamp) {
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
async fn leases_open(scene: &Scene, event: EventId) -> usize {
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

pub async fn orders_about_one_delivery_of_a_large_event_leave_the_others_alone(scene: Scene) {
    let records = scene.subscribe_many(70).await;
    let (_, ids) = emit(&scene, &records, at(1)).await;
    let leases = scene.claim_ids(at(2), &ids[10..20]).await.leases;
    succeed(&scene, &leases[..1], at(2)).await;
    let mut before = everything(&scene).await;
    let cancel = async |id| scene.store.cancel(&scene.tenant, id, at(5)).await.expect("the store works");
    let retry = async |id| scene.store.retry(&scene.tenant, id, at(6)).await.expect("the store works");
    for (id, outcome) in [(ids[0], RetryOutcome::Done), (ids[15], RetryOutcome::Leased)] {
        assert_eq!(retry(id).await, outcome);
        assert_eq!(everything(&scene).await, before, "one that waits is due anyway, and one that is leased stays so");
    }
    for id in [ids[1], ids[11], ids[40], ids[63], ids[64]] {
        assert_eq!(cancel(id).await, CancelOutcome::Done);
        let stored = scene.delivery(id).await;
        assert_eq!((stored.state, stored.reason), (DeliveryState::Cancelled, Some(Reason::Requested)));
        assert_eq!((stored.completed_at, stored.leased, stored.attempts), (Some(at(5)), false, 0));
        before.insert(id, stored);
        assert_eq!(everything(&scene).await, before, "the others");
        assert_eq!(cancel(id).await, CancelOutcome::Finished);
    }
    for id in [ids[10], ids[40]] {
        assert_eq!(retry(id).await, RetryOutcome::Done);
        let stored = scene.delivery(id).await;
        assert_eq!((stored.state, stored.next_at), (DeliveryState::Pending, at(6)));
        before.insert(id, stored);
        assert_eq!(everything(&scene).await, before, "the others");
    }
    let (leases, _) = claim_all(&scene, at(6), 64, &Room::all(u32::MAX)).await;
    assert_eq!(once(&leases).len(), 70 - 10 - 4 + 2);
}

pub async fn outcomes_of_a_large_event_count_one_by_one(scene: Scene) {
    let records = scene.subscribe_many(64).await;
    let (event, ids) = emit(&scene, &records, at(1)).await;
    let leases = scene.claim(at(1), 64).await;
    assert_eq!(once(&leases).len(), 64);
    let of = |index: usize| leases.iter().find(|lease| lease.delivery == ids[index]).expect("each is leased");
    let cancelled = scene.store.cancel(&scene.tenant, ids[7], at(2)).await.expect("the store works");
    assert_eq!(cancelled, CancelOutcome::Done);
    let mut outcomes: Vec<_> = (0..64).rev().map(|index| scene.success(of(index), at(2))).collect();
    outcomes[0].token = scene.token();
    outcomes[1].tenant = scene.stranger.clone();
    let mut unattempted = scene.success(of(60), at(2));
    unattempted.attempt = None;
    unattempted.next = NextStep::End(DeliveryState::Cancelled, Some(Reason::Requested));
    outcomes[3] = unattempted;
    outcomes[4] = scene.failure(of(59), at(2), NextStep::RetryAt(at(80)));
    // A second one for a lease comes too late.
    outcomes.insert(32, scene.success(of(63 - 20), at(2)));
    let later = outcomes.split_off(40);
    let recorded = scene.store.record(at(3), &outcomes).await.expect("the store works");
    let fenced: Vec<_> = (0..40).filter(|position| recorded[*position] == Recorded::Fenced).collect();
    assert_eq!(fenced, [0, 1, 32]);
    let open: Vec<_> = listed(&scene, &of_event(event), 100).await.into_iter().filter(|found| found.leased).collect();
    let expected: Vec<_> = [63, 62].into_iter().chain((0..25).rev()).filter(|index| *index != 7).collect();
    assert_eq!(
        open.iter().map(|found| found.id).collect::<Vec<_>>(),
        expected.iter().map(|i| ids[*i]).collect::<Vec<_>>()
    );
    let recorded = scene.store.record(at(4), &later).await.expect("the store works");
    let fenced: Vec<_> = later.iter().zip(recorded).filter(|(_, recorded)| *recorded == Recorded::Fenced).collect();
    assert_eq!(fenced.iter().map(|(outcome, _)| outcome.delivery).collect::<Vec<_>>(), [ids[7]]);
    assert_eq!(scene.record(at(5), scene.success(of(63), at(5))).await, Recorded::Done, "nobody touched its lease");
    assert_eq!(scene.record(at(5), scene.success(of(62), at(5))).await, Recorded::Done);
    let all = listed(&scene, &of_event(event), 100).await;
    assert_eq!(all.len(), 64);
    for (delivery, index) in all.iter().zip((0..64).rev()) {
        let attempts = scene.store.attempts_of(&scene.tenant, delivery.id).await.expect("the store works").len();
        let expected = match index {
            7 | 60 => (DeliveryState::Cancelled, 0, 0),
            59 => (DeliveryState::Pending, 1, 1),
            _ => (DeliveryState::Delivered, 1, 1),
        };
        assert_eq!((delivery.state, delivery.attempts, attempts), expected, "of number {index}");
        assert_eq!(delivery.subscription_id, Some(records[index].id));
    }
}

pub async fn concurrent_outcomes_of_a_large_event_count_once_each(scene: Scene) {
    let scene = Arc::new(scene);
    let records = scene.subscribe_many(16).await;
    for round in 0..30 {
        let now = at(round);
        let (event, ids) = emit(&scene, &records, now).await;
        let leases = scene.claim(now, 64).await;
        assert_eq!(once(&leases), ids.iter().copied().collect());
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let (scene, mine) = (Arc::clone(&scene), leases.iter().skip(task).step_by(4).cloned());
                let mine: Vec<_> = mine.collect();
                tokio::spawn(async move {
                    for some in mine.chunks(2) {
                        succeed(&scene, some, now).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panics");
        }
        let all = listed(&scene, &of_event(event), 100).await;
        assert_eq!(all.len(), 16, "each is there once: {all:?}");
        assert!(all.iter().all(|delivery| delivery.state == DeliveryState::Delivered && delivery.attempts == 1));
    }
    assert_eq!(scene.store.backlog(at(99)).await.expect("the store works"), Backlog::default());
    assert_eq!(claim_all(&scene, at(1_000), 10, &Room::all(10)).await, (Vec::new(), 0));
}

pub async fn outcomes_count_while_others_of_their_event_are_cancelled(scene: Scene) {
    let scene = Arc::new(scene);
    for round in 0..10 {
        let (records, now) = (scene.subscribe_many(20).await, at(round));
        let (event, ids) = emit(&scene, &records, now).await;
        let leases = scene.claim(now, 64).await;
        assert_eq!(once(&leases), ids.iter().copied().collect());
        let gone = leases.iter().find(|lease| lease.delivery == ids[0]).cloned().expect("each is leased");
        let mine: Vec<_> = leases.into_iter().filter(|lease| lease.delivery != ids[0]).collect();
        let scene_of_outcomes = Arc::clone(&scene);
        let outcomes = tokio::spawn(async move {
            for some in mine.chunks(3) {
                succeed(&scene_of_outcomes, some, now).await;
            }
        });
        let deleted = scene.store.delete_subscription(&scene.tenant, records[0].id, now).await;
        assert!(deleted.expect("the store works"));
        let mut cancelled = 0;
        while cancelled == 0 {
            cancelled = scene.store.cancel_orphans(now, 10).await.expect("the store works");
        }
        outcomes.await.expect("no task panics");
        assert_eq!(cancelled, 1);
        assert_eq!(scene.record(now, scene.success(&gone, now)).await, Recorded::Fenced);
        let all = listed(&scene, &of_event(event), 100).await;
        assert_eq!(all.iter().filter(|delivery| delivery.state == DeliveryState::Delivered).count(), 19);
    }
}

pub async fn orders_find_their_delivery_while_claims_go_on(scene: Scene) {
    let scene = Arc::new(scene);
    let records = scene.subscribe_many(LARGE).await;
    for round in 0..3 {
        let (event, ids) = emit(&scene, &records, at(round)).await;
        let claims: Vec<_> = (0..3)
            .map(|_| {
                let scene = Arc::clone(&scene);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let leases = scene.claim(at(round), 3).await;
                        let release =
                            |lease: &Lease| Release { delivery: lease.delivery, token: lease.token, due: at(round) };
                        let releases: Vec<_> = leases.iter().step_by(2).map(release).collect();
                        scene.store.release(&releases).await.expect("the store works");
                    }
                })
            })
            .collect();
        let (scene_of_orders, mine) = (Arc::clone(&scene), ids.clone());
        let orders = tokio::spawn(async move {
            for id in mine.iter().rev() {
                let found = scene_of_orders.store.delivery(&scene_of_orders.tenant, *id).await;
                assert_eq!(found.expect("the store works").map(|delivery| delivery.id), Some(*id));
                let outcome = scene_of_orders.store.cancel(&scene_of_orders.tenant, *id, at(round)).await;
                assert_eq!(outcome.expect("the store works"), CancelOutcome::Done, "cancelling {id}");
            }
        });
        for task in claims.into_iter().chain([orders]) {
            task.await.expect("no task panics");
        }
        let all = listed(&scene, &of_event(event), 50).await;
        assert_eq!(all.len(), LARGE);
        assert!(all.iter().all(|delivery| delivery.state == DeliveryState::Cancelled));
    }
}

pub async fn deliveries_of_a_large_event_that_wait_are_not_added_again(scene: Scene) {
    let records = scene.subscribe_many(70).await;
    let (event, ids) = emit(&scene, &records[..66], at(1)).await;
    let leases = scene.claim_ids(at(1), &[ids[1], ids[2]]).await.leases;
    succeed(&scene, &leases[..1], at(1)).await;
    let before = everything(&scene).await;
    for index in [0, 1, 2, 3, 63, 64, 65, 66, 69] {
        let id = records[index].id;
        let found = scene.store.recoverable(&scene.tenant, id, at(0), at(9), None, 10).await.expect("the store works");
        let found: Vec<_> = found.into_iter().map(|found| (found.event, found.delivery)).collect();
        let state = if leases[0].delivery == *ids.get(index).unwrap_or(&ids[0]) {
            DeliveryState::Delivered
        } else {
            DeliveryState::Pending
        };
        assert_eq!(found, [(event, ids.get(index).map(|id| (*id, state)))], "of number {index}");
        let new = [AddedDelivery { id: DeliveryId::from_uuid(scene.uuid(at(5))), event }];
        let added = scene.store.add_deliveries(&scene.tenant, id, &new, at(5)).await;
        assert_eq!(added.expect("the store works"), u64::from(index >= 66), "of number {index}");
    }
    let mut after = everything(&scene).await;
    assert_eq!(after.len(), 68);
    after.retain(|id, _| before.contains_key(id));
    assert_eq!(after, before);
}

pub async fn a_large_event_stays_while_one_of_its_deliveries_is_open(scene: Scene) {
    let records = scene.subscribe_many(66).await;
    for waits in [true, false] {
        let (event, ids) = emit(&scene, &records, at(1)).await;
        let one = ids[40];
        let others: Vec<_> = ids.iter().copied().filter(|id| *id != one).collect();
        let leases = scene.claim_ids(at(2), &others).await.leases;
        assert_eq!(leases.len(), 65);
        succeed(&scene, &leases, at(3)).await;
        let lease = if waits { None } else { Some(scene.lease(one, at(3)).await) };
        let request = PruneRequest { ended_before: at(400), now: at(400), cursor: None, limit: 10 };
        assert_eq!(scene.store.prune(request).await.expect("the store works").events, 0);
        assert_eq!(listed(&scene, &of_event(event), 100).await.len(), 66);
        match lease {
            Some(lease) => succeed(&scene, &[lease], at(10)).await,
            None => scene.deliver(one, at(10)).await,
        }
        assert_eq!(scene.store.prune(request).await.expect("the store works").events, 1);
        assert_eq!(listed(&scene, &of_event(event), 100).await, []);
    }
    assert_eq!(scene.store.backlog(at(400)).await.expect("the store works"), Backlog::default());
}

pub async fn a_deleted_subscription_takes_only_its_own_deliveries_of_large_events(scene: Scene) {
    let records = scene.subscribe_many(70).await;
    let mut expected = BTreeMap::new();
    let mut cancelled = BTreeSet::new();
    for second in 0..3 {
        let (_, ids) = emit(&scene, &records, at(second)).await;
        cancelled.extend([ids[5], ids[64]]);
        if second == 1 {
            assert_eq!(scene.claim_ids(at(second), &ids).await.leases.len(), 70);
        }
    }
    expected.extend(everything(&scene).await);
    for index in [5, 64] {
        let deleted = scene.store.delete_subscription(&scene.tenant, records[index].id, at(5)).await;
        assert!(deleted.expect("the store works"));
    }
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        steps.push(scene.store.cancel_orphans(at(6), 4).await.expect("the store works"));
    }
    assert_eq!(steps, [4, 2, 0]);
    for (id, delivery) in everything(&scene).await {
        if cancelled.contains(&id) {
            assert_eq!(
                (delivery.state, delivery.reason),
                (DeliveryState::Cancelled, Some(Reason::SubscriptionDeleted))
            );
            assert_eq!((delivery.completed_at, delivery.leased), (Some(at(6)), false));
        } else {
            assert_eq!(Some(&delivery), expected.get(&id));
        }
    }
    let (leases, lost) = claim_all(&scene, at(5 + LEASE), 64, &Room::all(u32::MAX)).await;
    assert_eq!((once(&leases).len(), lost), (3 * 68, 68));
}

pub async fn what_is_left_of_events_does_not_stand_before_whole_ones(scene: Scene) {
    const EVENTS: u64 = 80;
    let records = scene.subscribe_many(2).await;
    let mut last = None;
    for second in 0..EVENTS {
        let (_, deliveries) = emit(&scene, &records, at(second)).await;
        if second + 1 < EVENTS {
            let cancelled = scene.store.cancel(&scene.tenant, deliveries[1], at(EVENTS)).await;
            assert_eq!(cancelled.expect("the store works"), CancelOutcome::Done);
        }
        last = Some(deliveries[1]);
    }
    // The other target has no room: its deliveries are what is oldest, all the while.
    let mut room = Room::all(10);
    room.of.insert(records[0].id.into(), 0);
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..6 {
        let request = ClaimRequest::new(at(EVENTS), at(EVENTS + LEASE), scene.token(), 1, &room).with_cursor(cursor);
        let claimed = scene.claim_with(request).await;
        cursor = claimed.cursor;
        found.extend(claimed.leases.iter().map(|lease| lease.delivery));
    }
    assert_eq!(found, last.into_iter().collect::<Vec<_>>());
}
