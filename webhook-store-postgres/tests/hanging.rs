//! No connection is held while an endpoint is waited for (I6).

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use scene::Scene;
use tokio_util::sync::CancellationToken;
use webhook_core::transport::RecordingTransport;
use webhook_core::{NewEvent, Role, SubscriptionDraft, TenantId, Webhooks};
use webhook_store_postgres::PostgresStore;

const ENDPOINTS: usize = 8;
const EVENTS: usize = 16;

#[tokio::test]
async fn more_attempts_hang_than_there_are_connections_and_none_is_taken() {
    let scene = Scene::new();
    scene.open().await.close().await;
    let options = scene.options().with_max_connections(4).with_acquire_timeout(Duration::from_millis(500));
    let store = PostgresStore::connect(options).await.expect("it connects");
    let (transport, tenant) = (RecordingTransport::new(), TenantId::default());
    let webhooks =
        Webhooks::builder(Arc::new(store)).transport(Arc::new(transport.clone())).build().expect("it builds");
    for number in 0..ENDPOINTS {
        let draft = SubscriptionDraft::new(format!("https://example.com/{number}"));
        webhooks.subscribe(&tenant, draft).await.expect("it subscribes");
    }
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (webhooks, shutdown) = (webhooks.clone(), shutdown.clone());
        async move { webhooks.run(Role::Worker, shutdown).await }
    });
    transport.hang();
    let mut last = None;
    for number in 0..EVENTS {
        let event = NewEvent::new("order.created".parse().expect("a type"), number.to_string());
        last = Some(webhooks.emit(&tenant, event).await.expect("it is accepted").id);
    }
    let all = tokio::time::timeout(Duration::from_secs(20), transport.wait_for(ENDPOINTS * EVENTS));
    all.await.expect("all are attempted at once");

    let last = last.expect("there is one");
    let reads = join_all((0..100).map(|_| webhooks.event_status(&tenant, last))).await;
    for read in reads {
        assert_eq!(read.expect("there is a connection for it").2.len(), ENDPOINTS);
    }
    let held = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&scene.host().await).await.expect("it answers");
    assert_eq!(held, 0);

    transport.resume();
    shutdown.cancel();
    running.await.expect("it ends");
    let (_, _, deliveries) = webhooks.event_status(&tenant, last).await.expect("it is there");
    assert!(deliveries.iter().all(|delivery| delivery.delivery.completed_at.is_some()));
}
