//! What becomes of leases and deliveries.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::model::{Row, time};
use super::step::{Effect, Flaw, Next};
use super::{Course, pick};
use crate::store::{
    AddedDelivery, CancelOutcome, Lease, NextStep, Outcome, PruneRequest, Recorded, Release, RetryOutcome, TargetEffect,
};
use crate::{DeliveryId, DeliveryState, EventId, Reason};

impl Course {
    pub(super) fn outcome(&self, lease: &Lease, next: Next) -> Outcome {
        let now = self.now();
        match next {
            Next::Retry(seconds) => {
                self.scene.failure(lease, now, NextStep::RetryAt(now + Duration::from_secs(seconds)))
            }
            Next::Deliver => self.scene.success(lease, now),
            Next::Exhaust => {
                let end = NextStep::End(DeliveryState::Exhausted, Some(Reason::AttemptsExhausted));
                self.scene.failure(lease, now, end)
            }
            Next::GiveUp => {
                let end = NextStep::End(DeliveryState::Cancelled, Some(Reason::SubscriptionDeleted));
                Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, end)
            }
        }
    }

    pub(super) async fn record(&mut self, number: usize, next: Next, effect: Effect, flaw: Flaw) {
        let Some(lease) = self.lease(number) else { return };
        let now = self.now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut outcome = self.outcome(&lease, next);
        match flaw {
            Flaw::None => {}
            Flaw::Token => outcome.token = self.scene.token(),
            Flaw::Tenant => outcome.tenant = self.scene.stranger.clone(),
        }
        outcome.effect = match effect {
            Effect::None => TargetEffect::None,
            Effect::Pause(seconds) => TargetEffect::Pause(later(seconds)),
            Effect::Resume => TargetEffect::Resume,
            Effect::DisableGone => TargetEffect::DisableGone,
        };
        let recorded = self.scene.record(now, outcome.clone()).await;
        let generation = self.scene.generation(&self.scene.tenant).await;
        let expected = match flaw {
            Flaw::Tenant => Recorded::Fenced,
            _ => self.model.record(now, &outcome, generation),
        };
        assert_eq!(recorded, expected, "an outcome of {}", lease.delivery);
    }

    /// Records outcomes of several leases, in any order, in one call.
    pub(super) async fn record_many(&mut self, numbers: &[(usize, Next)]) {
        let now = self.now();
        let outcome = |(number, next): &(usize, Next)| Some(self.outcome(&self.lease(*number)?, *next));
        let outcomes: Vec<_> = numbers.iter().filter_map(outcome).collect();
        let recorded = self.scene.store.record(now, &outcomes).await.expect("the store works");
        let generation = self.model.generation;
        let expected: Vec<_> = outcomes.iter().map(|outcome| self.model.record(now, outcome, generation)).collect();
        assert_eq!(recorded, expected, "outcomes {outcomes:?}");
    }

    pub(super) async fn release(&mut self, numbers: &[usize], later: u64) {
        let due = self.now() + Duration::from_secs(later);
        let leases: BTreeMap<_, _> = numbers
            .iter()
            .filter_map(|number| self.lease(*number))
            .map(|lease| ((lease.delivery, lease.token.get()), lease))
            .collect();
        let release = |lease: &Lease| Release { delivery: lease.delivery, token: lease.token, due };
        let releases: Vec<_> = leases.values().map(release).collect();
        self.scene.store.release(&releases).await.expect("the store works");
        for lease in leases.values() {
            self.model.release(lease.delivery, lease.token, due);
        }
    }

    /// Gives a subscription all events that it has not.
    pub(super) async fn recover(&mut self, number: usize, limit: u32) {
        let Some(record) = pick(&self.model.subscriptions, number).cloned() else { return };
        let (now, mut after, mut found) = (self.now(), None, Vec::new());
        loop {
            let window = (time(0), now + Duration::from_secs(1));
            let store = &self.scene.store;
            let step = store.recoverable(&self.scene.tenant, record.id, window.0, window.1, after, limit).await;
            let step = step.expect("the store works");
            found.extend(step.iter().map(|found| (found.event, found.delivery)));
            let Some(last) = step.last() else { break };
            after = Some(last.event);
        }
        let known = self.model.events.keys().map(|event| (*event, self.model.delivery_to(*event, record.id)));
        assert_eq!(found, known.collect::<Vec<_>>(), "what {} has of the events", record.id);
        let add = |event: &EventId| AddedDelivery { id: DeliveryId::from_uuid(self.scene.uuid(now)), event: *event };
        let added: Vec<_> = self.model.events.keys().map(add).collect();
        let tenant = &self.scene.tenant;
        let count = self.scene.store.add_deliveries(tenant, record.id, &added, now).await.expect("the store works");
        let missing: Vec<_> =
            found.iter().filter(|(_, delivery)| delivery.is_none()).map(|(event, _)| *event).collect();
        assert_eq!(count, missing.len() as u64, "deliveries that were added");
        for AddedDelivery { id, event } in added.iter().filter(|added| missing.contains(&added.event)) {
            self.model.deliveries.insert(*id, Row::new(*event, record.id, now));
            if let Some((_, deliveries)) = self.model.events.get_mut(event) {
                deliveries.push(*id);
            }
        }
    }

    pub(super) async fn retry(&mut self, number: usize) {
        let known: Vec<_> = self.model.deliveries.iter().map(|(id, row)| (*id, row.subscription)).collect();
        let Some((id, subscription)) = pick(&known, number).copied() else { return };
        let (store, now) = (&self.scene.store, self.now());
        let foreign = store.retry(&self.scene.stranger, id, now).await.expect("the store works");
        assert_eq!(foreign, RetryOutcome::Missing, "a stranger retries");
        let outcome = store.retry(&self.scene.tenant, id, now).await.expect("the store works");
        let expected = match self.model.subscription(subscription).is_some() {
            false => RetryOutcome::TargetGone,
            true if self.model.retry(id, now) => RetryOutcome::Done,
            true => RetryOutcome::Leased,
        };
        assert_eq!(outcome, expected, "a retry of {id}");
    }

    pub(super) async fn cancel(&mut self, number: usize) {
        let known: Vec<_> = self.model.deliveries.keys().copied().collect();
        let Some(id) = pick(&known, number).copied() else { return };
        let (store, now) = (&self.scene.store, self.now());
        let foreign = store.cancel(&self.scene.stranger, id, now).await.expect("the store works");
        assert_eq!(foreign, CancelOutcome::Missing, "a stranger cancels");
        let outcome = store.cancel(&self.scene.tenant, id, now).await.expect("the store works");
        let done = self.model.cancel(id, Reason::Requested, now);
        assert_eq!(outcome, if done { CancelOutcome::Done } else { CancelOutcome::Finished }, "cancelling {id}");
    }

    pub(super) async fn prune(&mut self, age: u64) {
        let now = self.now();
        let ended_before = now - Duration::from_secs(age);
        let (mut removed, mut cursor) = (0, None);
        for _ in 0..1_000 {
            let request = PruneRequest { ended_before, now, cursor, limit: 3 };
            let step = self.scene.store.prune(request).await.expect("the store works");
            removed += step.events;
            if step.cursor.is_none() && !step.more_keys {
                break;
            }
            cursor = step.cursor.or(cursor);
        }
        assert_eq!(removed, self.model.prune(ended_before), "pruned events");
    }
}
