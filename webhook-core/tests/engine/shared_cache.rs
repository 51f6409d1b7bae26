//! Processes that share a cache ask their store for less, and never believe the cache more than the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use webhook_core::store::{MemoryStore, StoreError, SubscriptionStore as _};
use webhook_core::testing::PausedClock;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    AddressGuard, CacheError, Keyring, NewEvent, Role, SharedCache, SubscriptionDraft, SubscriptionId, TenantId,
    Timestamp, Webhooks,
};

/// A store in memory that counts how often it is asked about subscriptions.
#[derive(Debug, Default)]
struct Counting {
    inner: MemoryStore,
    asked: AtomicUsize,
}

impl Counting {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let counted = ["subscriptions", "subscription_changes"].contains(&method);
        self.asked.fetch_add(usize::from(counted), Ordering::SeqCst);
        call.await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

webhook_core::wrap_store!(Counting);

/// A cache in memory, whose values never go by themselves.
#[derive(Debug, Default)]
struct Shared {
    values: Mutex<HashMap<String, Vec<u8>>>,
}

#[async_trait]
impl SharedCache for Shared {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, CacheError> {
        let values = self.values.lock().unwrap();
        Ok(keys.iter().map(|key| values.get(key).cloned()).collect())
    }

    async fn put(&self, entries: &[(String, Vec<u8>)], _: Duration) -> Result<(), CacheError> {
        self.values.lock().unwrap().extend(entries.iter().cloned());
        Ok(())
    }
}

/// A cache that never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl SharedCache for Hanging {
    async fn get(&self, _: &[String]) -> Result<Vec<Option<Vec<u8>>>, CacheError> {
        std::future::pending().await
    }

    async fn put(&self, _: &[(String, Vec<u8>)], _: Duration) -> Result<(), CacheError> {
        std::future::pending().await
    }
}

/// What all processes of a test have in common.
struct Fleet {
    store: Arc<Counting>,
    cache: Arc<dyn SharedCache>,
    keyring: Keyring,
    clock: Arc<PausedClock>,
    transport: RecordingTransport,
}

impl Fleet {
    fn new(cache: Arc<dyn SharedCache>) -> Self {
        let key = format!("one={}", "A".repeat(43) + "=");
        Self {
            store: Arc::default(),
            cache,
            keyring: Keyring::new([key.parse().unwrap()]).unwrap(),
            clock: Arc::new(PausedClock::new(Timestamp::from_millis(1_700_000_000_000))),
            transport: RecordingTransport::new(),
        }
    }

    /// A process that has just started.
    fn process(&self) -> Process {
        let webhooks = Webhooks::builder(self.store.clone())
            .shared_cache(Arc::clone(&self.cache))
            .keyring(self.keyring.clone())
            .clock(self.clock.clone())
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .transport(Arc::new(self.transport.clone()))
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let (running, stop) = (webhooks.clone(), shutdown.clone());
        tokio::spawn(async move { running.run(Role::Worker, stop).await });
        Process { webhooks, shutdown }
    }

    async fn arrived(&self, count: usize) -> String {
        let all = self.transport.wait_for(count);
        let requests = tokio::time::timeout(Duration::from_secs(60), all).await.expect("all of them arrive");
        requests.last().unwrap().url.path().to_owned()
    }
}

struct Process {
    webhooks: Webhooks,
    shutdown: CancellationToken,
}

impl Process {
    async fn emit(&self) {
        let event = NewEvent::new("a.b".parse().unwrap(), "{}");
        self.webhooks.emit(&TenantId::default(), event).await.unwrap();
    }

    async fn subscribe(&self, path: &str) -> SubscriptionId {
        let draft = SubscriptionDraft::new(format!("http://127.0.0.1:9/{path}"));
        self.webhooks.subscribe(&TenantId::default(), draft).await.unwrap().subscription.id
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_process_asks_the_store_for_nothing_that_another_has_read() {
    let fleet = Fleet::new(Arc::new(Shared::default()));
    let first = fleet.process();
    first.subscribe("target").await;
    first.emit().await;
    fleet.arrived(1).await;
    drop(first);
    let asked = fleet.store.asked();
    assert!(asked >= 2, "the first one reads the index and the subscription");

    let second = fleet.process();
    second.emit().await;
    assert_eq!(fleet.arrived(2).await, "/target");
    assert_eq!(fleet.store.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_obeyed_though_the_cache_does_not_know_it() {
    let fleet = Fleet::new(Arc::new(Shared::default()));
    let first = fleet.process();
    let id = first.subscribe("old").await;
    first.emit().await;
    fleet.arrived(1).await;
    let moved = SubscriptionDraft::new("http://127.0.0.1:9/new");
    first.webhooks.replace_subscription(&TenantId::default(), id, moved, None).await.unwrap();
    drop(first);

    fleet.process().emit().await;
    assert_eq!(fleet.arrived(2).await, "/new");
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_of_a_database_that_was_made_anew_is_not_believed() {
    let mut fleet = Fleet::new(Arc::new(Shared::default()));
    let first = fleet.process();
    first.subscribe("old").await;
    first.emit().await;
    fleet.arrived(1).await;
    drop(first);

    fleet.store = Arc::default();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = fleet.process();
    second.subscribe("new").await;
    for number in 2..5 {
        second.emit().await;
        assert_eq!(fleet.arrived(number).await, "/new");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_of_a_history_that_a_restored_backup_does_not_have_is_not_believed() {
    let mut fleet = Fleet::new(Arc::new(Shared::default()));
    let first = fleet.process();
    let id = first.subscribe("first").await;
    let backup = fleet.store.find_subscription(id).await.unwrap().unwrap();
    first.emit().await;
    fleet.arrived(1).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let lost = SubscriptionDraft::new("http://127.0.0.1:9/lost");
    first.webhooks.replace_subscription(&TenantId::default(), id, lost, None).await.unwrap();
    first.subscribe("lost-too").await;
    first.emit().await;
    fleet.arrived(3).await;
    drop(first);

    fleet.store = Arc::default();
    fleet.store.insert_subscription(&backup, None).await.unwrap();
    let second = fleet.process();
    second.emit().await;
    assert_eq!(fleet.arrived(4).await, "/first");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let wanted = SubscriptionDraft::new("http://127.0.0.1:9/wanted");
    second.webhooks.replace_subscription(&TenantId::default(), id, wanted, None).await.unwrap();
    drop(second);
    let third = fleet.process();
    for number in 5..8 {
        third.emit().await;
        assert_eq!(fleet.arrived(number).await, "/wanted");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fleet.transport.requests().len(), 7, "nothing went anywhere else");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_believed_longer_than_its_reader_would() {
    let fleet = Fleet::new(Arc::new(Shared::default()));
    let first = fleet.process();
    first.subscribe("target").await;
    first.emit().await;
    fleet.arrived(1).await;
    drop(first);
    let asked = fleet.store.asked();
    tokio::time::sleep(Duration::from_secs(601)).await;
    fleet.process().emit().await;
    fleet.arrived(2).await;
    assert!(fleet.store.asked() >= asked + 2, "the index and the subscription are read again");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_hangs_delays_accepting_by_a_moment_and_delivery_too() {
    let fleet = Fleet::new(Arc::new(Hanging));
    let process = fleet.process();
    let start = tokio::time::Instant::now();
    process.subscribe("target").await;
    for _ in 0..10 {
        process.emit().await;
    }
    fleet.arrived(10).await;
    assert!(start.elapsed() <= Duration::from_millis(60), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_is_encrypted_and_bound_to_its_place() {
    let shared = Arc::new(Shared::default());
    let mut fleet = Fleet::new(shared.clone());
    let process = fleet.process();
    process.subscribe("canary").await;
    process.emit().await;
    fleet.arrived(1).await;
    drop(process);
    let mut values = shared.values.lock().unwrap().clone();
    assert_eq!(values.len(), 2);
    for (key, value) in &values {
        let text = format!("{key} {}", String::from_utf8_lossy(value));
        for canary in ["canary", "default", "a.b", "whsec"] {
            assert!(!text.contains(canary), "{canary} in {text}");
        }
    }

    // Somebody swaps them, and puts one in clear.
    let mut clear = vec![0];
    clear.extend_from_slice(br#"{"read_at":"2023-11-14T22:13:20.000Z","generation":1,"entries":[]}"#);
    for (key, value) in &mut values {
        *value = if key.starts_with("index") { clear.clone() } else { shared.values.lock().unwrap()[key].clone() };
    }
    *shared.values.lock().unwrap() = values;
    fleet.process().emit().await;
    fleet.arrived(2).await;

    // Without keys nothing is shared.
    shared.values.lock().unwrap().clear();
    fleet.store = Arc::default();
    fleet.keyring = Keyring::plain();
    let plain = fleet.process();
    plain.subscribe("target").await;
    plain.emit().await;
    fleet.arrived(3).await;
    assert!(shared.values.lock().unwrap().is_empty());
}
