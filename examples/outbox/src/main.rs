//! An order and its event in one SQL transaction: both are there, or neither.

mod receiver;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio_util::sync::CancellationToken;
use webhook_core::{AddressGuard, Emitted, NewEvent, Role, SubscriptionDraft, TenantId, Webhooks};
use webhook_store_sqlite::SqliteStore;

use crate::receiver::Receiver;

/// What the shop works with: its own tables, and webhooks on the same file.
struct Shop {
    database: SqlitePool,
    webhooks: Webhooks,
    tenant: TenantId,
}

/// How an order's transaction ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Commit,
    Rollback,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("shop.db");
    let store = SqliteStore::open(&path.display().to_string()).await?;
    let database = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await?;
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)").execute(&database).await?;

    // Targets are public and https, unless they are in a network that is allowed.
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse()?);
    let webhooks = Webhooks::builder(Arc::new(store)).guard(guard).build()?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (webhooks, shutdown) = (webhooks.clone(), shutdown.clone());
        async move { webhooks.run(Role::Worker, shutdown).await }
    });

    let shop = Shop { database, webhooks, tenant: TenantId::default() };
    let receiver = Receiver::start().await?;
    let draft = SubscriptionDraft::new(receiver.url()).with_events(["order.*"])?;
    shop.webhooks.subscribe(&shop.tenant, draft).await?;

    let lost = shop.order(1, "a teapot", Ending::Rollback).await?;
    println!(
        "order 1 was rolled back: {} orders, event {} is {}",
        shop.orders().await?,
        lost.id,
        shop.state(&lost).await
    );

    let kept = shop.order(2, "two cups", Ending::Commit).await?;
    println!(
        "order 2 was committed:   {} orders, event {} is {}",
        shop.orders().await?,
        kept.id,
        shop.state(&kept).await
    );
    // The deliveries are there; this says so at once, where the next poll would find them a moment later.
    shop.webhooks.wake();

    let request = tokio::time::timeout(Duration::from_secs(10), receiver.request()).await??;
    println!("the receiver got:        {}", request.body);
    assert_eq!(request.header("webhook-id"), Some(kept.id.to_string().as_str()), "only what was committed is sent");

    shutdown.cancel();
    running.await?;
    println!("at the end event {} is {}", kept.id, shop.state(&kept).await);
    Ok(())
}

impl Shop {
    /// Takes an order, and emits that it was taken, in one transaction.
    async fn order(&self, id: i64, item: &str, ending: Ending) -> Result<Emitted, Box<dyn Error>> {
        let event = NewEvent::json("order.created", &serde_json::json!({ "order": id, "item": item }))?;
        let prepared = self.webhooks.prepare(&self.tenant, event).await?;

        let mut transaction = self.database.begin_with("BEGIN IMMEDIATE").await?;
        let insert = sqlx::query("INSERT INTO orders (id, item) VALUES (?1, ?2)").bind(id).bind(item);
        insert.execute(&mut *transaction).await?;
        let emitted = SqliteStore::emit_in(&mut transaction, &prepared).await?;
        match ending {
            Ending::Commit => transaction.commit().await?,
            Ending::Rollback => transaction.rollback().await?,
        }
        Ok(emitted)
    }

    async fn orders(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&self.database).await
    }

    /// How an event fares, in a word.
    async fn state(&self, event: &Emitted) -> &'static str {
        match self.webhooks.event_status(&self.tenant, event.id).await {
            Ok((_, status, _)) => status.as_str(),
            Err(_) => "unknown",
        }
    }
}
