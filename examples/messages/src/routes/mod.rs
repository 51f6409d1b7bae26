//! The routes.

mod health;
mod messages;
mod page;
mod webhook;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use webhook_core::verify::HmacVerifier;

use crate::database::Database;
use crate::refusal::Refusal;
use crate::request_log;

/// What all routes share.
pub(crate) struct App {
    pub(crate) database: Database,
    pub(crate) verifier: HmacVerifier,
    pub(crate) figures: PrometheusHandle,
}

pub(crate) fn router(app: Arc<App>) -> Router {
    webhook::start_figures();
    Router::new()
        .route("/webhook", post(webhook::receive))
        .route("/messages", get(messages::list))
        .route("/stats", get(messages::stats))
        .route("/metrics", get(health::metrics))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/ui", get(page::page))
        .route("/ui/style.css", get(page::style))
        .route("/ui/refresh.js", get(page::script))
        .fallback(|| async { Refusal::NotFound })
        .method_not_allowed_fallback(|| async { Refusal::WrongMethod })
        .layer(from_fn(request_log::observe))
        .with_state(app)
}
