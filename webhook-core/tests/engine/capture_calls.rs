//! What capturing asks of its store: how much at once, and what happens when the store fails or others change it meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use webhook_core::store::{CaptureStore, PageRequest, PathRecord};
use webhook_core::testing::ManualClock;
use webhook_core::{
    AddressGuard, CaptureFilter, Clock, Conflict, Error, IncomingRequest, MemoryStore, PathDraft, StoreError,
    SubscriptionDraft, TenantId, Timestamp, Webhooks,
};

/// A store that counts the transactions that keep requests, in which a path changes just after it was found, and which
/// cannot prune.
#[derive(Debug, Default)]
struct BusyStore {
    inner: MemoryStore,
    captures: AtomicUsize,
    meanwhile: Mutex<Option<PathRecord>>,
}

impl BusyStore {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if method == "capture" {
            self.captures.fetch_add(1, Ordering::SeqCst);
        }
        if method == "prune_captured" {
            return Err(StoreError::Unavailable("pruning takes too long".into()));
        }
        let answer = call.await;
        if method == "find_path" {
            let change = self.meanwhile.lock().unwrap().take();
            if let Some(record) = change {
                self.inner.update_path(&record).await?;
            }
        }
        answer
    }
}

webhook_core::wrap_store!(BusyStore);

#[tokio::test]
async fn a_transaction_is_bounded_by_all_the_copies_of_the_bodies_in_it() {
    let store = Arc::new(BusyStore::default());
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap());
    let webhooks = Webhooks::builder(store.clone()).guard(guard).build().unwrap();
    let tenant = TenantId::default();
    let mut draft = PathDraft::new();
    for number in 0..9 {
        let url = format!("http://127.0.0.1:9/{number}");
        let new = webhooks.subscribe(&tenant, SubscriptionDraft::new(url)).await.unwrap();
        draft.settings.forward_to.push(new.subscription.id);
    }
    let path = webhooks.create_path(&tenant, draft).await.unwrap();
    let request = || IncomingRequest::new("POST", "/").with_body(vec![b'x'; 256 << 10]);
    let answers = join_all((0..24).map(|_| webhooks.capture(&path.path_id, request(), None))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(store.captures.load(Ordering::SeqCst), 4, "6 requests of 10 copies of 256 KiB are 15 MiB");
    let page = webhooks.deliveries(&tenant, &Default::default(), PageRequest::offset(1, 0)).await.unwrap();
    assert_eq!(page.total, Some(24 * 9));
}

#[tokio::test]
async fn a_path_that_its_owner_extends_is_not_deleted_for_somebody_who_wants_its_name() {
    let store = Arc::new(BusyStore::default());
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
    let webhooks = Webhooks::builder(store.clone()).clock(clock.clone()).build().unwrap();
    let (owner, other) = (TenantId::default(), "other".parse().unwrap());
    let mut draft = PathDraft::named("p".parse().unwrap());
    draft.settings.ttl = Some(Duration::from_secs(60));
    let path = webhooks.create_path(&owner, draft).await.unwrap();
    webhooks.capture(&path.path_id, IncomingRequest::new("POST", "/").with_body("x"), None).await.unwrap();
    let mut record = store.find_path(&path.path_id).await.unwrap().unwrap();
    clock.advance(Duration::from_secs(60));
    record.expires_at = Some(clock.now() + Duration::from_secs(60));
    *store.meanwhile.lock().unwrap() = Some(record);
    let taken = webhooks.create_path(&other, PathDraft::named(path.path_id.clone())).await;
    assert!(matches!(taken, Err(Error::Conflict(Conflict::PathTaken))), "{taken:?}");
    let page = PageRequest::newest(10);
    let kept = webhooks.captured_requests(&owner, &path.path_id, &CaptureFilter::new(), page, 10).await.unwrap();
    assert_eq!(kept.items.len(), 1);
    clock.advance(Duration::from_secs(60));
    webhooks.create_path(&other, PathDraft::named(path.path_id)).await.expect("it has expired now");
}

#[tokio::test]
async fn deleting_a_path_waits_for_nothing_but_that() {
    let webhooks = Webhooks::builder(Arc::new(BusyStore::default())).build().unwrap();
    let tenant = TenantId::default();
    let path = webhooks.create_path(&tenant, PathDraft::new()).await.unwrap();
    webhooks.capture(&path.path_id, IncomingRequest::new("POST", "/"), None).await.unwrap();
    webhooks.delete_path(&tenant, &path.path_id).await.expect("it is deleted, whatever pruning does");
    assert!(matches!(webhooks.capture_path(&tenant, &path.path_id).await, Err(Error::NotFound(_))));
    assert!(matches!(webhooks.delete_path(&tenant, &path.path_id).await, Err(Error::NotFound(_))));
}
