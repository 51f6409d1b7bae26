//! What happened, and orders about deliveries.

use std::ops::Bound::{Excluded, Unbounded};

use async_trait::async_trait;

use super::MemoryStore;
use super::page::{below, no_page, page_of};
use super::rows::DeliveryRow;
use super::stats;
use crate::store::{
    Activity, AddedDelivery, CancelOutcome, DeliveryFilter, HistoryStore, Page, PageRequest, Recoverable, RetryOutcome,
    Stats, StoreError,
};
use crate::{
    Attempt, AttemptId, Delivery, DeliveryId, DeliveryState, EventId, Reason, SubscriptionId, Target, TenantId,
    Timestamp,
};

#[async_trait]
impl HistoryStore for MemoryStore {
    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let state = self.state();
        Ok(state.delivery(tenant, id).map(|row| state.view(id, row)))
    }

    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let state = self.state();
        let Some(owner) = state.tenants.get(tenant) else { return Ok(no_page(page)) };
        let newest = owner.deliveries.range((Unbounded, below(page).map(DeliveryId::from_uuid))).rev();
        let rows = newest.filter_map(|id| Some((*id, state.deliveries.get(id)?)));
        Ok(page_of(rows.filter(|(_, row)| shows(filter, row)), page, |(id, row)| state.view(id, row)))
    }

    async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        let state = self.state();
        let history = state.delivery(tenant, delivery).map(|row| row.history.as_slice()).unwrap_or_default();
        Ok(history.iter().map(|attempt| Attempt::clone(attempt)).collect())
    }

    async fn list_attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        page: PageRequest,
    ) -> Result<Page<Attempt>, StoreError> {
        let state = self.state();
        let Some(row) = state.subscription(tenant, subscription) else { return Ok(no_page(page)) };
        let newest = row.attempts.range((Unbounded, below(page).map(AttemptId::from_uuid))).rev();
        Ok(page_of(newest, page, |(_, attempt)| Attempt::clone(attempt)))
    }

    async fn retry(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let mut state = self.state();
        let Some(row) = state.delivery(tenant, id) else { return Ok(RetryOutcome::Missing) };
        let subscription = row.target.subscription();
        if subscription.is_some_and(|id| state.subscription(tenant, id).is_none()) {
            return Ok(RetryOutcome::TargetGone);
        }
        if row.is_pending() && row.lease.is_some() && row.next_at > now {
            return Ok(RetryOutcome::Leased);
        }
        // One whose lease ran out keeps it, so that the claim that finds it counts it as lost.
        let (lease, next_at) = (row.lease, if row.is_pending() { row.next_at.min(now) } else { now });
        if let Some(row) = state.deliveries.get_mut(&id).filter(|row| !row.is_pending()) {
            row.reopened = Some((row.state, row.reason));
            row.lost_leases = 0;
        }
        state.schedule(id, next_at, lease);
        if let Some(row) = subscription.and_then(|id| state.subscription_mut(tenant, id)) {
            row.record.paused_until = None;
        }
        Ok(RetryOutcome::Done)
    }

    async fn cancel(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<CancelOutcome, StoreError> {
        let mut state = self.state();
        let Some(row) = state.delivery(tenant, id) else { return Ok(CancelOutcome::Missing) };
        if !row.is_pending() {
            return Ok(CancelOutcome::Finished);
        }
        state.end(id, DeliveryState::Cancelled, Some(Reason::Requested), now);
        Ok(CancelOutcome::Done)
    }

    async fn recoverable(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        since: Timestamp,
        until: Timestamp,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Recoverable>, StoreError> {
        let state = self.state();
        let Some(owner) = state.tenants.get(tenant) else { return Ok(Vec::new()) };
        let start = after.map_or(Unbounded, Excluded);
        let rows = owner.events.range((start, Unbounded)).filter_map(|id| state.events.get(id));
        let wanted = rows.filter(|row| !row.event.direct && (since..until).contains(&row.event.created_at));
        let found = wanted.take(limit as usize).map(|row| Recoverable {
            event: row.event.id,
            event_type: row.event.event_type.clone(),
            delivery: row.delivery_to(subscription.into()).and_then(|id| Some((id, state.delivery(tenant, id)?.state))),
        });
        Ok(found.collect())
    }

    async fn add_deliveries(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        deliveries: &[AddedDelivery],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        if state.subscription(tenant, subscription).is_none() {
            return Ok(0);
        }
        let mut created = 0;
        for added in deliveries {
            let event = state.events.get_mut(&added.event).filter(|row| row.event.tenant == *tenant);
            let Some(event) = event.filter(|row| row.delivery_to(subscription.into()).is_none()) else { continue };
            event.deliveries.push((subscription.into(), added.id));
            event.deliveries.sort_unstable();
            let target = Target::Subscription(subscription);
            state.insert_delivery(added.id, DeliveryRow::new(tenant.clone(), added.event, target, now));
            created += 1;
        }
        Ok(created)
    }

    async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, StoreError> {
        Ok(stats::stats(&self.state(), tenant, subscription, since))
    }

    async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, StoreError> {
        Ok(stats::activity(&self.state(), tenant, limit as usize))
    }
}

fn shows(filter: &DeliveryFilter, row: &DeliveryRow) -> bool {
    filter.state.is_none_or(|state| row.state == state)
        && filter.subscription.is_none_or(|id| row.target.subscription() == Some(id))
        && filter.event.is_none_or(|event| row.event == event)
        && filter.since.is_none_or(|since| row.created_at >= since)
}
