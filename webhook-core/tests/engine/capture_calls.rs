//! What capturing asks of its store: how much at once, and what happens when the store fails or others change it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use webhook_core::store::PageRequest;
use webhook_core::{
    AddressGuard, IncomingRequest, MemoryStore, PathDraft, StoreError, SubscriptionDraft, TenantId, Webhooks,
};

/// A store that counts the transactions that keep requests.
#[derive(Debug)]
struct CountingStore {
    inner: MemoryStore,
    captures: Arc<AtomicUsize>,
}

impl CountingStore {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if method == "capture" {
            self.captures.fetch_add(1, Ordering::SeqCst);
        }
        call.await
    }
}

webhook_core::wrap_store!(CountingStore);

#[tokio::test]
async fn a_transaction_is_bounded_by_all_the_copies_of_the_bodies_in_it() {
    let captures = Arc::new(AtomicUsize::new(0));
    let store = CountingStore { inner: MemoryStore::new(), captures: Arc::clone(&captures) };
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap());
    let webhooks = Webhooks::builder(Arc::new(store)).guard(guard).build().unwrap();
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
    assert_eq!(captures.load(Ordering::SeqCst), 4, "6 requests of 10 copies of 256 KiB are 15 MiB");
    let page = webhooks.deliveries(&tenant, &Default::default(), PageRequest::offset(1, 0)).await.unwrap();
    assert_eq!(page.total, Some(24 * 9));
}
