//! What happened, and orders about deliveries.

use std::cmp::Reverse;

use async_trait::async_trait;
use webhook_core::store::{
    Activity, ActivityKind, AddedDelivery, CancelOutcome, DeliveryFilter, HistoryStore, Page, PageRequest, Recoverable,
    RetryOutcome, Stats,
};
use webhook_core::{
    Attempt, Delivery, DeliveryId, DeliveryState, EventId, Reason, StoreError, SubscriptionId, Target, TenantId,
    Timestamp,
};

use crate::JournalStore;
use crate::page::page;
use crate::rows::{AttemptRow, DeliveryRow};
use crate::tables::Change;

#[async_trait]
impl HistoryStore for JournalStore {
    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(|tables| tables.delivery(tenant, id).map(|row| tables.view(row)))
    }

    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        request: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        self.read(|tables| {
            let rows = tables.deliveries.values().rev().filter(|row| {
                row.tenant == *tenant
                    && filter.state.is_none_or(|state| row.state == state)
                    && (filter.subscription.is_none() || row.subscription() == filter.subscription)
                    && filter.event.is_none_or(|event| row.event == event)
                    && filter.since.is_none_or(|since| row.created_at >= since)
            });
            page(rows.map(|row| (row.id.as_uuid(), row)), request).map(|row| tables.view(row))
        })
    }

    async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        self.read(|tables| {
            let rows = tables.attempts.values().filter(|row| row.tenant == *tenant && row.delivery == delivery);
            let mut rows: Vec<_> = rows.collect();
            rows.sort_by_key(|row| row.number);
            rows.into_iter().map(AttemptRow::attempt).collect()
        })
    }

    async fn list_attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        request: PageRequest,
    ) -> Result<Page<Attempt>, StoreError> {
        self.read(|tables| {
            let wanted = |row: &&AttemptRow| row.tenant == *tenant && row.subscription == Some(subscription);
            let rows = tables.attempts.values().rev().filter(wanted);
            page(rows.map(|row| (row.id.as_uuid(), row)), request).map(AttemptRow::attempt)
        })
    }

    async fn retry(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        self.write(|tx| {
            let Some(mut row) = tx.tables.delivery(tenant, id).cloned() else { return RetryOutcome::Missing };
            let subscription = row.subscription().map(|id| tx.tables.subscription(tenant, id).cloned());
            if matches!(subscription, Some(None)) {
                return RetryOutcome::TargetGone;
            }
            if row.token.is_some() && row.next_at > now {
                return RetryOutcome::Leased;
            }
            if row.is_pending() {
                row.next_at = row.next_at.min(now);
            } else {
                row.reopened = Some((row.state, row.reason));
                (row.state, row.reason, row.completed_at) = (DeliveryState::Pending, None, None);
                (row.next_at, row.lost_leases) = (now, 0);
            }
            tx.put(Change::Delivery(row));
            if let Some(mut subscription) = subscription.flatten() {
                subscription.paused_until = None;
                tx.put(Change::Subscription(subscription));
            }
            RetryOutcome::Done
        })
    }

    async fn cancel(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<CancelOutcome, StoreError> {
        self.write(|tx| match tx.tables.delivery(tenant, id).cloned() {
            None => CancelOutcome::Missing,
            Some(row) if !row.is_pending() => CancelOutcome::Finished,
            Some(row) => {
                tx.put(Change::Delivery(row.ended(DeliveryState::Cancelled, Some(Reason::Requested), now)));
                CancelOutcome::Done
            }
        })
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
        self.read(|tables| {
            let rows = tables.events.values().filter(|row| {
                row.tenant == *tenant
                    && !row.direct
                    && (since..until).contains(&row.created_at)
                    && after.is_none_or(|after| row.id > after)
            });
            let found = rows.take(limit as usize).map(|row| Recoverable {
                event: row.id,
                event_type: row.event_type.clone(),
                delivery: tables.delivery_to(subscription, row.id).map(|row| (row.id, row.state)),
            });
            found.collect()
        })
    }

    async fn add_deliveries(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        deliveries: &[AddedDelivery],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write(|tx| {
            let mut created = 0;
            for added in deliveries {
                let known = tx.tables.subscription(tenant, subscription).is_some()
                    && tx.tables.event(tenant, added.event).is_some();
                if known && tx.tables.delivery_to(subscription, added.event).is_none() {
                    let target = Target::Subscription(subscription);
                    tx.put(Change::Delivery(DeliveryRow::new(added.id, tenant.clone(), added.event, &target, now)));
                    created += 1;
                }
            }
            created
        })
    }

    async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, StoreError> {
        self.read(|tables| {
            let mut stats = Stats::default();
            stats.deliveries = DeliveryState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
            let wanted = |id: Option<SubscriptionId>| subscription.is_none() || id == subscription;
            let rows = tables.subscriptions.values().filter(|row| row.tenant == *tenant && !row.deleted);
            for row in rows.filter(|row| wanted(Some(row.id))) {
                stats.subscriptions += 1;
                stats.enabled_subscriptions += u64::from(row.disabled.is_none());
            }
            let rows = tables.events.values().filter(|row| row.tenant == *tenant && row.created_at >= since);
            let sent = |id| subscription.is_none_or(|to| tables.delivery_to(to, id).is_some());
            stats.events = rows.filter(|row| sent(row.id)).count() as u64;
            let rows = tables.deliveries.values().filter(|row| row.tenant == *tenant && row.created_at >= since);
            for row in rows.filter(|row| wanted(row.subscription())) {
                *stats.deliveries.entry(row.state.as_str()).or_default() += 1;
            }
            let rows = tables.attempts.values().filter(|row| row.tenant == *tenant && row.started_at >= since);
            let rows: Vec<_> = rows.filter(|row| wanted(row.subscription)).collect();
            stats.failures = rows.iter().filter(|row| row.failure.is_some()).count() as u64;
            stats.successes = rows.len() as u64 - stats.failures;
            let mut durations: Vec<_> = rows.iter().map(|row| (row.duration.as_millis() as u64, 1)).collect();
            durations.sort_unstable();
            stats.set_percentiles(&durations);
            stats
        })
    }

    async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, StoreError> {
        self.read(|tables| {
            let mut news = Vec::new();
            for row in tables.attempts.values().filter(|row| row.tenant == *tenant) {
                let failed = row.failure.is_some();
                let kind = if failed { ActivityKind::AttemptFailed } else { ActivityKind::AttemptSucceeded };
                let mut activity = Activity::new(kind, row.started_at);
                activity.subscription_id = row.subscription;
                activity.event_id = Some(row.event);
                activity.delivery_id = Some(row.delivery);
                activity.status_code = row.status_code;
                news.push(activity);
            }
            for row in tables.events.values().filter(|row| row.tenant == *tenant) {
                let mut activity = Activity::new(ActivityKind::EventAccepted, row.created_at);
                activity.event_id = Some(row.id);
                news.push(activity);
            }
            for row in tables.subscriptions.values().filter(|row| row.tenant == *tenant && !row.deleted) {
                let mut activity = Activity::new(ActivityKind::SubscriptionCreated, row.created_at);
                activity.subscription_id = Some(row.id);
                news.push(activity);
            }
            news.sort_by_key(|activity| Reverse(activity.at));
            news.truncate(limit as usize);
            news
        })
    }
}
