//! A clock that goes back: that of a database, after another server took over.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use webhook_core::store::MemoryStore;
use webhook_core::transport::RecordingTransport;
use webhook_core::{Clock, NewEvent, Options, Role, SubscriptionDraft, SystemClock, TenantId, Timestamp, Webhooks};

/// The system's clock, so many milliseconds ago.
#[derive(Debug, Default)]
struct Behind(AtomicI64);

impl Clock for Behind {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() - self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn polling_goes_on_when_the_clock_goes_back_by_an_hour() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Arc::new(Behind::default()));
    let transport = RecordingTransport::new();
    let process = || {
        let builder = Webhooks::builder(store.clone()).clock(clock.clone()).transport(Arc::new(transport.clone()));
        let mut options = Options::default();
        options.poll_interval = Duration::from_millis(300);
        builder.options(options).build().unwrap()
    };
    // Nobody tells the worker what the other process accepts: it has to look.
    let (worker, other) = (process(), process());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (worker, shutdown) = (worker.clone(), shutdown.clone());
        async move { worker.run(Role::Worker, shutdown).await }
    });
    let tenant = TenantId::default();
    let draft = SubscriptionDraft::new("https://example.com/");
    other.subscribe(&tenant, draft).await.unwrap();
    let emit = async || other.emit(&tenant, NewEvent::new("a.b".parse().unwrap(), "{}")).await.unwrap();
    for (arrived, behind) in [(1, 0), (2, 3_600_000), (3, 7_200_000)] {
        clock.0.store(behind, Ordering::SeqCst);
        emit().await;
        let waited = timeout(Duration::from_secs(10), transport.wait_for(arrived)).await;
        waited.unwrap_or_else(|_| panic!("it is looked for {behind} ms ago"));
    }
    shutdown.cancel();
    running.await.unwrap();
}
