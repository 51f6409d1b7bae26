//! The routes and their handlers, by noun.

pub(crate) mod batch;
pub(crate) mod capture;
pub(crate) mod captured;
pub(crate) mod deliveries;
#[cfg(feature = "openapi")]
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod follow;
pub(crate) mod health;
pub(crate) mod ingest;
pub(crate) mod paths;
pub(crate) mod secrets;
pub(crate) mod stats;
pub(crate) mod subscription_history;
pub(crate) mod subscriptions;

use axum::routing::{any, get, post};

use crate::api::Routes;

/// Subscriptions, events, deliveries and ingest.
pub(crate) fn sending() -> Routes {
    Routes::new()
        .route("/subscriptions", get(subscriptions::list_subscriptions).post(subscriptions::create_subscription))
        .route(
            "/subscriptions/{id}",
            get(subscriptions::get_subscription)
                .put(subscriptions::replace_subscription)
                .patch(subscriptions::update_subscription)
                .delete(subscriptions::delete_subscription),
        )
        .route("/subscriptions/{id}/secret", get(secrets::get_secret))
        .route("/subscriptions/{id}/secret/rotate", post(secrets::rotate_secret))
        .route("/subscriptions/{id}/test", post(subscription_history::test_subscription))
        .route("/subscriptions/{id}/recover", post(subscription_history::recover_subscription))
        .route("/subscriptions/{id}/attempts", get(subscription_history::list_subscription_attempts))
        .route("/subscriptions/{id}/deliveries", get(subscription_history::list_subscription_deliveries))
        .route("/subscriptions/{id}/stats", get(stats::get_subscription_stats))
        .route("/events", get(events::list_events).post(events::create_event))
        .route("/events/batch", post(batch::create_events))
        .route("/events/{id}", get(events::get_event))
        .route("/events/{id}/status", get(events::get_event_status))
        .route("/ingest/{id}", post(ingest::ingest))
        .route("/deliveries", get(deliveries::list_deliveries))
        .route("/deliveries/{id}", get(deliveries::get_delivery))
        .route("/deliveries/{id}/retry", post(deliveries::retry_delivery))
        .route("/deliveries/{id}/cancel", post(deliveries::cancel_delivery))
        .route("/stats", get(stats::get_stats))
        .route("/activity", get(stats::list_activity))
}

/// Capture paths, what reached them, and where it does.
pub(crate) fn capturing() -> Routes {
    Routes::new()
        .route("/api/paths", get(paths::list_paths).post(paths::create_path))
        .route("/api/paths/{path_id}", get(paths::get_path).patch(paths::update_path).delete(paths::delete_path))
        .route("/api/paths/{path_id}/stats", get(paths::get_path_stats))
        .route(
            "/api/paths/{path_id}/logs",
            get(captured::list_captured_requests).delete(captured::delete_captured_requests),
        )
        .route(
            "/api/paths/{path_id}/logs/{request_id}",
            get(captured::get_captured_request).delete(captured::delete_captured_request),
        )
        .route("/api/paths/{path_id}/logs/{request_id}/body", get(captured::get_captured_body))
        .route("/api/paths/{path_id}/logs/{request_id}/replay", post(captured::replay_captured_request))
        .route("/api/paths/{path_id}/stream", get(follow::stream_captured_requests))
        .route("/api/paths/{path_id}/wait", get(follow::wait_for_captured_request))
        .route("/api/paths/{path_id}/export", get(export::export_captured_requests))
        .route("/api/dashboard/stats", get(paths::get_dashboard_stats))
        .route("/webhook/{path_id}", any(capture::capture_request))
        .route_below("/webhook/{path_id}", any(capture::capture_request))
}

/// Health and metrics.
pub(crate) fn health() -> Routes {
    Routes::new()
        .route("/health", get(health::get_health))
        .route("/health/live", get(health::get_liveness))
        .route("/health/ready", get(health::get_readiness))
        .route("/metrics", get(health::get_metrics))
}

/// Health, metrics and the API's description.
pub(crate) fn operating() -> Routes {
    let routes = health();
    #[cfg(feature = "openapi")]
    let routes = docs::routes(routes);
    routes
}
