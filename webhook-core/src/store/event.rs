//! The role that accepts events and keeps them.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{AcceptOutcome, AcceptUnit, Page, PageRequest, StoreError};
use crate::{Event, EventId, EventSummary, EventType, TenantId, Timestamp};

/// Which events a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only this type.
    pub event_type: Option<EventType>,
    /// Only from this time on, inclusive.
    pub since: Option<Timestamp>,
    /// Only before this time, exclusive.
    pub until: Option<Timestamp>,
}

/// Accepts events and keeps them.
#[async_trait]
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Accepts units in one transaction; one outcome for each, in order.
    ///
    /// # Contract
    ///
    /// - When it returns `Ok`, every created event is committed durably together with all its deliveries (I1).
    /// - A unit whose generation is not the tenant's current one is stale and leaves nothing behind (I2); a
    ///   subscription change waits for, or is seen by, every accept that runs beside it.
    /// - Keys are decided as [`super::AcceptPlan`] does, also between units of one call and between calls at the
    ///   same time, and are written in the same transaction.
    /// - An event that is there already, by its id, is answered as created, and nothing changes: who asks again after an
    ///   unknown outcome brings the same ids.
    /// - Payload bytes come back as they were given, whatever they are (I9).
    /// - Deliveries are due at the event's `created_at`, unless they are leased from the start.
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError>;

    /// One event of the tenant, with how many deliveries it was given when it was accepted.
    ///
    /// # Contract
    ///
    /// - Another tenant's event is unknown.
    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError>;

    /// The tenant's events, newest first.
    ///
    /// # Contract
    ///
    /// - Pages that go on from the last id, or from an offset, show each of them once; other tenants' are not shown.
    /// - The filter's conditions all hold, and count in the total.
    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError>;

    /// These events, in any order; unknown ones are left out. For workers.
    ///
    /// # Contract
    ///
    /// - Another tenant's event is unknown.
    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError>;
}
