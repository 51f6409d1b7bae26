//! Events.

use std::collections::HashMap;

use async_trait::async_trait;
use webhook_core::store::{
    AcceptItem, AcceptOutcome, AcceptPlan, AcceptUnit, EventFilter, EventStore, Page, PageRequest,
};
use webhook_core::{Event, EventId, EventSummary, StoreError, TenantId, Timestamp};

use crate::page::page;
use crate::rows::{DeliveryRow, EventRow};
use crate::tables::Change;
use crate::{JournalStore, Transaction};

#[async_trait]
impl EventStore for JournalStore {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        self.write(|tx| {
            let generation = |unit: &AcceptUnit| (unit.tenant.clone(), tx.tables.generation(&unit.tenant));
            let generations: HashMap<_, _> = units.iter().map(generation).collect();
            let stored = AcceptPlan::keys_of(units)
                .filter_map(|(tenant, key)| {
                    tx.tables.keys.get(&(tenant.clone(), key.scope.to_owned(), key.key.clone()))
                })
                .map(|row| row.clone().into())
                .collect();
            let plan = AcceptPlan::resolve(units, now, &generations, stored);
            for item in plan.events {
                tx.insert_event(item);
            }
            for key in plan.keys {
                tx.put(Change::Key(key.into()));
            }
            plan.outcomes
        })
    }

    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError> {
        self.read(|tables| tables.event(tenant, id).map(|row| (row.event(), row.given)))
    }

    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        request: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError> {
        self.read(|tables| {
            let rows = tables.events.values().rev().filter(|row| {
                row.tenant == *tenant
                    && (filter.event_type.is_none() || filter.event_type == row.event_type)
                    && filter.since.is_none_or(|since| row.created_at >= since)
                    && filter.until.is_none_or(|until| row.created_at < until)
            });
            let page = page(rows.map(|row| (row.id.as_uuid(), row)), request);
            page.map(|row| EventSummary::of(&row.event(), row.given))
        })
    }

    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError> {
        self.read(|tables| {
            ids.iter().filter_map(|(tenant, id)| tables.event(tenant, *id)).map(EventRow::event).collect()
        })
    }
}

impl Transaction<'_> {
    /// Puts an event with its deliveries, unless it is there: a caller that asks again brings the same ids.
    pub(crate) fn insert_event(&mut self, item: &AcceptItem) {
        if self.tables.events.contains_key(&item.event.id) {
            return;
        }
        let (event, given) = (&item.event, u32::try_from(item.deliveries.len()).unwrap_or(u32::MAX));
        self.put(Change::Event(EventRow::new(event, given)));
        for new in &item.deliveries {
            let mut row = DeliveryRow::new(new.id, event.tenant.clone(), event.id, &new.target, event.created_at);
            if let Some(lease) = new.lease {
                (row.token, row.next_at) = (Some(lease.token.get()), lease.until);
            }
            self.put(Change::Delivery(row));
        }
    }
}
