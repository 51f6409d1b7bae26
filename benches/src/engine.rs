//! The engine that is measured, as a host would assemble it.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use tokio_util::sync::CancellationToken;
use webhook_core::{AddressGuard, MemoryQueue, MemoryStore, Role, Store, Webhooks};
use webhook_queue_redis::{Redis, RedisNotifier, RedisOptions, RedisQueue, RedisRateLimiter};
use webhook_store_postgres::PostgresStore;
use webhook_store_sqlite::SqliteStore;

use crate::{Error, StoreKind};

/// Who tells workers what is due; as text `none`, `memory` or the URL of a Redis.
#[derive(Clone, Debug)]
pub(crate) enum Queue {
    None,
    Memory,
    Redis(String),
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Duty {
    /// It accepts and delivers.
    All,
    Api,
    Worker,
}

impl FromStr for Queue {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "memory" => Self::Memory,
            url => Self::Redis(url.to_owned()),
        })
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::Redis(url) => url,
        })
    }
}

pub(crate) async fn build(store: StoreKind, queue: &Queue, database: &str) -> Result<Webhooks, Error> {
    let store: Arc<dyn Store> = match store {
        StoreKind::Memory => Arc::new(MemoryStore::new()),
        StoreKind::Sqlite => Arc::new(SqliteStore::open(database).await?),
        StoreKind::Postgres => Arc::new(PostgresStore::open(database).await?),
    };
    let guard = AddressGuard::new().allow_network("127.0.0.0/8".parse()?);
    let builder = Webhooks::builder(store).guard(guard);
    let builder = match queue {
        Queue::None => builder,
        Queue::Memory => builder.queue(Arc::new(MemoryQueue::new())),
        Queue::Redis(url) => {
            let redis = Redis::new(&RedisOptions::new(url)?);
            builder
                .queue(Arc::new(RedisQueue::new(redis.clone())))
                .notifier(Arc::new(RedisNotifier::new(redis.clone())))
                .rate_limiter(Arc::new(RedisRateLimiter::new(redis)))
        }
    };
    Ok(builder.build()?)
}

/// The engine with its HTTP API on a free port, which it prints.
pub(crate) async fn serve(store: StoreKind, queue: &Queue, duty: Duty, database: &str) -> Result<(), Error> {
    let webhooks = build(store, queue, database).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let running = webhooks.clone();
    let worker = shutdown.clone();
    let role = if duty == Duty::Api { Role::Api } else { Role::Worker };
    tokio::spawn(async move { running.run(role, worker).await });
    let router = webhook_axum::Api::new(webhooks).danger_no_auth().router();
    webhook_axum::serve(listener, router, shutdown, webhook_axum::ServeOptions::default()).await;
    Ok(())
}
