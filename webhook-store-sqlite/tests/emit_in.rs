//! An engine whose host emits inside its own transactions.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::sync::Arc;
use std::time::Duration;

use scene::Scene;
use sqlx::SqlitePool;
use tokio_util::sync::CancellationToken;
use webhook_core::store::{EventFilter, PageRequest};
use webhook_core::transport::RecordingTransport;
use webhook_core::{
    Conflict, Emitted, Error, NewEvent, Options, Prepared, Role, SubscriptionDraft, TenantId, Webhooks,
};
use webhook_store_sqlite::SqliteStore;

/// An engine on a file, with a transport that records, and the host's own connections to that file.
struct Engine {
    webhooks: Webhooks,
    tenant: TenantId,
    transport: RecordingTransport,
    host: SqlitePool,
    _scene: Scene,
}

impl Engine {
    async fn new() -> Self {
        let scene = Scene::new();
        let store = scene.open().await;
        let transport = RecordingTransport::new();
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
        let mut transaction = self.host.begin_with("BEGIN IMMEDIATE").await.expect("it begins");
        let emitted = SqliteStore::emit_in(&mut transaction, prepared).await;
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

#[tokio::test]
async fn a_rolled_back_event_is_gone_and_a_committed_one_is_delivered_when_woken() {
    let engine = Engine::new().await;
    engine.subscribe("order.*").await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (webhooks, shutdown) = (engine.webhooks.clone(), shutdown.clone());
        async move { webhooks.run(Role::Worker, shutdown).await }
    });

    let prepared = engine.prepare(event("1")).await;
    let mut transaction = engine.host.begin_with("BEGIN IMMEDIATE").await.expect("it begins");
    let emitted = SqliteStore::emit_in(&mut transaction, &prepared).await.expect("it emits");
    assert_eq!(emitted.deliveries, 1);
    transaction.rollback().await.expect("it rolls back");
    assert_eq!(engine.accepted().await, 0);

    let emitted = engine.emit_and_commit(&engine.prepare(event("2")).await).await.expect("it emits");
    assert_eq!(engine.accepted().await, 1);
    engine.webhooks.wake();
    let requests = tokio::time::timeout(Duration::from_secs(10), engine.transport.wait_for(1)).await;
    let requests = requests.expect("it is delivered");
    assert_eq!(requests[0].body, "2");
    assert_eq!(requests[0].headers["webhook-id"], emitted.id.to_string());
    shutdown.cancel();
    running.await.expect("it stops");
    assert_eq!(engine.transport.requests().len(), 1);
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
