//! The engine that is measured, as a host would assemble it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use webhook_core::{AddressGuard, MemoryQueue, MemoryStore, Role, Store, Webhooks};
use webhook_store_postgres::PostgresStore;
use webhook_store_sqlite::SqliteStore;

use crate::{Error, QueueKind, StoreKind};

pub(crate) async fn build(store: StoreKind, queue: QueueKind, database: &str) -> Result<Webhooks, Error> {
    let store: Arc<dyn Store> = match store {
        StoreKind::Memory => Arc::new(MemoryStore::new()),
        StoreKind::Sqlite => Arc::new(SqliteStore::open(database).await?),
        StoreKind::Postgres => Arc::new(PostgresStore::open(database).await?),
    };
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse()?);
    let builder = Webhooks::builder(store).guard(guard);
    let builder = match queue {
        QueueKind::None => builder,
        QueueKind::Memory => builder.queue(Arc::new(MemoryQueue::new())),
    };
    Ok(builder.build()?)
}

/// The engine with its HTTP API on a free port, which it prints.
pub(crate) async fn serve(store: StoreKind, queue: QueueKind, database: &str) -> Result<(), Error> {
    let webhooks = build(store, queue, database).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let running = webhooks.clone();
    let worker = shutdown.clone();
    tokio::spawn(async move { running.run(Role::Worker, worker).await });
    let router = webhook_axum::Api::new(webhooks).danger_no_auth().router();
    webhook_axum::serve(listener, router, shutdown, webhook_axum::ServeOptions::default()).await;
    Ok(())
}
