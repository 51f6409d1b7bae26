//! What a caller sees while the database is down or broken.

use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use serde_json::json;
use webhook_core::store::*;
use webhook_core::{
    Attempt, CaptureFilter, CaptureId, CapturedRequest, Delivery, DeliveryId, Event, EventId, EventSummary, Generation,
    PathId, SubscriptionId, SubscriptionRecord, TenantId, Timestamp,
};

use crate::host::Host;

const WORKS: u8 = 0;
const UNAVAILABLE: u8 = 1;
const BROKEN: u8 = 2;
const CORRUPT: u8 = 3;

/// What no answer may show.
const INSIDE: &str = "postgres://user:pass@10.1.2.3";

/// A store in memory whose every method fails as it is told.
#[derive(Debug, Default)]
struct Failing {
    inner: MemoryStore,
    how: AtomicU8,
}

impl Failing {
    fn fail(&self) -> Result<(), StoreError> {
        match self.how.load(Ordering::SeqCst) {
            UNAVAILABLE => Err(StoreError::Unavailable(INSIDE.into())),
            BROKEN => Err(StoreError::Other(INSIDE.into())),
            CORRUPT => Err(StoreError::Corrupt(INSIDE.to_owned())),
            _ => Ok(()),
        }
    }
}

macro_rules! passed_on {
    ($($role:ident { $($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)* })*) => {$(
        #[async_trait]
        impl $role for Failing {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer, StoreError> {
                self.fail()?;
                self.inner.$name($($argument),*).await
            })*
        }
    )*};
}

passed_on! {
    SubscriptionStore {
        insert_subscription(record: &SubscriptionRecord, key: Option<&KeyedAnswer>) -> Inserted;
        update_subscription(record: &SubscriptionRecord) -> Updated;
        delete_subscription(tenant: &TenantId, id: SubscriptionId, now: Timestamp) -> bool;
        subscriptions(ids: &[(TenantId, SubscriptionId)]) -> Vec<SubscriptionRecord>;
        find_subscription(id: SubscriptionId) -> Option<SubscriptionRecord>;
        list_subscriptions(tenant: &TenantId, page: PageRequest) -> Page<SubscriptionRecord>;
        subscription_changes(tenant: &TenantId, after: Generation, limit: u32) -> SubscriptionChanges;
        generations(tenants: &[TenantId]) -> Vec<Generation>;
    }
    EventStore {
        accept(now: Timestamp, units: &[AcceptUnit]) -> Vec<AcceptOutcome>;
        event(tenant: &TenantId, id: EventId) -> Option<(Event, u32)>;
        list_events(tenant: &TenantId, filter: &EventFilter, page: PageRequest) -> Page<EventSummary>;
        load_events(ids: &[(TenantId, EventId)]) -> Vec<Event>;
    }
    DeliveryStore {
        claim(request: ClaimRequest<'_>) -> Claimed;
        claim_ids(request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Claimed;
        record(now: Timestamp, outcomes: &[Outcome]) -> Vec<Recorded>;
        release(releases: &[Release]) -> ();
    }
    HistoryStore {
        delivery(tenant: &TenantId, id: DeliveryId) -> Option<Delivery>;
        list_deliveries(tenant: &TenantId, filter: &DeliveryFilter, page: PageRequest) -> Page<Delivery>;
        attempts_of(tenant: &TenantId, delivery: DeliveryId) -> Vec<Attempt>;
        list_attempts(tenant: &TenantId, subscription: SubscriptionId, page: PageRequest) -> Page<Attempt>;
        retry(tenant: &TenantId, id: DeliveryId, now: Timestamp) -> RetryOutcome;
        cancel(tenant: &TenantId, id: DeliveryId, now: Timestamp) -> CancelOutcome;
        recoverable(
            tenant: &TenantId, subscription: SubscriptionId, since: Timestamp, until: Timestamp, after: Option<EventId>,
            limit: u32
        ) -> Vec<Recoverable>;
        add_deliveries(
            tenant: &TenantId, subscription: SubscriptionId, deliveries: &[AddedDelivery], now: Timestamp
        ) -> u64;
        stats(tenant: &TenantId, subscription: Option<SubscriptionId>, since: Timestamp) -> Stats;
        activity(tenant: &TenantId, limit: u32) -> Vec<Activity>;
    }
    MaintenanceStore {
        ping() -> ();
        prune(request: PruneRequest) -> PruneStep;
        cancel_orphans(now: Timestamp, limit: u32) -> u64;
        backlog(now: Timestamp) -> Backlog;
    }
    CaptureStore {
        insert_path(record: &PathRecord, key: Option<&KeyedAnswer>) -> PathInserted;
        update_path(record: &PathRecord) -> PathUpdated;
        delete_path(tenant: &TenantId, path_id: &PathId) -> bool;
        find_path(path_id: &PathId) -> Option<PathRecord>;
        path(tenant: &TenantId, path_id: &PathId) -> Option<(PathRecord, PathUsage)>;
        list_paths(tenant: &TenantId, now: Timestamp, page: PageRequest) -> Page<(PathRecord, PathUsage)>;
        path_methods(tenant: &TenantId, path_id: &PathId) -> Vec<(String, u64)>;
        capture(now: Timestamp, requests: &[NewCapture]) -> Vec<CaptureOutcome>;
        captured(tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Option<CapturedRequest>;
        list_captured(
            tenant: &TenantId, path_id: &PathId, filter: &CaptureFilter, page: PageRequest, body_limit: u32
        ) -> Page<CapturedRequest>;
        captured_after(
            tenant: &TenantId, path_id: &PathId, after: Option<CaptureId>, limit: u32
        ) -> Vec<CapturedRequest>;
        remove_captured(tenant: &TenantId, path_id: &PathId, id: CaptureId) -> bool;
        remove_captured_through(tenant: &TenantId, path_id: &PathId, through: CaptureId, limit: u32) -> u64;
        prune_captured(request: CapturePruneRequest) -> CapturePruneStep;
        capture_stats(tenant: &TenantId, now: Timestamp, active_since: Timestamp, limit: u32) -> CaptureStats;
    }
}

#[tokio::test]
async fn a_store_that_fails_is_said_without_its_words() {
    let store = std::sync::Arc::new(Failing::default());
    let host = Host::on(store.clone());
    host.subscription().await;
    host.path(json!({"path_id": "known"})).await;
    host.call("POST", "/webhook/known", "", "x").await.expect(200);
    for (how, status, code) in
        [(UNAVAILABLE, 503, "unavailable"), (BROKEN, 500, "internal"), (CORRUPT, 500, "internal")]
    {
        store.how.store(how, Ordering::SeqCst);
        for (method, path, body) in [
            ("POST", "/events", json!({"event_type": "a", "payload": 1})),
            ("POST", "/events/batch", json!([{"event_type": "a", "payload": 1}, {"event_type": "b", "payload": 2}])),
            ("POST", "/subscriptions", json!({"target_url": "https://example.com/"})),
            ("GET", "/subscriptions", json!(null)),
            ("GET", "/stats", json!(null)),
            ("POST", "/api/paths", json!({})),
            ("GET", "/api/paths/known/logs", json!(null)),
            ("GET", "/api/paths/known/export", json!(null)),
            // The one is in the cache, the other is not.
            ("POST", "/webhook/known", json!("lost")),
            ("POST", "/webhook/other", json!("lost")),
        ] {
            let answer = host.call(method, path, crate::host::ACME, body.to_string()).await;
            assert!(!String::from_utf8_lossy(&answer.body).contains("10.1.2.3"), "{method} {path}");
            let retry_after = answer.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(retry_after.as_deref(), (status == 503).then_some("1"), "{method} {path}");
            assert_eq!(answer.problem(status)["code"], code, "{method} {path}");
        }
        let ready = host.get("/health/ready").await;
        assert!(!String::from_utf8_lossy(&ready.body).contains("10.1.2.3"));
        let ready = ready.expect(503);
        assert_eq!((&ready["status"], &ready["checks"][0]["name"]), (&json!("not_ready"), &json!("store")));
        assert_eq!(ready["checks"][0]["status"], "failed");
        host.get("/health/live").await.expect(200);
    }
    store.how.store(WORKS, Ordering::SeqCst);
    host.event().await;
    assert_eq!(host.logs("known").await.len(), 1, "what was not answered with 200 is not there");
    assert_eq!(host.get("/health/ready").await.expect(200)["status"], "ready");
}
