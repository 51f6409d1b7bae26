//! What is said by NOTIFY, who says nothing, and what holds where nobody hears it.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use scene::{Scene, at, claim};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use webhook_core::store::MaintenanceStore as _;
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    Emitted, NewEvent, Options, RateLimit, Role, SubscriptionDraft, SubscriptionId, TenantId, Webhooks,
};
use webhook_store_postgres::{PostgresStore, PostgresStoreOptions};
use webhook_test_servers::{FaultProxy, PostgresServer, Traffic};

const PATIENCE: Duration = Duration::from_secs(20);

/// A process on the database.
struct Process {
    webhooks: Webhooks,
    transport: RecordingTransport,
    shutdown: CancellationToken,
}

impl Process {
    /// One that does nothing by itself.
    fn on(store: PostgresStore, options: Options) -> Self {
        let transport = RecordingTransport::new();
        let builder = Webhooks::builder(Arc::new(store)).transport(Arc::new(transport.clone()));
        let webhooks = builder.options(options).build().expect("it builds");
        Self { webhooks, transport, shutdown: CancellationToken::new() }
    }

    fn run(&self, role: Role) {
        let (webhooks, shutdown) = (self.webhooks.clone(), self.shutdown.clone());
        tokio::spawn(async move { webhooks.run(role, shutdown).await });
    }

    async fn subscribe(&self, draft: SubscriptionDraft) -> SubscriptionId {
        self.webhooks.subscribe(&TenantId::default(), draft).await.expect("it subscribes").subscription.id
    }

    async fn replace(&self, id: SubscriptionId, draft: SubscriptionDraft) {
        self.webhooks.replace_subscription(&TenantId::default(), id, draft, None).await.expect("it replaces");
    }

    async fn emit(&self, event_type: &str) -> Emitted {
        self.webhooks.emit(&TenantId::default(), event(event_type)).await.expect("it is accepted")
    }

    /// How many subscriptions it knows that take such an event, without asking the store.
    async fn known(&self, event_type: &str) -> usize {
        let prepared = self.webhooks.prepare(&TenantId::default(), event(event_type)).await.expect("it prepares");
        prepared.unit().items[0].deliveries.len()
    }

    /// Where requests went so far.
    fn paths(&self) -> Vec<String> {
        self.transport.requests().iter().map(|request| request.url.path().to_owned()).collect()
    }

    /// The same, once there are so many.
    async fn arrived(&self, count: usize) -> Vec<String> {
        timeout(PATIENCE, self.transport.wait_for(count)).await.expect("they arrive");
        self.paths()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn event(event_type: &str) -> NewEvent {
    NewEvent::new(event_type.parse().expect("a type"), "{}")
}

fn draft(path: &str, pattern: &str) -> SubscriptionDraft {
    SubscriptionDraft::new(format!("https://example.com{path}")).with_events([pattern]).expect("a pattern")
}

/// Listens to what is said in a database, in the order of its commits.
struct Ear {
    listener: PgListener,
    host: PgPool,
}

impl Ear {
    async fn of(host: &PgPool) -> Self {
        let mut listener = PgListener::connect_with(host).await.expect("it connects");
        listener.listen("webhook").await.expect("it listens");
        Self { listener, host: host.clone() }
    }

    async fn next(&mut self) -> String {
        let heard = timeout(PATIENCE, self.listener.recv()).await.expect("something is said");
        heard.expect("it listens").payload().to_owned()
    }

    /// All that has been said by now.
    async fn all(&mut self) -> Vec<String> {
        sqlx::query("NOTIFY webhook, 'the end'").execute(&self.host).await.expect("it says so");
        let mut all = Vec::new();
        loop {
            match self.next().await {
                end if end == "the end" => return all,
                heard => all.push(heard),
            }
        }
    }
}

async fn listeners(host: &PgPool) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    sqlx::query_scalar(sql).fetch_one(host).await.expect("it answers")
}

#[tokio::test]
async fn without_notify_nothing_is_said_or_heard_and_deliveries_are_found_by_polling() {
    let scene = Scene::new();
    let talkative = Process::on(scene.open().await, Options::default());
    let quiet = async || {
        let store = PostgresStore::connect(scene.options().without_notify()).await.expect("it connects");
        Process::on(store, Options::default())
    };
    let (api, worker) = (quiet().await, quiet().await);
    let host = scene.host().await;
    let mut ear = Ear::of(&host).await;
    api.run(Role::Api);
    worker.run(Role::Worker);

    api.subscribe(draft("/hook", "**")).await;
    for _ in 0..3 {
        api.emit("order.created").await;
    }
    worker.arrived(3).await;
    assert_eq!(ear.all().await, [""; 0]);
    assert_eq!(listeners(&host).await, 1, "nobody else listens");

    talkative.emit("order.created").await;
    assert_eq!(ear.next().await, "due");
    worker.arrived(4).await;
}

/// The options of a store are about what the store says by itself.
#[tokio::test]
async fn a_hosts_commit_says_once_that_something_is_due_unless_the_host_emits_quietly() {
    let scene = Scene::new();
    scene.open().await.close().await;
    let store = PostgresStore::connect(scene.options().without_notify()).await.expect("it connects");
    let process = Process::on(store, Options::default());
    process.subscribe(draft("/hook", "order.*")).await;
    let tenant = TenantId::default();
    let prepare = async |event_type| process.webhooks.prepare(&tenant, event(event_type)).await.expect("it prepares");
    let host = scene.host().await;
    let mut ear = Ear::of(&host).await;
    let begin = async || host.begin().await.expect("it begins");

    let mut transaction = begin().await;
    for _ in 0..3 {
        PostgresStore::emit_in(&mut transaction, &prepare("order.created").await).await.expect("it emits");
    }
    assert_eq!(ear.all().await, [""; 0], "not before the commit");
    transaction.commit().await.expect("it commits");
    assert_eq!(ear.all().await, ["due"]);

    let mut transaction = begin().await;
    PostgresStore::emit_in(&mut transaction, &prepare("order.created").await).await.expect("it emits");
    transaction.rollback().await.expect("it rolls back");
    let mut transaction = begin().await;
    PostgresStore::emit_quietly_in(&mut transaction, &prepare("order.created").await).await.expect("it emits");
    PostgresStore::emit_in(&mut transaction, &prepare("nobodys").await).await.expect("it emits");
    transaction.commit().await.expect("it commits");
    assert_eq!(ear.all().await, [""; 0]);

    for (rest, said) in [("", &["due"][..]), (", notify => true", &["due"]), (", notify => false", &[])] {
        let emit = format!("SELECT webhook.emit('default', 'order.created', '{{}}'{rest})");
        sqlx::query(sqlx::AssertSqlSafe(emit)).execute(&host).await.expect("it emits");
        assert_eq!(ear.all().await, said, "{rest}");
    }
}

/// The second of two processes has lost the connection on which it listens, and gets no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_hears_nothing_obeys_changes_all_the_same_and_catches_up_when_it_hears_again() {
    const EVENTS: usize = 100;
    let server = PostgresServer::start();
    let proxy = FaultProxy::start(server.addr());
    let host = PgPool::connect(&server.url()).await.expect("the host connects");
    let near = Process::on(PostgresStore::open(&server.url()).await.expect("it opens"), Options::default());
    let far = Process::on(full(&proxy.rewrite(&server.url())).await, {
        let mut options = Options::default();
        // Nothing but a signal lets it look for what others accepted.
        options.poll_interval = Duration::from_secs(3600);
        options
    });
    let mut wanted = draft("/old", "order.*");
    wanted.settings.rate_limit = RateLimit::per_second(20.0).and_then(|limit| limit.with_burst(1)).ok();
    let id = near.subscribe(wanted.clone()).await;
    near.subscribe(draft("/other", "invoice.*")).await;
    far.run(Role::Worker);
    near.emit("invoice.paid").await;
    far.arrived(1).await;
    until("it listens", async || listeners(&host).await == 1).await;
    proxy.set(Traffic::Refused);
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    sqlx::query(kill).execute(&host).await.expect("it kills");
    until("it listens no more", async || listeners(&host).await == 0).await;

    // More than the limit lets go before they are counted below.
    for _ in 0..EVENTS {
        assert_eq!(far.emit("order.created").await.deliveries, 1);
    }
    far.arrived(5).await;
    wanted.settings.target_url = "https://example.com/new".to_owned();
    near.replace(id, wanted.clone()).await;
    let changed = Instant::now();
    until("it moves", async || far.paths().contains(&"/new".to_owned())).await;
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());

    wanted.enabled = false;
    near.replace(id, wanted.clone()).await;
    assert_eq!(far.emit("order.created").await.deliveries, 0, "accepts go by what stands at their commit");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped = far.paths().len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(far.paths().len(), stopped, "a disabled subscription is obeyed");
    assert!(stopped < EVENTS, "there is something left to hold");
    (wanted.enabled, wanted.settings.rate_limit) = (true, None);
    near.replace(id, wanted.clone()).await;
    let changed = Instant::now();
    until("it knows", async || far.known("order.created").await == 1).await;
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());

    near.emit("invoice.paid").await;
    proxy.set(Traffic::Flows);
    far.arrived(EVENTS + 2).await;
    wanted.settings.target_url = "https://example.com/newest".to_owned();
    near.replace(id, wanted).await;
    near.emit("order.created").await;
    far.emit("order.created").await;
    let paths = far.arrived(EVENTS + 4).await;
    assert_eq!(paths[EVENTS + 2..], ["/newest"; 2]);
    let first = paths.iter().position(|path| path == "/new").expect("it was there");
    assert!(paths[first..].iter().all(|path| path != "/old"), "{paths:?}");
}

/// A store whose pools are full: it needs no new connection but the one on which it listens.
async fn full(url: &str) -> PostgresStore {
    let options: PostgresStoreOptions = url.parse().expect("a URL");
    let store = PostgresStore::connect(options.with_max_connections(4)).await.expect("it connects");
    join_all((0..16).map(|_| store.ping())).await;
    join_all((1..16).map(|token| claim(&store, at(0), token))).await;
    store
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "waited in vain: {what}");
}
