//! Leases and outcomes.

use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryStore;
use super::claim::Claim;
use super::state::State;
use crate::store::{
    ClaimRequest, Claimed, DeliveryStore, NextStep, Outcome, Recorded, Release, StoreError, TargetEffect,
};
use crate::{Attempt, DeliveryId, DisabledReason, SubscriptionId, TenantId, Timestamp};

#[async_trait]
impl DeliveryStore for MemoryStore {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        Ok(Claim::new(&mut self.state(), request).due())
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        Ok(Claim::new(&mut self.state(), request).ids(ids))
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let mut state = self.state();
        Ok(outcomes.iter().map(|outcome| state.record(now, outcome)).collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        let mut state = self.state();
        for release in releases {
            if state.deliveries.get(&release.delivery).is_some_and(|row| row.is_leased_by(release.token)) {
                state.schedule(release.delivery, release.due, None);
            }
        }
        Ok(())
    }
}

impl State {
    fn record(&mut self, now: Timestamp, outcome: &Outcome) -> Recorded {
        let row = self.delivery(&outcome.tenant, outcome.delivery);
        let Some(row) = row.filter(|row| row.is_leased_by(outcome.token)) else { return Recorded::Fenced };
        let subscription = row.target.subscription();
        if let Some(attempt) = &outcome.attempt {
            self.write_attempt(&outcome.tenant, outcome.delivery, attempt);
        }
        match outcome.next {
            NextStep::RetryAt(due) => self.schedule(outcome.delivery, due, None),
            NextStep::End(state, reason) => self.end(outcome.delivery, state, reason, now),
        }
        if let Some(subscription) = subscription {
            self.apply(&outcome.tenant, subscription, outcome.effect, now);
        }
        Recorded::Done
    }

    fn write_attempt(&mut self, tenant: &TenantId, delivery: DeliveryId, attempt: &Arc<Attempt>) {
        if let Some(row) = self.deliveries.get_mut(&delivery) {
            row.attempts = attempt.number;
            row.last_status_code = attempt.status_code;
            row.last_error = attempt.failure.as_ref().map(|failure| failure.kind);
            row.last_attempt_at = Some(attempt.started_at);
            row.history.push(Arc::clone(attempt));
        }
        if let Some(row) = attempt.subscription_id.and_then(|id| self.subscriptions.get_mut(&id)) {
            row.attempts.insert(attempt.id, Arc::clone(attempt));
        }
        self.tenant(tenant).attempts.insert(attempt.id, Arc::clone(attempt));
    }

    fn apply(&mut self, tenant: &TenantId, subscription: SubscriptionId, effect: TargetEffect, now: Timestamp) {
        let Some(row) = self.subscription_mut(tenant, subscription) else { return };
        match effect {
            TargetEffect::None => {}
            TargetEffect::Pause(until) => row.record.paused_until = row.record.paused_until.max(Some(until)),
            TargetEffect::Resume => row.record.paused_until = None,
            TargetEffect::DisableGone => {
                if row.record.disabled.is_none() {
                    row.record.disabled = Some(DisabledReason::Gone);
                    row.record.paused_until = None;
                    row.record.updated_at = now;
                    self.count_change(tenant, subscription, now);
                }
            }
        }
    }
}
