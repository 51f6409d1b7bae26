//! Accepting events.

use std::collections::HashMap;
use std::ops::Bound::Unbounded;

use async_trait::async_trait;

use super::MemoryStore;
use super::page::{below, no_page, page_of};
use super::rows::{DeliveryRow, EventRow};
use super::state::State;
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptPlan, AcceptUnit, EventFilter, EventStore, Page, PageRequest, StoreError,
};
use crate::{Event, EventId, EventSummary, TenantId, Timestamp};

#[async_trait]
impl EventStore for MemoryStore {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        let mut state = self.state();
        let generations: HashMap<_, _> =
            units.iter().map(|unit| (unit.tenant.clone(), state.generation(&unit.tenant))).collect();
        let stored = AcceptPlan::keys_of(units)
            .filter_map(|(tenant, key)| state.key(tenant, key.scope, &key.key))
            .cloned()
            .collect();
        let plan = AcceptPlan::resolve(units, now, &generations, stored);
        for item in plan.events {
            state.insert_event(item);
        }
        for key in plan.keys {
            state.remember(key);
        }
        Ok(plan.outcomes)
    }

    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError> {
        Ok(self.state().event(tenant, id).map(|row| (row.event.clone(), row.given)))
    }

    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError> {
        let state = self.state();
        let Some(owner) = state.tenants.get(tenant) else { return Ok(no_page(page)) };
        let newest = owner.events.range((Unbounded, below(page).map(EventId::from_uuid))).rev();
        let rows = newest.filter_map(|id| state.events.get(id)).filter(|row| shows(filter, &row.event));
        Ok(page_of(rows, page, |row| EventSummary::of(&row.event, row.given)))
    }

    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError> {
        let state = self.state();
        Ok(ids.iter().filter_map(|(tenant, id)| state.event(tenant, *id)).map(|row| row.event.clone()).collect())
    }
}

fn shows(filter: &EventFilter, event: &Event) -> bool {
    filter.event_type.as_ref().is_none_or(|wanted| event.event_type.as_ref() == Some(wanted))
        && filter.since.is_none_or(|since| event.created_at >= since)
        && filter.until.is_none_or(|until| event.created_at < until)
}

impl State {
    pub(super) fn insert_event(&mut self, item: &AcceptItem) {
        let event = item.event.clone();
        let (id, tenant, created_at) = (event.id, event.tenant.clone(), event.created_at);
        if self.events.contains_key(&id) {
            // A caller that asks again after an unknown outcome brings the same ids.
            return;
        }
        let mut deliveries: Vec<_> = item.deliveries.iter().map(|new| (new.target.id(), new.id)).collect();
        deliveries.sort_unstable();
        let given = u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
        self.events.insert(id, EventRow { event, given, deliveries });
        self.tenant(&tenant).events.insert(id);
        for new in &item.deliveries {
            let mut row = DeliveryRow::new(tenant.clone(), id, new.target.clone(), created_at);
            if let Some(grant) = new.lease {
                row.next_at = grant.until;
                row.lease = Some(grant.token);
            }
            self.insert_delivery(new.id, row);
        }
    }
}
