//! GitHub's webhooks, stored first and handled afterwards: a slow handler keeps no sender waiting, one that fails is tried
//! again, and a crash loses nothing.
//!
//! ```sh
//! GITHUB_SECRET=choose-one cargo run -p webhook-example-inbox
//! ```
//!
//! Each message becomes a line in `handled.log`. `LISTEN_ADDR` (`127.0.0.1:8090`) and `DATABASE_URL` (`sqlite://inbox.db`)
//! say where.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;
use webhook_axum::{Inbox, ServeOptions, VerifyLayer, not_found, serve};
use webhook_core::verify::{GitHub, LiveSecrets};
use webhook_core::{HandlerError, InboxHandler, InboxMessage, RetrySchedule, Role, Source, Webhooks};
use webhook_store_sqlite::SqliteStore;

/// How long the work on a message takes.
const WORK: Duration = Duration::from_millis(5);
const STEPS: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(600)];

/// Writes a line for each message; every tenth is difficult at first.
#[derive(Debug)]
struct Deployments;

#[async_trait]
impl InboxHandler for Deployments {
    async fn handle(&self, message: InboxMessage) -> Result<(), HandlerError> {
        let metadata = message.metadata.unwrap_or_default();
        let id = metadata["message_id"].as_str().ok_or_else(|| HandlerError::give_up("a message without an id"))?;
        tokio::time::sleep(WORK).await;
        if message.attempt == 1 && id.ends_with('0') {
            return Err(HandlerError::retry("the deployment is locked"));
        }
        // A handler may be called again for what it has done: see the id.
        let line = format!("{id} {} {}\n", metadata["headers"]["x-github-event"], message.payload.len());
        let log = OpenOptions::new().append(true).create(true).open("handled.log");
        log.and_then(|mut log| log.write_all(line.as_bytes())).map_err(HandlerError::retry)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let secret = std::env::var("GITHUB_SECRET").map_err(|_| "GITHUB_SECRET is not set")?;
    let source: Source = "github".parse()?;

    let store = SqliteStore::open(&variable("DATABASE_URL", "sqlite://inbox.db")).await?;
    let webhooks = Webhooks::builder(Arc::new(store.clone()))
        .inbox(source.clone(), Arc::new(Deployments))
        .retry(Arc::new(RetrySchedule::new(STEPS)?))
        .build()?;
    let github = VerifyLayer::new(GitHub::new(LiveSecrets::one(secret)?));
    let inbox = Inbox::new(webhooks.clone(), source).keep_header("x-github-event".parse()?);
    let app = Router::new().route_service("/github", github.layer(inbox)).fallback(not_found);

    let shutdown = CancellationToken::new();
    let handling = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { webhooks.run(Role::Worker, shutdown).await }
    });
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            // Where there are no signals it runs until it is killed.
            if tokio::signal::ctrl_c().await.is_ok() {
                shutdown.cancel();
            }
        }
    });
    let listener = tokio::net::TcpListener::bind(variable("LISTEN_ADDR", "127.0.0.1:8090")).await?;
    println!("listening on {}", listener.local_addr()?);
    serve(listener, app, shutdown, ServeOptions::default()).await;
    handling.await?;
    store.close().await?;
    Ok(())
}
