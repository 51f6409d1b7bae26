//! Keeping the store in order.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use async_trait::async_trait;
use webhook_core::store::{Backlog, MaintenanceStore, PruneRequest, PruneStep};
use webhook_core::{Clock, DeliveryState, Notifier, Reason, StoreError, SystemClock, Timestamp};

use crate::JournalStore;
use crate::rows::{DeliveryRow, EventRow};
use crate::tables::{Change, Tables};

#[async_trait]
impl MaintenanceStore for JournalStore {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn notifier(&self) -> Option<Arc<dyn Notifier>> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_| ())
    }

    async fn prune(&self, request: PruneRequest) -> Result<PruneStep, StoreError> {
        self.write(|tx| {
            if tx.tables.keys.values().any(|row| row.expires_at <= request.now) {
                tx.put(Change::KeysGone(request.now));
            }
            let limit = request.limit.max(1) as usize;
            let ahead = (request.cursor.map_or(Unbounded, Excluded), Unbounded);
            let looked_at: Vec<_> = tx.tables.events.range(ahead).take(limit).map(|(_, row)| row.clone()).collect();
            let mut step = PruneStep::default();
            for row in &looked_at {
                if ended(tx.tables, row).is_some_and(|ended| ended < request.ended_before) {
                    tx.put(Change::EventGone(row.id));
                    step.events += 1;
                }
            }
            step.cursor = looked_at.last().filter(|_| looked_at.len() == limit).map(|row| row.id);
            step
        })
    }

    async fn cancel_orphans(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(|tx| {
            let orphaned = |row: &&DeliveryRow| {
                row.is_pending()
                    && row.subscription().is_some_and(|id| tx.tables.subscription(&row.tenant, id).is_none())
            };
            let orphans = tx.tables.deliveries.values().filter(orphaned).take(limit as usize);
            let orphans: Vec<_> = orphans.cloned().collect();
            let cancelled = orphans.len() as u64;
            for row in orphans {
                let reason = Some(Reason::SubscriptionDeleted);
                tx.put(Change::Delivery(row.ended(DeliveryState::Cancelled, reason, now)));
            }
            cancelled
        })
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        self.read(|tables| {
            let pending = || tables.deliveries.values().filter(|row| row.is_pending());
            let due = || pending().filter(|row| row.token.is_none() && row.next_at <= now).map(|row| row.next_at);
            Backlog { pending: pending().count() as u64, due: due().count() as u64, oldest_due: due().min() }
        })
    }
}

/// When the last of the event's deliveries ended; none while one is open.
fn ended(tables: &Tables, event: &EventRow) -> Option<Timestamp> {
    let mut deliveries = tables.deliveries.values().filter(|row| row.event == event.id);
    deliveries.try_fold(event.created_at, |last, row| Some(last.max(row.completed_at?)))
}
