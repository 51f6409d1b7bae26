//! Promises of `DeliveryStore::record` and `release`.

use std::sync::Arc;
use std::time::Duration;

use super::scene::{LEASE, Scene, at};
use crate::store::{Lease, NextStep, Outcome, PruneRequest, Recorded, Release, TargetEffect};
use crate::{Delivery, DeliveryId, DeliveryState, DisabledReason, ErrorKind, Reason};

/// What a fenced outcome must not change.
async fn everything(scene: &Scene, id: DeliveryId) -> (Option<Delivery>, usize) {
    let delivery = scene.store.delivery(&scene.tenant, id).await.expect("the store works");
    let attempts = scene.store.attempts_of(&scene.tenant, id).await.expect("the store works");
    (delivery, attempts.len())
}

async fn leased(scene: &Scene) -> Lease {
    let record = scene.subscribe().await;
    let (_, delivery) = scene.emit(&record, at(1)).await;
    scene.lease(delivery, at(1)).await
}

pub async fn an_outcome_that_comes_after_another_claim_is_fenced(scene: Scene) {
    let lease = leased(&scene).await;
    let id = lease.delivery;
    let second = scene.lease(id, at(1 + LEASE)).await;
    let before = everything(&scene, id).await;
    let mut late = scene.success(&lease, at(2));
    late.effect = TargetEffect::DisableGone;
    assert_eq!(scene.record(at(40), late).await, Recorded::Fenced);
    assert_eq!(everything(&scene, id).await, before);
    assert_eq!(scene.generation(&scene.tenant).await, second.version, "the effect is fenced too");
    assert_eq!(scene.record(at(41), scene.success(&second, at(40))).await, Recorded::Done);
}

pub async fn an_outcome_recorded_twice_counts_once(scene: Scene) {
    let lease = leased(&scene).await;
    let outcome = scene.failure(&lease, at(2), NextStep::RetryAt(at(60)));
    let both = [outcome.clone(), outcome.clone()];
    let recorded = scene.store.record(at(3), &both).await.expect("the store works");
    assert_eq!(recorded, [Recorded::Done, Recorded::Fenced], "within one call");
    let before = everything(&scene, lease.delivery).await;
    assert_eq!(scene.record(at(4), outcome).await, Recorded::Fenced, "and in a later one");
    assert_eq!(everything(&scene, lease.delivery).await, before);
    assert_eq!(before.1, 1);
}

pub async fn an_outcome_of_a_cancelled_or_pruned_delivery_is_fenced(scene: Scene) {
    let lease = leased(&scene).await;
    let id = lease.delivery;
    scene.store.cancel(&scene.tenant, id, at(2)).await.expect("the store works");
    let before = everything(&scene, id).await;
    assert_eq!(scene.record(at(3), scene.success(&lease, at(2))).await, Recorded::Fenced);
    assert_eq!(everything(&scene, id).await, before);
    let request = PruneRequest { ended_before: at(100), now: at(100), cursor: None, limit: 100 };
    assert_eq!(scene.store.prune(request).await.expect("the store works").events, 1);
    assert_eq!(scene.record(at(101), scene.success(&lease, at(2))).await, Recorded::Fenced);
    assert_eq!(everything(&scene, id).await, (None, 0));
}

pub async fn an_outcome_of_another_tenant_is_fenced(scene: Scene) {
    let lease = leased(&scene).await;
    let mut outcome = scene.success(&lease, at(2));
    outcome.tenant = scene.stranger.clone();
    let before = everything(&scene, lease.delivery).await;
    assert_eq!(scene.record(at(3), outcome).await, Recorded::Fenced);
    assert_eq!(everything(&scene, lease.delivery).await, before);
}

pub async fn an_outcome_on_a_lease_that_ended_counts_while_nobody_else_claimed(scene: Scene) {
    let lease = leased(&scene).await;
    assert_eq!(scene.record(at(500), scene.success(&lease, at(2))).await, Recorded::Done);
}

pub async fn a_failed_attempt_and_its_next_due_time_are_written_together(scene: Scene) {
    let lease = leased(&scene).await;
    let outcome = scene.failure(&lease, at(2), NextStep::RetryAt(at(60)));
    let attempt = outcome.attempt.clone().expect("a failure has an attempt");
    assert_eq!(scene.record(at(3), outcome).await, Recorded::Done);
    let stored = scene.delivery(lease.delivery).await;
    assert_eq!((stored.state, stored.reason, stored.completed_at), (DeliveryState::Pending, None, None));
    assert_eq!((stored.next_at, stored.leased, stored.attempts), (at(60), false, 1));
    assert_eq!((stored.last_status_code, stored.last_error), (Some(500), Some(ErrorKind::Status)));
    assert_eq!(stored.last_attempt_at, Some(at(2)));
    let attempts = scene.store.attempts_of(&scene.tenant, lease.delivery).await.expect("the store works");
    assert_eq!(attempts, [Arc::unwrap_or_clone(attempt)]);
    assert_eq!(scene.claim(at(59), 10).await, []);
    assert_eq!(scene.claim(at(60), 10).await[0].attempts, 1);
}

pub async fn the_attempt_count_becomes_the_attempts_number(scene: Scene) {
    let mut lease = leased(&scene).await;
    for number in 1..=4 {
        let now = at(u64::from(number) * 10);
        assert_eq!(lease.attempts, number - 1);
        let outcome = scene.failure(&lease, now, NextStep::RetryAt(now));
        assert_eq!(scene.record(now, outcome).await, Recorded::Done);
        assert_eq!(scene.delivery(lease.delivery).await.attempts, number);
        lease = scene.lease(lease.delivery, now).await;
    }
    let attempts = scene.store.attempts_of(&scene.tenant, lease.delivery).await.expect("the store works");
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

pub async fn a_delivery_that_ends_is_no_longer_leased_and_has_its_time(scene: Scene) {
    let ends = [
        (DeliveryState::Delivered, None),
        (DeliveryState::Exhausted, Some(Reason::Gone)),
        (DeliveryState::Cancelled, Some(Reason::SubscriptionDeleted)),
    ];
    for (state, reason) in ends {
        let lease = leased(&scene).await;
        // Some ends come without an attempt.
        let outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, NextStep::End(state, reason));
        assert_eq!(scene.record(at(3), outcome).await, Recorded::Done);
        let stored = scene.delivery(lease.delivery).await;
        assert_eq!((stored.state, stored.reason, stored.completed_at), (state, reason, Some(at(3))));
        assert_eq!((stored.leased, stored.attempts, stored.last_attempt_at), (false, 0, None));
        assert_eq!(scene.claim(at(10_000), 10).await, []);
    }
}

pub async fn outcomes_of_one_call_are_answered_in_order(scene: Scene) {
    let (first, second, third) = (leased(&scene).await, leased(&scene).await, leased(&scene).await);
    let outcomes = [
        scene.success(&first, at(2)),
        Outcome { token: scene.token(), ..scene.success(&second, at(2)) },
        scene.failure(&third, at(2), NextStep::RetryAt(at(9))),
    ];
    let recorded = scene.store.record(at(3), &outcomes).await.expect("the store works");
    assert_eq!(recorded, [Recorded::Done, Recorded::Fenced, Recorded::Done]);
    assert_eq!(scene.store.record(at(3), &[]).await.expect("the store works"), []);
}

pub async fn gone_disables_the_subscription_and_counts_as_a_change(scene: Scene) {
    let record = scene.subscribe().await;
    let (first, second) = (scene.emit(&record, at(1)).await.1, scene.emit(&record, at(1)).await.1);
    let leases = scene.claim_ids(at(2), &[first, second]).await.leases;
    let mut versions = Vec::new();
    for (index, lease) in leases.iter().enumerate() {
        let mut outcome = scene.success(lease, at(2));
        outcome.next = NextStep::End(DeliveryState::Exhausted, Some(Reason::Gone));
        outcome.effect = TargetEffect::DisableGone;
        assert_eq!(scene.record(at(3 + index as u64), outcome).await, Recorded::Done);
        let stored = scene.stored(&record).await;
        assert_eq!(stored.disabled, Some(DisabledReason::Gone));
        assert!(stored.version > record.version);
        assert_eq!(stored.updated_at, at(3), "the second time is none");
        assert_eq!(scene.generation(&scene.tenant).await, stored.version);
        versions.push(stored.version);
    }
    assert_eq!(versions[0], versions[1], "the second time is none");
    let changes = scene.store.subscription_changes(&scene.tenant, record.version, 10).await.expect("the store works");
    assert_eq!(
        changes.entries.iter().map(|entry| (entry.id, entry.patterns.len())).collect::<Vec<_>>(),
        [(record.id, 0)]
    );
}

pub async fn the_later_pause_stands_and_resuming_ends_it_without_a_change(scene: Scene) {
    let record = scene.subscribe().await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        let (_, delivery) = scene.emit(&record, at(1)).await;
        leases.push(scene.lease(delivery, at(1)).await);
    }
    let effects = [
        (TargetEffect::Pause(at(90)), Some(at(90))),
        (TargetEffect::Pause(at(60)), Some(at(90))),
        (TargetEffect::Resume, None),
    ];
    for (lease, (effect, paused)) in leases.iter().zip(effects) {
        let mut outcome = scene.success(lease, at(2));
        outcome.effect = effect;
        assert_eq!(scene.record(at(2), outcome).await, Recorded::Done);
        let stored = scene.stored(&record).await;
        assert_eq!((stored.paused_until, stored.version), (paused, record.version), "{effect:?}");
    }
    assert_eq!(scene.generation(&scene.tenant).await, record.version);
}

pub async fn a_released_delivery_is_due_again_and_has_spent_nothing(scene: Scene) {
    let lease = leased(&scene).await;
    let release = Release { delivery: lease.delivery, token: lease.token, due: at(5) };
    scene.store.release(&[release]).await.expect("the store works");
    let stored = scene.delivery(lease.delivery).await;
    assert_eq!((stored.next_at, stored.leased, stored.attempts, stored.lost_leases), (at(5), false, 0, 0));
    assert_eq!(scene.record(at(5), scene.success(&lease, at(4))).await, Recorded::Fenced, "the lease is over");
    assert_eq!(scene.claim(at(4), 10).await, []);
    assert_eq!(scene.claim(at(5), 10).await.len(), 1);
    assert_eq!(scene.delivery(lease.delivery).await.lost_leases, 0);
}

pub async fn a_release_without_the_current_lease_changes_nothing(scene: Scene) {
    let lease = leased(&scene).await;
    scene.lease(lease.delivery, at(1) + Duration::from_secs(LEASE)).await;
    let before = everything(&scene, lease.delivery).await;
    let late = Release { delivery: lease.delivery, token: lease.token, due: at(2) };
    let unknown = Release { delivery: DeliveryId::from_uuid(scene.uuid(at(1))), token: lease.token, due: at(2) };
    scene.store.release(&[late, unknown]).await.expect("the store works");
    assert_eq!(everything(&scene, lease.delivery).await, before);
}
