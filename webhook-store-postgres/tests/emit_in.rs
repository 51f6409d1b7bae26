//! An engine whose host emits inside its own transactions.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use scene::Scene;
use sqlx::{Connection as _, PgPool};
use tokio_util::sync::CancellationToken;
use webhook_core::store::{EventFilter, PageRequest};
use webhook_core::transport::{OutboundResponse, RecordingTransport};
use webhook_core::{
    Conflict, DisabledReason, Emitted, Error, NewEvent, Options, Prepared, Role, SubscriptionDraft, TenantId, Webhooks,
};
use webhook_store_postgres::PostgresStore;

/// An engine on a database, with a transport that records, and the host's own connections to it.
struct Engine {
    webhooks: Webhooks,
    tenant: TenantId,
    transport: RecordingTransport,
    host: PgPool,
    _scene: Scene,
}

impl Engine {
    async fn new() -> Self {
        Self::with(RecordingTransport::new()).await
    }

    async fn with(transport: RecordingTransport) -> Self {
        let scene = Scene::new();
        let store = scene.open().await;
        let mut options = Options::default();
        // So that nothing but a wake-up lets a worker look.
        options.poll_interval = Duration::from_secs(3600);
        let webhooks = Webhooks::builder(Arc::new(store))
            .transport(Arc::new(transport.clone()))
            .options(options)
            .build()
            .expect("it builds");
        let host = scene.host().await;
        Self { webhooks, tenant: TenantId::default(), transport, host, _scene: scene }
    }

    async fn subscribe(&self, pattern: &str) {
        let draft = SubscriptionDraft::new("https://example.com/hook").with_events([pattern]).expect("a pattern");
        self.webhooks.subscribe(&self.tenant, draft).await.expect("it subscribes");
    }

    async fn prepare(&self, event: NewEvent) -> Prepared {
        self.webhooks.prepare(&self.tenant, event).await.expect("it prepares")
    }

    async fn emit_and_commit(&self, prepared: &Prepared) -> Result<Emitted, Error> {
        let mut transaction = self.host.begin().await.expect("it begins");
        let emitted = PostgresStore::emit_in(&mut transaction, prepared).await;
        transaction.commit().await.expect("it commits");
        emitted
    }

    async fn accepted(&self) -> usize {
        let page = self.webhooks.events(&self.tenant, &EventFilter::default(), PageRequest::newest(100)).await;
        page.expect("it lists").items.len()
    }
}

fn event(payload: &'static str) -> NewEvent {
    NewEvent::new("order.created".parse().expect("a type"), payload)
}

async fn first_bodies(engine: &Engine, count: usize) -> Vec<String> {
    let requests = tokio::time::timeout(Duration::from_secs(20), engine.transport.wait_for(count)).await;
    let requests = requests.expect("it is delivered");
    requests.iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
}

#[tokio::test]
async fn a_rolled_back_event_is_gone_and_a_committed_one_wakes_the_worker() {
    let engine = Engine::new().await;
    engine.subscribe("order.*").await;
    let running = Running::start(&engine).await;

    let prepared = engine.prepare(event("1")).await;
    let mut transaction = engine.host.begin().await.expect("it begins");
    let emitted = PostgresStore::emit_in(&mut transaction, &prepared).await.expect("it emits");
    assert_eq!(emitted.deliveries, 1);
    transaction.rollback().await.expect("it rolls back");
    assert_eq!(engine.accepted().await, 0);

    // Nobody calls `wake`: the NOTIFY of the commit does it.
    engine.emit_and_commit(&engine.prepare(event("2")).await).await.expect("it emits");
    assert_eq!(engine.accepted().await, 1);
    assert_eq!(first_bodies(&engine, 1).await, ["2"]);
    running.stop().await;
    assert_eq!(engine.transport.requests().len(), 1);
}

#[tokio::test]
async fn emitted_quietly_it_waits_until_somebody_wakes_the_worker() {
    let engine = Engine::new().await;
    engine.subscribe("order.*").await;
    let running = Running::start(&engine).await;
    let mut transaction = engine.host.begin().await.expect("it begins");
    let prepared = engine.prepare(event("1")).await;
    PostgresStore::emit_quietly_in(&mut transaction, &prepared).await.expect("it emits");
    transaction.commit().await.expect("it commits");
    // What is emitted with a NOTIFY by another host is heard, and both go.
    engine.webhooks.wake();
    assert_eq!(first_bodies(&engine, 1).await, ["1"]);
    running.stop().await;
}

#[tokio::test]
async fn any_client_can_emit_by_the_sql_function() {
    let engine = Engine::new().await;
    engine.subscribe("order.*").await;
    engine.subscribe("invoice.**").await;
    let running = Running::start(&engine).await;
    let mut transaction = engine.host.begin().await.expect("it begins");
    let emit = "SELECT webhook.emit('default', 'order.created', convert_to('{\"id\":7}', 'UTF8'))";
    let id: uuid::Uuid = sqlx::query_scalar(emit).fetch_one(&mut *transaction).await.expect("it emits");
    transaction.commit().await.expect("it commits");
    assert_eq!(first_bodies(&engine, 1).await, [r#"{"id":7}"#]);
    let id = webhook_core::EventId::from_uuid(id);
    let (event, _, deliveries) = engine.webhooks.event_status(&engine.tenant, id).await.expect("it is there");
    assert_eq!(id.as_uuid().get_version_num(), 7);
    assert_eq!((event.deliveries, deliveries.len()), (1, 1));
    running.stop().await;

    for (call, reason) in [
        ("webhook.emit('not a tenant', 'a', '')", "tenant"),
        ("webhook.emit('default', 'a..b', '')", "event type"),
        ("webhook.emit('default', 'a', NULL)", "payload"),
        ("webhook.emit('default', 'a', '', E'x\ny')", "media type"),
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {call}"))).execute(&engine.host).await;
        let error = refused.expect_err(call).to_string();
        assert!(error.contains(reason), "{call}: {error}");
    }
}

/// They would go by the subscriptions that stood when the transaction began.
#[tokio::test]
async fn transactions_that_look_back_emit_nothing() {
    let engine = Engine::new().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut transaction = engine.host.begin().await.expect("it begins");
        let set = sqlx::AssertSqlSafe(format!("SET TRANSACTION ISOLATION LEVEL {level}"));
        sqlx::query(set).execute(&mut *transaction).await.expect("it sets");
        sqlx::query("SELECT 1").execute(&mut *transaction).await.expect("it answers");
        // After the snapshot.
        engine.subscribe("order.*").await;
        let mut nested = transaction.begin().await.expect("it begins");
        let emit = "SELECT webhook.emit('default', 'order.created', '{}')";
        let refused = sqlx::query(emit).execute(&mut *nested).await.expect_err("it looks back");
        assert!(refused.to_string().contains(level), "{refused}");
        nested.rollback().await.expect("it rolls back");
        let refused = PostgresStore::emit_in(&mut transaction, &engine.prepare(event("1")).await).await;
        let refused = refused.expect_err("it looks back");
        assert!(format!("{refused:?}").contains(level), "{refused:?}");
    }
    assert_eq!(engine.accepted().await, 0);
}

#[tokio::test]
async fn the_sql_function_selects_as_patterns_do() {
    let engine = Engine::new().await;
    let types = ["order", "order.created", "order.line.added", "orderx.created", "order_created", "a-b/c:d.e"];
    let patterns =
        ["**", "order", "order.*", "order.**", "*.created", "*", "*.*.*", "a-b/c:d.*", "order.created", "*.**"];
    for pattern in patterns {
        let parsed: webhook_core::EventPattern = pattern.parse().expect("a pattern");
        for event_type in types.map(Some).into_iter().chain([None]) {
            let selected: bool = sqlx::query_scalar("SELECT webhook.selects($1, $2)")
                .bind(pattern)
                .bind(event_type)
                .fetch_one(&engine.host)
                .await
                .expect("it answers");
            let wanted = parsed.matches(event_type.map(|text| text.parse().expect("a type")).as_ref());
            assert_eq!(selected, wanted, "{pattern} {event_type:?}");
        }
    }
}

/// An engine's worker that runs and listens.
struct Running {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(engine: &Engine) -> Self {
        let shutdown = CancellationToken::new();
        let (webhooks, token) = (engine.webhooks.clone(), shutdown.clone());
        let task = tokio::spawn(async move { webhooks.run(Role::Worker, token).await });
        let listening =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(listening).fetch_one(&engine.host).await.expect("it answers") == 0 {
            tokio::task::yield_now().await;
        }
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("it stops");
    }
}

#[tokio::test]
async fn subscriptions_that_changed_since_the_event_was_prepared_are_matched_again() {
    let engine = Engine::new().await;
    let prepared = engine.prepare(event("1")).await;
    assert!(prepared.unit().items[0].deliveries.is_empty());
    for pattern in ["order.created", "invoice.*", "**"] {
        engine.subscribe(pattern).await;
    }
    let emitted = engine.emit_and_commit(&prepared).await.expect("it emits");
    assert_eq!(emitted.deliveries, 2);
    let (_, _, deliveries) = engine.webhooks.event_status(&engine.tenant, emitted.id).await.expect("it is there");
    assert_eq!(deliveries.len(), 2);
}

#[tokio::test]
async fn an_event_prepared_for_another_database_is_refused() {
    let (engine, other) = (Engine::new().await, Engine::new().await);
    other.subscribe("**").await;
    let emitted = engine.emit_and_commit(&other.prepare(event("1")).await).await;
    assert!(matches!(&emitted, Err(Error::Store(error)) if !error.is_retryable()), "{emitted:?}");
    assert_eq!(engine.accepted().await, 0);
}

#[tokio::test]
async fn a_key_used_again_gives_the_first_event_and_another_body_is_a_conflict() {
    let engine = Engine::new().await;
    let keyed = |payload| event(payload).with_key("order-7");
    let first = engine.webhooks.emit(&engine.tenant, keyed("1")).await.expect("it emits");
    let again = engine.emit_and_commit(&engine.prepare(keyed("1")).await).await.expect("it emits");
    assert_eq!((again.id, again.duplicate), (first.id, true));
    let other = engine.emit_and_commit(&engine.prepare(keyed("2")).await).await;
    assert!(matches!(other, Err(Error::Conflict(Conflict::KeyReused))), "{other:?}");
    assert_eq!(engine.accepted().await, 1);
}

/// The host's transaction keeps changes to its tenant's subscriptions waiting: more of them than there are connections,
/// and one that many 410s bring. What would wait behind them, for a connection, a slot or in a batch with them, goes on.
#[tokio::test]
async fn while_a_host_takes_its_time_only_changes_of_its_tenant_wait() {
    const SOON: Duration = Duration::from_secs(4);
    const CHANGES: usize = 60;
    /// More than the worker has slots and places.
    const GONE: usize = 1500;
    const IN_LINE: &str = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'";
    let closed = Arc::new(AtomicBool::new(false));
    let transport = RecordingTransport::new().answering({
        let closed = Arc::clone(&closed);
        move |request| {
            let gone = request.url.path() == "/gone" && closed.load(Ordering::Relaxed);
            Ok(OutboundResponse::new(if gone { StatusCode::GONE } else { StatusCode::OK }))
        }
    });
    let engine = Engine::with(transport).await;
    let (slow, other): (TenantId, TenantId) = ("slow".parse().expect("one"), "other".parse().expect("one"));
    let subscribe = async |tenant, url: &str| {
        let draft = SubscriptionDraft::new(format!("https://example.com/{url}"));
        engine.webhooks.subscribe(tenant, draft).await.expect("it subscribes").subscription.id
    };
    let gone = subscribe(&slow, "gone").await;
    subscribe(&other, "hook").await;
    let running = Running::start(&engine).await;
    let emit = async |tenant| {
        let emitted = tokio::time::timeout(SOON, engine.webhooks.emit(tenant, event("1"))).await;
        emitted.expect("it is accepted meanwhile").expect("it is accepted").id
    };
    // It has proved to be fast: as much as any target may have at once.
    join_all((0..GONE).map(|_| emit(&slow))).await;
    engine.transport.wait_for(GONE).await;
    closed.store(true, Ordering::Relaxed);

    let mut transaction = engine.host.begin().await.expect("it begins");
    let prepared = engine.webhooks.prepare(&slow, event("0")).await.expect("it prepares");
    PostgresStore::emit_in(&mut transaction, &prepared).await.expect("it emits");
    let changes: Vec<_> = (0..CHANGES)
        .map(|_| {
            let (webhooks, slow) = (engine.webhooks.clone(), slow.clone());
            tokio::spawn(
                async move { webhooks.subscribe(&slow, SubscriptionDraft::new("https://example.com/new")).await },
            )
        })
        .collect();
    wait_for_the_lock(&engine.host).await;
    join_all((0..GONE).map(|_| emit(&slow))).await;
    let attempted = tokio::time::timeout(SOON, engine.transport.wait_for(GONE + 1)).await;
    attempted.expect("its endpoint is asked meanwhile, and wants no more");
    for _ in 0..10 {
        let id = emit(&other).await;
        let delivered = async {
            loop {
                let status = engine.webhooks.event_status(&other, id).await.expect("it is there");
                if status.2.iter().all(|delivery| delivery.delivery.completed_at.is_some()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, delivered).await.expect("it is recorded meanwhile");
        let held = sqlx::query_scalar::<_, i64>(IN_LINE).fetch_one(&engine.host).await.expect("it answers");
        assert!(held <= 3, "{held} connections wait, two of them for callers");
    }
    let disabled = async || {
        let subscription = engine.webhooks.subscription(&slow, gone).await.expect("it is there");
        subscription.disabled == Some(DisabledReason::Gone)
    };
    assert!(changes.iter().all(|change| !change.is_finished()) && !disabled().await);
    let asked = engine.transport.requests().iter().filter(|request| request.url.path() == "/gone").count();
    assert!(asked < GONE + GONE / 2, "it is asked {asked} times though it said at once that it is gone");

    transaction.commit().await.expect("it commits");
    for change in changes {
        change.await.expect("it ends").expect("it subscribes");
    }
    while !disabled().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await;
}

/// There is no moment without one of the hosts' transactions, each of which is longer than a change's first turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_get_their_turn_between_transactions_that_follow_each_other_without_a_gap() {
    const HOSTS: u32 = 10;
    const OPEN: Duration = Duration::from_millis(400);
    const SOON: Duration = Duration::from_secs(10);
    let transport = RecordingTransport::new().answering(|_| Ok(OutboundResponse::new(StatusCode::GONE)));
    let engine = Arc::new(Engine::with(transport).await);
    engine.subscribe("order.*").await;
    let running = Running::start(&engine).await;
    let mut hosts = tokio::task::JoinSet::new();
    for host in 0..HOSTS {
        let engine = Arc::clone(&engine);
        hosts.spawn(async move {
            // Each takes another time, so that those that waited for the same do not go on side by side.
            let open = OPEN + OPEN * host / HOSTS;
            loop {
                let prepared = engine.prepare(NewEvent::new("invoice.paid".parse().expect("a type"), "1")).await;
                let mut transaction = engine.host.begin().await.expect("it begins");
                PostgresStore::emit_in(&mut transaction, &prepared).await.expect("it emits");
                tokio::time::sleep(open).await;
                transaction.commit().await.expect("it commits");
            }
        });
    }
    tokio::time::sleep(OPEN * 2).await;
    for url in ["https://example.com/1", "https://example.com/2"] {
        let draft = SubscriptionDraft::new(url).with_events(["other.*"]).expect("a pattern");
        engine.webhooks.subscribe(&engine.tenant, draft).await.expect("it gets its turn within its patience");
    }
    // And so does one that a 410 brings.
    engine.webhooks.emit(&engine.tenant, event("1")).await.expect("it emits");
    let disabled = async {
        loop {
            let page = engine.webhooks.subscriptions(&engine.tenant, PageRequest::newest(10)).await.expect("it lists");
            if page.items.iter().any(|subscription| subscription.disabled == Some(DisabledReason::Gone)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, disabled).await.expect("it is disabled");
    hosts.shutdown().await;
    running.stop().await;
}

/// Until somebody waits for a lock, or has waited for it.
async fn wait_for_the_lock(host: &PgPool) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '%pg_advisory_xact_lock(%' AND pid <> pg_backend_pid()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(host).await.expect("it answers") == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
