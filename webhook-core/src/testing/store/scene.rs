//! What the cases have in common: subscriptions, events, leases and outcomes by short names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::capture::{CaptureFilter, CapturedRequest, IncomingRequest};
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, CaptureOutcome, ClaimRequest, Claimed, IdempotencyKey, Inserted,
    ItemOutcome, Lease, LeaseToken, NewCapture, NewDelivery, NextStep, Outcome, PageRequest, PathInserted, PathRecord,
    PathUsage, Recorded, Room, TargetEffect,
};
use crate::{
    Attempt, AttemptFailure, AttemptId, CaptureId, Delivery, DeliveryId, DeliveryState, ErrorKind, Event, EventId,
    Generation, PathKey, Sealed, Store, SubscriptionId, SubscriptionRecord, SubscriptionSettings, Target, TenantId,
    Timestamp,
};

/// How long leases of the cases are, in seconds.
pub(super) const LEASE: u64 = 30;

/// A fixed instant, so many seconds after the cases' beginning.
pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(seconds)
}

pub(super) fn tenant(name: &str) -> TenantId {
    name.parse().expect("a legal tenant")
}

pub(super) fn key(text: &str, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey::new("test", text.to_owned(), [fingerprint; 32], at(10_000))
}

/// One case's stage: the store, and the names of things on it.
#[derive(Debug)]
pub struct Scene {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: TenantId,
    pub(super) stranger: TenantId,
    counter: AtomicU64,
}

impl Scene {
    /// A stage on a fresh store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, tenant: tenant("acme"), stranger: tenant("stranger"), counter: AtomicU64::new(1) }
    }

    fn number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A version 7 UUID of that time; later calls give greater ones.
    pub(super) fn uuid(&self, time: Timestamp) -> Uuid {
        let floor = EventId::floor(time).as_uuid().as_u128();
        Uuid::from_u128(floor | u128::from(self.number()))
    }

    pub(super) fn token(&self) -> LeaseToken {
        LeaseToken::new(self.number() << 32)
    }

    pub(super) fn record_of(&self, tenant: &TenantId, now: Timestamp) -> SubscriptionRecord {
        let settings = SubscriptionSettings::new("https://example.com/hook");
        let id = SubscriptionId::from_uuid(self.uuid(now));
        SubscriptionRecord::new(id, tenant.clone(), settings, Sealed::from_bytes(vec![0, 255, 7]), now)
    }

    pub(super) async fn insert(&self, mut record: SubscriptionRecord) -> SubscriptionRecord {
        match self.store.insert_subscription(&record, None).await.expect("the store works") {
            Inserted::Created(generation) => record.version = generation,
            other => panic!("a subscription without a key was {other:?}"),
        }
        record
    }

    /// A new subscription of the tenant to all events.
    pub(super) async fn subscribe(&self) -> SubscriptionRecord {
        self.insert(self.record_of(&self.tenant, at(0))).await
    }

    pub(super) async fn subscribe_many(&self, count: usize) -> Vec<SubscriptionRecord> {
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(self.subscribe().await);
        }
        records
    }

    pub(super) async fn stored(&self, record: &SubscriptionRecord) -> SubscriptionRecord {
        let ids = [(record.tenant.clone(), record.id)];
        self.store.subscriptions(&ids).await.expect("the store works").pop().expect("the subscription is there")
    }

    pub(super) async fn generation(&self, tenant: &TenantId) -> Generation {
        self.store.generations(std::slice::from_ref(tenant)).await.expect("the store works")[0]
    }

    pub(super) fn event(&self, tenant: &TenantId, now: Timestamp) -> Event {
        let mut event = Event::new(EventId::from_uuid(self.uuid(now)), tenant.clone(), now);
        event.event_type = Some("order.paid".parse().expect("a legal type"));
        event.payload = Bytes::from_static(b"{}");
        event
    }

    pub(super) fn to(&self, record: &SubscriptionRecord, now: Timestamp) -> NewDelivery {
        NewDelivery::new(DeliveryId::from_uuid(self.uuid(now)), Target::Subscription(record.id))
    }

    /// Ids as the engine gives them to the deliveries of one event: in runs of 64 that differ in their last six bits only.
    pub(super) fn run(&self, count: usize, time: Timestamp) -> Vec<DeliveryId> {
        let (count, floor) = (count as u64, EventId::floor(time).as_uuid().as_u128());
        let after = |number: u64| Some(number.next_multiple_of(64) + count);
        let (Ok(last) | Err(last)) = self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        let first = last.next_multiple_of(64);
        let id = |number| DeliveryId::from_uuid(Uuid::from_u128(floor | u128::from(number)));
        (first..first + count).map(id).collect()
    }

    /// Ids of which no two could be of one run.
    pub(super) fn scattered(&self, count: usize, time: Timestamp) -> Vec<DeliveryId> {
        (0..count).map(|number| self.run(number % 64 + 1, time)[number % 64]).collect()
    }

    /// An event with a delivery to each of them, with ids in runs.
    pub(super) fn item_to(&self, records: &[SubscriptionRecord], now: Timestamp) -> AcceptItem {
        let event = self.event(&self.tenant, now);
        let ids = self.run(records.len(), now);
        let to =
            |(id, record): (DeliveryId, &SubscriptionRecord)| NewDelivery::new(id, Target::Subscription(record.id));
        AcceptItem::new(event, ids.into_iter().zip(records).map(to).collect())
    }

    pub(super) fn item(&self, record: &SubscriptionRecord, now: Timestamp) -> AcceptItem {
        AcceptItem::new(self.event(&record.tenant, now), vec![self.to(record, now)])
    }

    pub(super) async fn accept_units(&self, now: Timestamp, units: &[AcceptUnit]) -> Vec<AcceptOutcome> {
        self.store.accept(now, units).await.expect("the store works")
    }

    /// Accepts the items at their tenant's generation; each must be created.
    pub(super) async fn accept(&self, items: Vec<AcceptItem>) {
        let Some(first) = items.first() else { return };
        let (tenant, now) = (first.event.tenant.clone(), first.event.created_at);
        let generation = self.generation(&tenant).await;
        for outcome in self.accept_units(now, &[AcceptUnit::new(tenant, generation, items)]).await {
            let AcceptOutcome::Done(items) = outcome else { panic!("not accepted: {outcome:?}") };
            assert!(items.iter().all(|item| matches!(item, ItemOutcome::Created(_))), "not created: {items:?}");
        }
    }

    /// Accepts an event with one delivery to the subscription.
    pub(super) async fn emit(&self, record: &SubscriptionRecord, now: Timestamp) -> (EventId, DeliveryId) {
        let item = self.item(record, now);
        let ids = (item.event.id, item.deliveries[0].id);
        self.accept(vec![item]).await;
        ids
    }

    /// Accepts so many events with one delivery each.
    pub(super) async fn emit_many(&self, record: &SubscriptionRecord, count: usize, now: Timestamp) {
        for start in (0..count).step_by(1_000) {
            self.accept((start..count.min(start + 1_000)).map(|_| self.item(record, now)).collect()).await;
        }
    }

    pub(super) async fn delivery(&self, id: DeliveryId) -> Delivery {
        self.store.delivery(&self.tenant, id).await.expect("the store works").expect("the delivery is there")
    }

    pub(super) async fn claim_with(&self, request: ClaimRequest<'_>) -> Claimed {
        self.store.claim(request).await.expect("the store works")
    }

    /// Claims up to `limit` deliveries with room for all.
    pub(super) async fn claim(&self, now: Timestamp, limit: u32) -> Vec<Lease> {
        let room = Room::all(u32::MAX);
        let until = now + Duration::from_secs(LEASE);
        self.claim_with(ClaimRequest::new(now, until, self.token(), limit, &room)).await.leases
    }

    pub(super) async fn claim_ids(&self, now: Timestamp, ids: &[DeliveryId]) -> Claimed {
        let room = Room::all(u32::MAX);
        let request = ClaimRequest::new(now, now + Duration::from_secs(LEASE), self.token(), 1_000, &room);
        self.store.claim_ids(request, ids).await.expect("the store works")
    }

    /// Leases this one delivery.
    pub(super) async fn lease(&self, id: DeliveryId, now: Timestamp) -> Lease {
        self.claim_ids(now, &[id]).await.leases.pop().expect("the delivery can be leased")
    }

    pub(super) fn attempt(&self, lease: &Lease, started: Timestamp) -> Attempt {
        let id = AttemptId::from_uuid(self.uuid(started));
        let mut attempt = Attempt::new(id, lease.tenant.clone(), lease.delivery, lease.event, started);
        attempt.subscription_id = lease.target.subscription();
        attempt.number = lease.attempts + 1;
        attempt.duration = Duration::from_millis(12);
        attempt.status_code = Some(204);
        attempt
    }

    /// An attempt that got `status` for an answer.
    pub(super) fn failed_attempt(&self, lease: &Lease, started: Timestamp, status: u16) -> Attempt {
        let mut attempt = self.attempt(lease, started);
        attempt.status_code = Some(status);
        attempt.failure = Some(AttemptFailure::new(ErrorKind::Status, format!("answered {status}")));
        attempt
    }

    pub(super) fn success(&self, lease: &Lease, now: Timestamp) -> Outcome {
        let next = NextStep::End(DeliveryState::Delivered, None);
        let mut outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, next);
        outcome.attempt = Some(Arc::new(self.attempt(lease, now)));
        outcome
    }

    pub(super) fn failure(&self, lease: &Lease, now: Timestamp, next: NextStep) -> Outcome {
        let mut outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, next);
        let mut attempt = self.failed_attempt(lease, now, 500);
        attempt.will_retry = matches!(next, NextStep::RetryAt(_));
        outcome.attempt = Some(Arc::new(attempt));
        outcome
    }

    /// Records one outcome.
    pub(super) async fn record(&self, now: Timestamp, outcome: Outcome) -> Recorded {
        self.store.record(now, &[outcome]).await.expect("the store works")[0]
    }

    /// Leases the delivery and ends it as delivered.
    pub(super) async fn deliver(&self, id: DeliveryId, now: Timestamp) {
        let lease = self.lease(id, now).await;
        assert_eq!(self.record(now, self.success(&lease, now)).await, Recorded::Done);
    }

    /// Leases the delivery and records an effect on its subscription with it.
    pub(super) async fn affect(&self, id: DeliveryId, now: Timestamp, effect: TargetEffect) {
        let lease = self.lease(id, now).await;
        let mut outcome = self.success(&lease, now);
        outcome.effect = effect;
        assert_eq!(self.record(now, outcome).await, Recorded::Done);
    }

    pub(super) fn path_of(&self, tenant: &TenantId, name: &str, now: Timestamp) -> PathRecord {
        let path_id = name.parse().expect("a legal name");
        PathRecord::new(PathKey::from_uuid(self.uuid(now)), path_id, tenant.clone(), now)
    }

    /// Creates a path.
    pub(super) async fn create(&self, record: PathRecord) -> PathRecord {
        assert_eq!(self.store.insert_path(&record, None).await.expect("the store works"), PathInserted::Created);
        record
    }

    /// A POST that reached the path.
    pub(super) fn incoming(&self, record: &PathRecord, now: Timestamp, body: &[u8]) -> NewCapture {
        let request = IncomingRequest::new("POST", format!("/webhook/{}", record.path_id));
        let request = request.with_body(Bytes::copy_from_slice(body));
        let id = CaptureId::from_uuid(self.uuid(now));
        let captured = CapturedRequest::new(id, record.tenant.clone(), record.path_id.clone(), request, now);
        NewCapture::new(record.key, record.version, captured)
    }

    /// Keeps one request.
    pub(super) async fn capture(&self, now: Timestamp, new: NewCapture) -> CaptureId {
        match self.store.capture(now, &[new]).await.expect("the store works")[..] {
            [CaptureOutcome::Stored(id)] => id,
            ref other => panic!("a request was {other:?}"),
        }
    }

    /// Keeps one POST that reached the path.
    pub(super) async fn capture_one(&self, record: &PathRecord, now: Timestamp, body: &[u8]) -> CaptureId {
        self.capture(now, self.incoming(record, now, body)).await
    }

    pub(super) async fn usage(&self, record: &PathRecord) -> PathUsage {
        let found = self.store.path(&record.tenant, &record.path_id).await.expect("the store works");
        found.expect("the path is there").1
    }

    /// The bodies that the path holds, newest first.
    pub(super) async fn bodies(&self, record: &PathRecord) -> Vec<String> {
        let filter = CaptureFilter::new();
        let page = PageRequest::newest(1_000);
        let page = self.store.list_captured(&record.tenant, &record.path_id, &filter, page, u32::MAX).await;
        let body = |captured: &CapturedRequest| String::from_utf8_lossy(&captured.request.body).into_owned();
        page.expect("the store works").items.iter().map(body).collect()
    }
}
