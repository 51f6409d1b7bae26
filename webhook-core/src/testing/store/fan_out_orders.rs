//! Promises about results of deliveries of large events, and about orders that concern some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fan_out::{LARGE, claim_all, emit, everything, listed, of_event, once, succeed};
use super::scene::{LEASE, Scene, at};
use crate::store::{
    AddedDelivery, Backlog, CancelOutcome, ClaimRequest, Lease, NextStep, PruneRequest, Recorded, Release,
    RetryOutcome, Room,
};
use crate::{DeliveryId, DeliveryState, Reason};

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
