//! Promises of `DeliveryStore::claim` and `claim_ids`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::scene::{LEASE, Scene, at};
use crate::store::{ClaimRequest, Lease, NewDelivery, Room, TargetEffect, Updated};
use crate::{DeliveryId, DeliveryState, DisabledReason, Generation, Reason, Sealed, SubscriptionId, Target, TargetId};

fn ids(leases: &[Lease]) -> Vec<DeliveryId> {
    leases.iter().map(|lease| lease.delivery).collect()
}

pub async fn only_pending_deliveries_that_are_due_are_leased(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, ended) = scene.emit(&record, at(1)).await;
    scene.deliver(ended, at(1)).await;
    let (_, due) = scene.emit(&record, at(10)).await;
    let (_, later) = scene.emit(&record, at(11)).await;
    assert_eq!(ids(&scene.claim(at(10), 10).await), [due], "due includes the very moment");
    let delivery = scene.delivery(due).await;
    assert_eq!((delivery.next_at, delivery.leased), (at(10 + LEASE), true));
    assert_eq!(scene.claim(at(10), 10).await, []);
    assert_eq!(ids(&scene.claim_ids(at(10), &[ended, due, later]).await.leases), []);
    assert_eq!(ids(&scene.claim_ids(at(11), &[ended, due, later]).await.leases), [later]);
}

pub async fn deliveries_of_disabled_deleted_and_paused_subscriptions_wait(scene: Scene) {
    let records = scene.subscribe_many(4).await;
    let mut deliveries = Vec::new();
    for record in &records {
        deliveries.push(scene.emit(record, at(1)).await.1);
    }
    let mut disabled = records[0].clone();
    disabled.disabled = Some(DisabledReason::Requested);
    let updated = scene.store.update_subscription(&disabled).await.expect("the store works");
    scene.store.delete_subscription(&scene.tenant, records[1].id, at(1)).await.expect("the store works");
    let (_, pausing) = scene.emit(&records[2], at(1)).await;
    scene.affect(pausing, at(2), TargetEffect::Pause(at(50))).await;

    assert_eq!(ids(&scene.claim_ids(at(49), &deliveries).await.leases), [deliveries[3]]);
    assert_eq!(ids(&scene.claim(at(49), 10).await), []);
    let leases = scene.claim(at(50), 10).await;
    assert_eq!(ids(&leases), [deliveries[2]], "a pause ends by itself");
    assert!(leases[0].paused);
    let Updated::Done(version) = updated else { panic!("the update is current: {updated:?}") };
    let enabled = crate::SubscriptionRecord { version, disabled: None, ..disabled };
    scene.store.update_subscription(&enabled).await.expect("the store works");
    assert_eq!(ids(&scene.claim(at(51), 10).await), [deliveries[0]], "what was held goes on");
}

pub async fn a_lease_tells_the_worker_what_it_needs(scene: Scene) {
    let record = scene.subscribe().await;
    let item = scene.item(&record, at(1));
    let key = TargetId::from_uuid(scene.uuid(at(1)));
    let target = Target::AdHoc { key, sealed: Sealed::from_bytes(vec![0, 254, 255]) };
    let new = NewDelivery::new(DeliveryId::from_uuid(scene.uuid(at(1))), target.clone());
    let direct = crate::store::AcceptItem::new(scene.event(&scene.tenant, at(1)), vec![new.clone()]);
    let (event, delivery, direct_event) = (item.event.id, item.deliveries[0].id, direct.event.id);
    scene.accept(vec![item, direct]).await;

    let (room, token) = (Room::all(10), scene.token());
    let claimed = scene.claim_with(ClaimRequest::new(at(2), at(32), token, 10, &room)).await;
    let mut expected =
        Lease::new(delivery, scene.tenant.clone(), event, Target::Subscription(record.id), token, at(32));
    expected.version = record.version;
    expected.payload_bytes = 2;
    let mut ad_hoc = Lease::new(new.id, scene.tenant.clone(), direct_event, target, token, at(32));
    ad_hoc.version = Generation::ZERO;
    ad_hoc.payload_bytes = 2;
    let mut leases = claimed.leases;
    leases.sort_by_key(|lease| lease.delivery);
    let mut both = [expected, ad_hoc];
    both.sort_by_key(|lease| lease.delivery);
    assert_eq!(leases, both);
}

pub async fn concurrent_claims_never_share_a_delivery(scene: Scene) {
    let scene = Arc::new(scene);
    for record in scene.subscribe_many(5).await {
        scene.emit_many(&record, 80, at(1)).await;
    }
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..400 {
                    let leases = scene.claim(at(2), 9).await;
                    if leases.is_empty() {
                        break;
                    }
                    mine.extend(ids(&leases));
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("no task panics"));
    }
    assert_eq!(all.len(), 400, "each is leased");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 400, "and none twice");
}

pub async fn claims_keep_to_room_and_limit(scene: Scene) {
    let records = scene.subscribe_many(3).await;
    for record in &records {
        scene.emit_many(record, 20, at(1)).await;
    }
    let mut room = Room::all(3);
    room.of.insert(records[0].id.into(), 0);
    room.of.insert(records[1].id.into(), 15);
    let request = |limit| ClaimRequest::new(at(2), at(32), scene.token(), limit, &room);
    assert_eq!(scene.claim_with(request(0)).await.leases, []);
    let leases = scene.claim_with(request(5)).await.leases;
    assert_eq!(leases.len(), 5);
    let leases = scene.claim_with(request(100)).await.leases;
    let of =
        |leases: &[Lease], id: SubscriptionId| leases.iter().filter(|lease| lease.target.id() == id.into()).count();
    assert_eq!(of(&leases, records[0].id), 0);
    assert!(of(&leases, records[1].id) <= 15 && of(&leases, records[2].id) <= 3);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(scene.emit(&records[2], at(2)).await.1);
    }
    let by_ids = scene.store.claim_ids(request(100), &waiting).await.expect("the store works").leases;
    assert_eq!(by_ids.len(), 3);
}

pub async fn a_lost_lease_counts_and_spends_no_attempt(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    scene.lease(delivery, at(1)).await;
    assert_eq!(scene.claim(at(LEASE), 10).await, [], "the lease has not ended");
    let room = Room::all(10);
    let claimed = scene.claim_with(ClaimRequest::new(at(1 + LEASE), at(100), scene.token(), 10, &room)).await;
    assert_eq!((ids(&claimed.leases), claimed.lost, claimed.exhausted), (vec![delivery], 1, 0));
    assert_eq!(claimed.leases[0].attempts, 0);
    let stored = scene.delivery(delivery).await;
    assert_eq!((stored.lost_leases, stored.attempts, stored.leased), (1, 0, true));
}

pub async fn the_fifth_lost_lease_ends_the_delivery(scene: Scene) {
    for by_ids in [false, true] {
        let record = scene.subscribe().await;
        let (_, delivery) = scene.emit(&record, at(1)).await;
        let room = Room::all(10);
        for round in 0..6 {
            let now = at(1 + round * LEASE);
            let request = ClaimRequest::new(now, at(1 + (round + 1) * LEASE), scene.token(), 10, &room);
            let claimed = if by_ids {
                scene.store.claim_ids(request, &[delivery]).await.expect("the store works")
            } else {
                scene.claim_with(request).await
            };
            assert_eq!(claimed.leases.len(), usize::from(round < 5), "round {round}");
            assert_eq!((claimed.lost, claimed.exhausted), (u32::from(round > 0), u32::from(round == 5)));
        }
        let ended = scene.delivery(delivery).await;
        assert_eq!((ended.state, ended.reason), (DeliveryState::Exhausted, Some(Reason::LostLeases)));
        assert_eq!((ended.lost_leases, ended.attempts, ended.leased), (5, 0, false));
        assert_eq!(ended.completed_at, Some(at(1 + 5 * LEASE)));
    }
}

pub async fn a_target_with_100_000_due_rows_does_not_starve_another(scene: Scene) {
    let (hog, modest) = (scene.subscribe().await, scene.subscribe().await);
    scene.emit_many(&hog, 100_000, at(1)).await;
    let (_, wanted) = scene.emit(&modest, at(100)).await;
    for room in [Room::all(u32::MAX), Room::all(10)] {
        let (mut cursor, mut found) = (None, None);
        for _ in 0..5 {
            let request = ClaimRequest::new(at(100), at(130), scene.token(), 20, &room).with_cursor(cursor);
            let claimed = scene.claim_with(request).await;
            assert!(!claimed.leases.is_empty());
            cursor = claimed.cursor;
            found = claimed.leases.into_iter().find(|lease| lease.delivery == wanted);
            if found.is_some() {
                break;
            }
        }
        let lease = found.expect("a few calls reach the other target");
        let release = crate::store::Release { delivery: wanted, token: lease.token, due: at(100) };
        scene.store.release(&[release]).await.expect("the store works");
    }
}

pub async fn the_cursor_reaches_every_one_of_500_targets(scene: Scene) {
    let records = scene.subscribe_many(500).await;
    scene.emit_many(&records[250], 3_000, at(1)).await;
    let mut items = Vec::new();
    for record in &records {
        items.push(scene.item(record, at(2)));
    }
    scene.accept(items).await;
    let (room, mut cursor) = (Room::all(u32::MAX), None);
    let mut reached: HashMap<TargetId, usize> = HashMap::new();
    let mut calls = 0;
    while reached.len() < 500 && calls < 600 {
        let request = ClaimRequest::new(at(3), at(33), scene.token(), 4, &room).with_cursor(cursor);
        let claimed = scene.claim_with(request).await;
        cursor = claimed.cursor;
        calls += 1;
        for lease in claimed.leases {
            *reached.entry(lease.target.id()).or_default() += 1;
        }
    }
    assert_eq!(reached.len(), 500, "after {calls} calls");
}

pub async fn targets_that_wait_for_later_do_not_hide_one_that_is_due(scene: Scene) {
    let records = scene.subscribe_many(1_000).await;
    let items: Vec<_> = records.iter().map(|record| scene.item(record, at(500))).collect();
    scene.accept(items).await;
    let (_, due) = scene.emit(&records[999], at(1)).await;
    let (room, mut cursor, mut found) = (Room::all(u32::MAX), None, false);
    for _ in 0..1_000 {
        let request = ClaimRequest::new(at(2), at(32), scene.token(), 10, &room).with_cursor(cursor);
        let claimed = scene.claim_with(request).await;
        cursor = claimed.cursor;
        found = ids(&claimed.leases) == [due];
        if found {
            break;
        }
    }
    assert!(found);
}

pub async fn a_target_that_alone_has_room_is_reached(scene: Scene) {
    const MANY: usize = 600;
    let records = scene.subscribe_many(MANY).await;
    let own: Vec<_> = records.iter().map(|record| scene.item(record, at(1))).collect();
    let shared: Vec<_> = records.windows(2).map(|pair| scene.item_to(pair, at(1))).collect();
    let mut expected: Vec<_> =
        [&own[450], &shared[449], &shared[450]].iter().flat_map(|item| &item.deliveries).collect();
    expected.retain(|delivery| delivery.target.id() == records[450].id.into());
    let expected: BTreeSet<_> = expected.into_iter().map(|delivery| delivery.id).collect();
    scene.accept(own).await;
    scene.accept(shared).await;
    let mut room = Room::all(0);
    room.of.insert(records[450].id.into(), 10);
    let (mut given, mut cursor, mut calls) = (BTreeSet::new(), None, 0);
    while given.len() < expected.len() && calls < MANY {
        let request = ClaimRequest::new(at(2), at(32), scene.token(), 10, &room).with_cursor(cursor);
        let claimed = scene.claim_with(request).await;
        cursor = claimed.cursor;
        calls += 1;
        given.extend(ids(&claimed.leases));
    }
    assert_eq!(given, expected, "after {calls} calls");
}

pub async fn deliveries_of_one_target_come_oldest_due_first(scene: Scene) {
    let records = scene.subscribe_many(2).await;
    let mut expected = Vec::new();
    for second in [5, 3, 9, 1, 7, 2, 8, 4, 6, 0] {
        for record in &records {
            expected.push((second, record.id, scene.emit(record, at(second)).await.1));
        }
    }
    expected.sort_unstable_by_key(|(second, ..)| *second);
    let (mut given, room, mut cursor) = (Vec::new(), Room::all(u32::MAX), None);
    for _ in 0..20 {
        let request = ClaimRequest::new(at(10), at(40), scene.token(), 3, &room).with_cursor(cursor);
        let claimed = scene.claim_with(request).await;
        cursor = claimed.cursor;
        given.extend(claimed.leases);
    }
    for record in &records {
        let given: Vec<_> = given.iter().filter(|lease| lease.target.id() == record.id.into()).cloned().collect();
        let expected = expected.iter().filter(|(_, id, _)| *id == record.id).map(|(.., delivery)| *delivery);
        assert_eq!(ids(&given), expected.collect::<Vec<_>>());
    }
}

pub async fn unknown_ids_and_ids_given_twice_do_no_harm(scene: Scene) {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    let unknown = DeliveryId::from_uuid(scene.uuid(at(1)));
    let claimed = scene.claim_ids(at(2), &[delivery, unknown, delivery]).await;
    assert_eq!((ids(&claimed.leases), claimed.lost), (vec![delivery], 0));
    assert_eq!(scene.claim_ids(at(2), &[]).await.leases, []);
}
