//! Keeping the store in order.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryStore;
use super::rows::EventRow;
use super::state::State;
use crate::store::{Backlog, MaintenanceStore, PruneRequest, PruneStep, StoreError};
use crate::{Clock, DeliveryState, EventId, Notifier, Reason, SystemClock, Timestamp};

#[async_trait]
impl MaintenanceStore for MemoryStore {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn notifier(&self) -> Option<Arc<dyn Notifier>> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn prune(&self, request: PruneRequest) -> Result<PruneStep, StoreError> {
        let mut state = self.state();
        let limit = request.limit.max(1) as usize;
        let more_keys = state.forget_keys(request.now, limit);
        let start = request.cursor.map_or(Unbounded, Excluded);
        let looked_at: Vec<_> = state.events.range((start, Unbounded)).take(limit).map(|(id, _)| *id).collect();
        let cursor = looked_at.last().copied().filter(|_| looked_at.len() == limit);
        let mut events = 0;
        for id in looked_at {
            if state.ended(id).is_some_and(|ended| ended < request.ended_before) {
                state.remove_event(id);
                events += 1;
            }
        }
        Ok(PruneStep { events, cursor, more_keys })
    }

    async fn cancel_orphans(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut state = self.state();
        let mut cancelled = 0;
        while let Some(subscription) = state.orphaning.first().copied() {
            let left = limit as usize - cancelled;
            let orphans: Vec<_> = state.open.all_of(subscription.into()).take(left).collect();
            if orphans.len() < left {
                state.orphaning.pop_first();
            }
            for id in &orphans {
                state.end(*id, DeliveryState::Cancelled, Some(Reason::SubscriptionDeleted), now);
            }
            cancelled += orphans.len();
            if cancelled >= limit as usize {
                break;
            }
        }
        Ok(cancelled as u64)
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        let state = self.state();
        let mut backlog = Backlog { pending: state.open.len() as u64, ..Backlog::default() };
        for (due, ..) in state.open.due(now).filter(|(_, _, slot)| !slot.leased) {
            backlog.due += 1;
            backlog.oldest_due.get_or_insert(due);
        }
        Ok(backlog)
    }
}

impl State {
    /// When the last of the event's deliveries ended; none while one is open.
    fn ended(&self, id: EventId) -> Option<Timestamp> {
        let row = self.events.get(&id)?;
        row.deliveries.iter().try_fold(row.event.created_at, |last, (_, delivery)| {
            let row = self.deliveries.get(delivery)?;
            Some(last.max(row.completed_at?))
        })
    }

    fn remove_event(&mut self, id: EventId) {
        let Some(EventRow { event, deliveries, .. }) = self.events.remove(&id) else { return };
        self.tenant(&event.tenant).events.remove(&id);
        for (_, id) in deliveries {
            self.tenant(&event.tenant).deliveries.remove(&id);
            let Some(row) = self.deliveries.remove(&id) else { continue };
            for attempt in row.history {
                self.tenant(&event.tenant).attempts.remove(&attempt.id);
                if let Some(row) = attempt.subscription_id.and_then(|id| self.subscriptions.get_mut(&id)) {
                    row.attempts.remove(&attempt.id);
                }
            }
        }
    }
}
