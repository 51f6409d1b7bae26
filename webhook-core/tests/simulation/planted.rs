//! The memory store, and the bugs that may be planted in it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use webhook_core::store::{
    AcceptOutcome, AcceptUnit, ClaimRequest, Claimed, DeliveryStore, EventFilter, EventStore, ItemOutcome, LeaseToken,
    NextStep, Outcome, Page, PageRequest, Recorded, Release,
};
use webhook_core::{
    DeliveryId, Event, EventId, EventReceipt, EventSummary, MemoryStore, StoreError, TenantId, Timestamp,
};

use crate::world::Plant;

/// A store with at most one bug.
#[derive(Debug)]
pub(crate) struct PlantedStore {
    pub(crate) inner: MemoryStore,
    plant: Option<Plant>,
    accepted: AtomicU64,
    tokens: Mutex<HashMap<DeliveryId, LeaseToken>>,
}

impl PlantedStore {
    pub(crate) fn new(plant: Option<Plant>) -> Self {
        Self { inner: MemoryStore::new(), plant, accepted: AtomicU64::new(0), tokens: Mutex::default() }
    }

    async fn around<T>(
        &self,
        _: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        call.await
    }

    fn note(&self, claimed: &Claimed) {
        self.tokens.lock().unwrap().extend(claimed.leases.iter().map(|lease| (lease.delivery, lease.token)));
    }
}

webhook_core::wrap_store!(PlantedStore: SubscriptionStore, HistoryStore, MaintenanceStore, CaptureStore, ReceiptStore);

#[async_trait::async_trait]
impl EventStore for PlantedStore {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        let calls = self.accepted.fetch_add(1, Ordering::Relaxed);
        if self.plant == Some(Plant::AcceptsWithoutCommitting) && calls % 7 == 6 {
            let receipt = |item: &webhook_core::store::AcceptItem| {
                ItemOutcome::Created(EventReceipt::of(&item.event, &item.deliveries))
            };
            let done = |unit: &AcceptUnit| AcceptOutcome::Done(unit.items.iter().map(receipt).collect());
            return Ok(units.iter().map(done).collect());
        }
        let outcomes = self.inner.accept(now, units).await?;
        let deliveries = units.iter().flat_map(|unit| &unit.items).flat_map(|item| &item.deliveries);
        let grants = deliveries.filter_map(|new| Some((new.id, new.lease?.token)));
        self.tokens.lock().unwrap().extend(grants);
        Ok(outcomes)
    }

    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError> {
        self.inner.event(tenant, id).await
    }

    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError> {
        self.inner.list_events(tenant, filter, page).await
    }

    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError> {
        self.inner.load_events(ids).await
    }
}

#[async_trait::async_trait]
impl DeliveryStore for PlantedStore {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        let claimed = self.inner.claim(request).await?;
        self.note(&claimed);
        Ok(claimed)
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        let claimed = self.inner.claim_ids(request, ids).await?;
        self.note(&claimed);
        Ok(claimed)
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let mut outcomes = outcomes.to_vec();
        for outcome in &mut outcomes {
            match (self.plant, &mut outcome.next) {
                (Some(Plant::IgnoresTokens), _) => {
                    let tokens = self.tokens.lock().unwrap();
                    outcome.token = tokens.get(&outcome.delivery).copied().unwrap_or(outcome.token);
                }
                (Some(Plant::RetriesInHintsOnly), NextStep::RetryAt(due)) => {
                    *due = *due + Duration::from_secs(86_400);
                }
                _ => {}
            }
        }
        self.inner.record(now, &outcomes).await
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        self.inner.release(releases).await
    }
}
