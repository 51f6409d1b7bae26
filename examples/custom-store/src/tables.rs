//! The maps, and what changes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use webhook_core::{
    AttemptId, CaptureId, Delivery, DeliveryId, EventId, Generation, PathKey, ReceiptKey, SubscriptionId, TenantId,
    Timestamp,
};

use crate::capture_rows::{CapturedRow, PathRow};
use crate::receipt::ReceiptRow;
use crate::rows::{AttemptRow, DeliveryRow, EventRow, KeyRow, SubscriptionRow};

/// A row that takes the place of the one before it, or the end of one.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    Subscription(SubscriptionRow),
    Event(EventRow),
    Delivery(DeliveryRow),
    Attempt(AttemptRow),
    Key(KeyRow),
    /// An event goes, with its deliveries and attempts.
    EventGone(EventId),
    /// Keys that have expired by then go.
    KeysGone(Timestamp),
    Path(PathRow),
    /// A path goes, with its requests.
    PathGone(PathKey),
    Captured(CapturedRow),
    CapturedGone(PathKey, Vec<CaptureId>),
    Receipt(ReceiptRow),
    ReceiptGone(ReceiptKey),
}

#[derive(Default)]
pub(crate) struct Tables {
    /// Deleted ones stay, for the changes to tell.
    pub(crate) subscriptions: BTreeMap<SubscriptionId, SubscriptionRow>,
    pub(crate) events: BTreeMap<EventId, EventRow>,
    pub(crate) deliveries: BTreeMap<DeliveryId, DeliveryRow>,
    pub(crate) attempts: BTreeMap<AttemptId, AttemptRow>,
    pub(crate) keys: BTreeMap<(TenantId, String, String), KeyRow>,
    pub(crate) paths: BTreeMap<PathKey, PathRow>,
    pub(crate) captured: BTreeMap<(PathKey, CaptureId), CapturedRow>,
    pub(crate) receipts: BTreeMap<ReceiptKey, ReceiptRow>,
}

impl Tables {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Subscription(row) => _ = self.subscriptions.insert(row.id, row),
            Change::Event(row) => _ = self.events.insert(row.id, row),
            Change::Delivery(row) => _ = self.deliveries.insert(row.id, row),
            Change::Attempt(row) => _ = self.attempts.insert(row.id, row),
            Change::Key(row) => {
                self.keys.insert((row.tenant.clone(), row.scope.clone(), row.key.clone()), row);
            }
            Change::EventGone(id) => {
                self.events.remove(&id);
                self.deliveries.retain(|_, row| row.event != id);
                self.attempts.retain(|_, row| row.event != id);
            }
            Change::Path(row) => _ = self.paths.insert(row.key, row),
            Change::PathGone(key) => {
                self.paths.remove(&key);
                self.captured.retain(|(path, _), _| *path != key);
            }
            Change::Captured(row) => _ = self.captured.insert((row.path, row.id), row),
            Change::CapturedGone(path, ids) => {
                for id in ids {
                    self.captured.remove(&(path, id));
                }
            }
            Change::Receipt(row) => _ = self.receipts.insert(row.key.clone(), row),
            Change::ReceiptGone(key) => _ = self.receipts.remove(&key),
            Change::KeysGone(now) => self.keys.retain(|_, row| row.expires_at > now),
        }
    }

    /// Each change of a subscription has the next number, so the highest one is the tenant's.
    pub(crate) fn generation(&self, tenant: &TenantId) -> Generation {
        let of_tenant = self.subscriptions.values().filter(|row| row.tenant == *tenant);
        of_tenant.map(|row| row.version).max().unwrap_or_default()
    }

    pub(crate) fn subscription(&self, tenant: &TenantId, id: SubscriptionId) -> Option<&SubscriptionRow> {
        self.subscriptions.get(&id).filter(|row| !row.deleted && row.tenant == *tenant)
    }

    pub(crate) fn event(&self, tenant: &TenantId, id: EventId) -> Option<&EventRow> {
        self.events.get(&id).filter(|row| row.tenant == *tenant)
    }

    pub(crate) fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Option<&DeliveryRow> {
        self.deliveries.get(&id).filter(|row| row.tenant == *tenant)
    }

    pub(crate) fn delivery_to(&self, subscription: SubscriptionId, event: EventId) -> Option<&DeliveryRow> {
        self.deliveries.values().find(|row| row.event == event && row.subscription() == Some(subscription))
    }

    pub(crate) fn view(&self, row: &DeliveryRow) -> Delivery {
        let subscription = row.subscription().and_then(|id| self.subscription(&row.tenant, id));
        let held = row.is_pending() && subscription.is_some_and(|row| row.disabled.is_some());
        row.delivery(self.events.get(&row.event).and_then(|event| event.event_type.clone()), held)
    }
}
