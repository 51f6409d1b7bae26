//! What the store holds, and the changes that must keep its parts in step.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::capture::Captures;
use super::open::{OpenIndex, Slot};
use super::receipt::Receipts;
use super::rows::{DeliveryRow, EventRow, SubscriptionRow, Tenant};
use crate::store::{LeaseToken, StoredKey};
use crate::{Delivery, DeliveryId, DeliveryState, EventId, Generation, Reason, SubscriptionId, TenantId, Timestamp};

/// Tenant, scope and text of an idempotency key.
pub(super) type KeyName = (TenantId, String, String);

#[derive(Default)]
pub(super) struct State {
    pub(super) tenants: HashMap<TenantId, Tenant>,
    pub(super) subscriptions: HashMap<SubscriptionId, SubscriptionRow>,
    /// Deleted ones that may still have pending deliveries.
    pub(super) orphaning: BTreeSet<SubscriptionId>,
    pub(super) events: BTreeMap<EventId, EventRow>,
    pub(super) deliveries: HashMap<DeliveryId, DeliveryRow>,
    pub(super) open: OpenIndex,
    pub(super) captures: Captures,
    pub(super) receipts: Receipts,
    keys: HashMap<KeyName, StoredKey>,
    keys_by_end: BTreeSet<(Timestamp, KeyName)>,
}

impl State {
    pub(super) fn tenant(&mut self, tenant: &TenantId) -> &mut Tenant {
        self.tenants.entry(tenant.clone()).or_default()
    }

    pub(super) fn generation(&self, tenant: &TenantId) -> Generation {
        self.tenants.get(tenant).map(|tenant| tenant.generation).unwrap_or_default()
    }

    /// The tenant's subscription, unless it was deleted.
    pub(super) fn subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Option<&SubscriptionRow> {
        self.subscriptions.get(&id).filter(|row| !row.deleted && row.record.tenant == *tenant)
    }

    pub(super) fn subscription_mut(&mut self, tenant: &TenantId, id: SubscriptionId) -> Option<&mut SubscriptionRow> {
        self.subscriptions.get_mut(&id).filter(|row| !row.deleted && row.record.tenant == *tenant)
    }

    pub(super) fn event(&self, tenant: &TenantId, id: EventId) -> Option<&EventRow> {
        self.events.get(&id).filter(|row| row.event.tenant == *tenant)
    }

    pub(super) fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Option<&DeliveryRow> {
        self.deliveries.get(&id).filter(|row| row.tenant == *tenant)
    }

    /// The delivery as callers see it.
    pub(super) fn view(&self, id: DeliveryId, row: &DeliveryRow) -> Delivery {
        let event_type = self.events.get(&row.event).and_then(|row| row.event.event_type.clone());
        let subscription = row.target.subscription().and_then(|id| self.subscription(&row.tenant, id));
        row.delivery(id, event_type, subscription.is_some_and(|row| row.record.disabled.is_some()))
    }

    /// Counts a change of the subscription, which takes the tenant's next generation as its version.
    pub(super) fn count_change(&mut self, tenant: &TenantId, id: SubscriptionId, now: Timestamp) -> Generation {
        let owner = self.tenant(tenant);
        owner.generation = owner.generation.after(now);
        let generation = owner.generation;
        owner.changes.insert(generation, id);
        if let Some(row) = self.subscriptions.get_mut(&id) {
            let before = std::mem::replace(&mut row.record.version, generation);
            self.tenant(tenant).changes.remove(&before);
        }
        generation
    }

    pub(super) fn insert_delivery(&mut self, id: DeliveryId, row: DeliveryRow) {
        self.open.insert(row.next_at, id, Slot { target: row.target.id(), leased: row.lease.is_some() });
        self.tenant(&row.tenant).deliveries.insert(id);
        self.deliveries.insert(id, row);
    }

    /// Makes a delivery pending, due at `next_at` or leased until then.
    pub(super) fn schedule(&mut self, id: DeliveryId, next_at: Timestamp, lease: Option<LeaseToken>) {
        let Some(row) = self.deliveries.get_mut(&id) else { return };
        self.open.remove(row.next_at, id);
        row.state = DeliveryState::Pending;
        row.reason = None;
        row.completed_at = None;
        row.next_at = next_at;
        row.lease = lease;
        self.open.insert(next_at, id, Slot { target: row.target.id(), leased: lease.is_some() });
    }

    /// Ends a delivery; a lease on it is void.
    pub(super) fn end(&mut self, id: DeliveryId, state: DeliveryState, reason: Option<Reason>, now: Timestamp) {
        let Some(row) = self.deliveries.get_mut(&id) else { return };
        self.open.remove(row.next_at, id);
        row.state = state;
        row.reason = reason;
        row.completed_at = Some(now);
        row.lease = None;
        row.reopened = None;
    }

    pub(super) fn key(&self, tenant: &TenantId, scope: &str, key: &str) -> Option<&StoredKey> {
        self.keys.get(&(tenant.clone(), scope.to_owned(), key.to_owned()))
    }

    pub(super) fn remember(&mut self, key: StoredKey) {
        let name = (key.tenant.clone(), key.scope.clone(), key.key.clone());
        self.keys_by_end.insert((key.expires_at, name.clone()));
        if let Some(old) = self.keys.insert(name.clone(), key.clone())
            && old.expires_at != key.expires_at
        {
            self.keys_by_end.remove(&(old.expires_at, name));
        }
    }

    /// Forgets up to `limit` keys that have expired.
    pub(super) fn forget_keys(&mut self, now: Timestamp, limit: usize) -> bool {
        for _ in 0..limit {
            let Some((_, name)) = self.keys_by_end.first().filter(|(end, _)| *end <= now).cloned() else {
                return false;
            };
            self.keys_by_end.pop_first();
            self.keys.remove(&name);
        }
        self.keys_by_end.first().is_some_and(|(end, _)| *end <= now)
    }
}
