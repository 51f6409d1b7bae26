//! Whether it works.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::App;

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok", "service": "webhook-messages", "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    match timeout(PATIENCE, app.database.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        _ => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not_ready" }))),
    }
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.figures.run_upkeep();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.figures.render())
}
