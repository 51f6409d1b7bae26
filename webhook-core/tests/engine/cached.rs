//! What a process has read of subscriptions and paths is believed for a while, and not longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use webhook_core::store::{MemoryStore, StoreError};
use webhook_core::testing::PausedClock;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    AddressGuard, IncomingRequest, NewEvent, Options, PathDraft, PathId, Role, SubscriptionDraft, TenantId, Timestamp,
    Webhooks,
};

const INDEX: &str = "subscription_changes";
const TARGET: &str = "subscriptions";
const PATH: &str = "find_path";

/// A store in memory that remembers when each of these was asked for.
#[derive(Debug, Default)]
struct Remembering {
    inner: MemoryStore,
    reads: Mutex<Vec<(&'static str, Instant)>>,
    /// Their answers take ten seconds.
    slow: AtomicBool,
}

impl Remembering {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let answer = call.await;
        if [INDEX, TARGET, PATH].contains(&method) {
            self.reads.lock().unwrap().push((method, begun));
            if self.slow.load(Ordering::SeqCst) {
                sleep(Duration::from_secs(10)).await;
            }
        }
        answer
    }

    /// What was read since the last look, in the order of time.
    fn reads(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.reads.lock().unwrap()).into_iter().map(|(what, _)| what).collect()
    }
}

webhook_core::wrap_store!(Remembering);

struct Process {
    webhooks: Webhooks,
    transport: RecordingTransport,
    shutdown: CancellationToken,
}

impl Process {
    fn on(store: &Arc<Remembering>) -> Self {
        let (transport, clock) =
            (RecordingTransport::new(), PausedClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let webhooks = Webhooks::builder(store.clone())
            .clock(Arc::new(clock))
            .guard(AddressGuard::new().allow_network("127.0.0.0/8".parse().unwrap()))
            .transport(Arc::new(transport.clone()))
            .build()
            .unwrap();
        Self { webhooks, transport, shutdown: CancellationToken::new() }
    }

    /// One that delivers, with a subscription and a path.
    async fn running(store: &Arc<Remembering>) -> (Self, PathId) {
        let process = Self::on(store);
        let (webhooks, shutdown) = (process.webhooks.clone(), process.shutdown.clone());
        tokio::spawn(async move { webhooks.run(Role::Worker, shutdown).await });
        process.subscribe().await;
        let path = process.webhooks.create_path(&TenantId::default(), PathDraft::new()).await.unwrap().path_id;
        store.reads();
        (process, path)
    }

    async fn subscribe(&self) {
        let draft = SubscriptionDraft::new("http://127.0.0.1:9/").with_events(["a.*"]).unwrap();
        self.webhooks.subscribe(&TenantId::default(), draft).await.unwrap();
    }

    /// Delivers an event and captures a request.
    async fn work(&self, path: &PathId) {
        let event = NewEvent::new("a.b".parse().unwrap(), "{}");
        let before = self.transport.requests().len();
        let deliveries = self.webhooks.emit(&TenantId::default(), event).await.unwrap().deliveries as usize;
        let all = self.transport.wait_for(before + deliveries);
        timeout(Duration::from_secs(60), all).await.expect("it arrives");
        self.webhooks.capture(path, IncomingRequest::new("POST", "/webhook/p"), None).await.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_says_has_changed_is_read_anew_all_the_same_when_its_time_is_over() {
    let store = Arc::<Remembering>::default();
    let (process, path) = Process::running(&store).await;
    let ttl = Options::default().cache_ttl;
    process.work(&path).await;
    assert_eq!(store.reads(), [INDEX, TARGET, PATH]);
    sleep(ttl - Duration::from_secs(5)).await;
    process.work(&path).await;
    assert_eq!(store.reads(), [""; 0], "it is still believed");
    sleep(Duration::from_secs(5)).await;
    process.work(&path).await;
    assert_eq!(store.reads(), [INDEX, TARGET, PATH]);

    // A change that is noticed makes the rest of an index no younger.
    sleep(ttl / 2).await;
    Process::on(&store).subscribe().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(store.reads(), [INDEX], "it is noticed");
    sleep(ttl / 2).await;
    process.work(&path).await;
    assert_eq!(store.reads(), [INDEX, TARGET, PATH]);
}

#[tokio::test(start_paused = true)]
async fn what_took_long_to_read_is_as_old_as_the_question() {
    let store = Arc::<Remembering>::default();
    let (process, path) = Process::running(&store).await;
    store.slow.store(true, Ordering::SeqCst);
    process.work(&path).await;
    store.slow.store(false, Ordering::SeqCst);
    let reads = std::mem::take(&mut *store.reads.lock().unwrap());
    for what in [INDEX, TARGET, PATH] {
        let (_, asked) = reads.iter().find(|(read, _)| *read == what).unwrap();
        sleep_until(*asked + Options::default().cache_ttl).await;
        process.work(&path).await;
        assert_eq!(store.reads(), [what]);
    }
}
