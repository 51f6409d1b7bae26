//! The smallest host application: one route of its own that emits an event, and the webhook API under `/webhooks`.
//!
//! `API_KEY=choose-one=default cargo run -p webhook-example-embed`, then:
//!
//! ```sh
//! curl -H 'authorization: Bearer choose-one' -H 'content-type: application/json' \
//!   -d '{"target_url": "https://example.com/hooks"}' http://127.0.0.1:3000/webhooks/subscriptions
//! curl -d '{"item": "a teapot"}' http://127.0.0.1:3000/orders
//! ```

#[cfg(test)]
mod tests;

use std::{env, error::Error, sync::Arc};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use tokio::{net::TcpListener, signal};
use tokio_util::sync::CancellationToken;
use webhook_axum::{Api, ApiKeys, ServeOptions, serve};
use webhook_core::{NewEvent, Role, TenantId, Webhooks};
use webhook_store_sqlite::SqliteStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let webhooks = Webhooks::builder(Arc::new(SqliteStore::open("embed.db").await?)).build()?;
    let keys = ApiKeys::new().with_spec(&env::var("API_KEY")?)?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    let shutdown = CancellationToken::new();
    let server = serve(listener, app(webhooks.clone(), keys), shutdown.clone(), ServeOptions::default());
    let stop = async {
        let stopped = signal::ctrl_c().await;
        shutdown.cancel();
        stopped
    };
    let ((), (), stopped) = tokio::join!(webhooks.run(Role::Worker, shutdown.clone()), server, stop);
    Ok(stopped?)
}

fn app(webhooks: Webhooks, keys: ApiKeys) -> Router {
    let api = Api::new(webhooks.clone()).authenticator(Arc::new(keys));
    Router::new().route("/orders", post(order)).with_state(webhooks).nest("/webhooks", api.router())
}

/// Takes an order, and says so to whoever has subscribed.
async fn order(State(webhooks): State<Webhooks>, order: Bytes) -> StatusCode {
    let Ok(created) = "order.created".parse() else { return StatusCode::INTERNAL_SERVER_ERROR };
    match webhooks.emit(&TenantId::default(), NewEvent::new(created, order)).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}
