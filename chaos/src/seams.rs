//! The seams of a server: a store, a queue, a network and a clock that pass on what they are asked, but for what the
//! command line plants in them.

use std::process::abort;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgPool;
use webhook_core::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, ClaimRequest, Claimed, DeliveryStore, EventFilter, EventStore, ItemOutcome,
    LeaseToken, NextStep, Outcome, Page, PageRequest, Recorded, Release,
};
use webhook_core::{
    Clock, DeliveryId, Event, EventId, EventReceipt, EventSummary, Hint, OutboundRequest, OutboundResponse, Queue,
    QueueError, Store, StoreError, TenantId, Timestamp, Transport, TransportError,
};

use crate::settings::{Abort, Moment, Plant};

/// As good as never.
const NEVER: Duration = Duration::from_secs(3600);

/// Ends the process at one call of one method.
#[derive(Debug)]
pub(crate) struct Fuse {
    abort: Option<Abort>,
    calls: AtomicU64,
}

impl Fuse {
    pub(crate) fn new(abort: Option<Abort>) -> Arc<Self> {
        Arc::new(Self { abort, calls: AtomicU64::new(0) })
    }

    async fn around<T>(&self, method: &str, call: impl Future<Output = T>) -> T {
        let Some(plan) = self.abort.as_ref().filter(|plan| plan.call == method) else { return call.await };
        let blows = self.calls.fetch_add(1, Ordering::SeqCst) + 1 == plan.number;
        if blows && plan.moment == Moment::Before {
            abort();
        }
        let answer = call.await;
        if blows {
            abort();
        }
        answer
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct SeamStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) fuse: Arc<Fuse>,
    pub(crate) plant: Option<Plant>,
    /// Looks up tokens, for a store that does not ask for them.
    pub(crate) tokens: Option<PgPool>,
}

impl SeamStore {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.fuse.around(method, call).await
    }

    async fn current_token(&self, delivery: DeliveryId) -> Option<LeaseToken> {
        let sql = "SELECT token FROM webhook.every_delivery WHERE id = $1";
        let token = sqlx::query_scalar(sql).bind(delivery.as_uuid());
        token.fetch_one(self.tokens.as_ref()?).await.ok().map(LeaseToken::from_stored)
    }
}

webhook_core::wrap_store!(SeamStore: SubscriptionStore, HistoryStore, MaintenanceStore, CaptureStore, ReceiptStore);

#[async_trait]
impl EventStore for SeamStore {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        if self.plant == Some(Plant::AckBeforeCommit) {
            let (store, later) = (Arc::clone(&self.inner), units.to_vec());
            tokio::spawn(async move { store.accept(now, &later).await });
            let receipt = |item: &AcceptItem| ItemOutcome::Created(EventReceipt::of(&item.event, &item.deliveries));
            let done = |unit: &AcceptUnit| AcceptOutcome::Done(unit.items.iter().map(receipt).collect());
            return Ok(units.iter().map(done).collect());
        }
        self.around("accept", self.inner.accept(now, units)).await
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
        self.around("load_events", self.inner.load_events(ids)).await
    }
}

#[async_trait]
impl DeliveryStore for SeamStore {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        let claimed = self.around("claim", self.inner.claim(request)).await?;
        // Most claims find nothing: those that do have a name of their own.
        self.fuse.around(if claimed.leases.is_empty() { "claim_none" } else { "claim_some" }, async {}).await;
        Ok(claimed)
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        let claimed = self.around("claim_ids", self.inner.claim_ids(request, ids)).await?;
        self.fuse.around(if claimed.leases.is_empty() { "claim_none" } else { "claim_some" }, async {}).await;
        Ok(claimed)
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let mut outcomes = outcomes.to_vec();
        for outcome in &mut outcomes {
            match (self.plant, &mut outcome.next) {
                (Some(Plant::NoToken), _) => {
                    outcome.token = self.current_token(outcome.delivery).await.unwrap_or(outcome.token);
                }
                (Some(Plant::HintOnlyRetry), NextStep::RetryAt(due)) => *due = *due + NEVER,
                _ => {}
            }
        }
        self.around("record", self.inner.record(now, &outcomes)).await
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        self.around("release", self.inner.release(releases)).await
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct SeamQueue {
    pub(crate) inner: Arc<dyn Queue>,
    pub(crate) fuse: Arc<Fuse>,
}

#[async_trait]
impl Queue for SeamQueue {
    async fn push(&self, hints: &[Hint]) -> Result<(), QueueError> {
        self.fuse.around("push", self.inner.push(hints)).await
    }

    async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Result<Vec<Hint>, QueueError> {
        self.fuse.around("pop", self.inner.pop(now, hold_until, limit)).await
    }

    async fn done(&self, hints: &[Hint]) -> Result<(), QueueError> {
        self.fuse.around("done", self.inner.done(hints)).await
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        self.inner.depth().await
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct SeamTransport {
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) fuse: Arc<Fuse>,
    pub(crate) plant: Option<Plant>,
}

#[async_trait]
impl Transport for SeamTransport {
    async fn send(&self, mut request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        if self.plant == Some(Plant::NoBodyDeadline) {
            request.deadlines = request.deadlines.with_total(NEVER).with_body(NEVER);
        }
        self.fuse.around("send", self.inner.send(request)).await
    }
}

/// A clock that is wrong.
#[derive(Debug)]
pub(crate) struct OffsetClock {
    pub(crate) inner: Arc<dyn Clock>,
    pub(crate) millis: i64,
}

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.inner.now().as_millis() + self.millis)
    }
}
