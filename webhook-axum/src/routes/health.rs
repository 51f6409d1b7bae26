//! Health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, timeout};

use crate::api::ApiState;
use crate::extract::Reader;
use crate::problem::{ASK_AGAIN, Problem};
use crate::readiness::Duty;
use crate::{json, wire};

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// A worker that was not told for longer what is due is stuck. That it asks is not enough: a claim without an answer
/// fails sooner, and the next one follows.
const WORKER_SILENCE: Duration = Duration::from_secs(30);

/// See that the service answers
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/health", tag = "Operating",
    responses((status = 200, description = "It does", body = wire::Health)), security(()),
))]
pub(crate) async fn get_health(State(state): State<Arc<ApiState>>) -> Response {
    let wire = wire::Health { status: "ok", service: &state.options.service, version: &state.options.version };
    json::answer(StatusCode::OK, &wire)
}

/// See that the process lives
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/health/live", tag = "Operating",
    responses((status = 200, description = "It does", body = wire::Live)), security(()),
))]
pub(crate) async fn get_liveness() -> Response {
    json::answer(StatusCode::OK, &wire::Live { status: "alive" })
}

/// See whether the process should get requests
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/health/ready", tag = "Operating",
    responses(
        (status = 200, description = "It should: `ready` or `degraded`", body = wire::Ready),
        (status = 503, description = "It should not: `not_ready`", body = wire::Ready),
    ),
    security(()),
))]
pub(crate) async fn get_readiness(State(state): State<Arc<ApiState>>) -> Response {
    let store = check("store", async { Some(state.webhooks.check_store().await.is_ok()) });
    let name = state.webhooks.queue_name().unwrap_or("queue");
    let queue = check(name, async { state.webhooks.check_queue().await.map(|depth| depth.is_ok()) });
    let (store, queue) = tokio::join!(store, queue);
    // Without its queue a process works on: it asks the store.
    let without_queue = queue.as_ref().is_some_and(|check| check.status != "ok");
    let queue =
        queue.map(|check| wire::Check { status: if without_queue { "degraded" } else { check.status }, ..check });
    let mut checks: Vec<wire::Check> = [store, queue].into_iter().flatten().collect();
    let last = state.webhooks.last_claim();
    if last.is_some() || state.duty == Duty::Deliveries {
        let lately = last.is_some_and(|last| state.webhooks.now().since(last) <= WORKER_SILENCE);
        checks.push(passed("worker", lately));
    }
    if state.readiness.is_stopping() {
        checks.push(passed("server", false));
    }
    let failed = |name: &str| checks.iter().any(|check| check.name == name && check.status != "ok");
    let idle = state.duty == Duty::Deliveries && failed("worker");
    let (code, status) = if failed("store") || failed("server") || idle {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    } else if without_queue || failed("worker") {
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "ready")
    };
    let mut response = json::answer(code, &wire::Ready { status, checks });
    if code == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, ASK_AGAIN);
    }
    response
}

/// Read the figures of the process
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/metrics", tag = "Operating",
    responses((status = 200, description = "In the text format of Prometheus", body = String, content_type = "text/plain")),
))]
pub(crate) async fn get_metrics(State(state): State<Arc<ApiState>>, _: Reader) -> Result<Response, Problem> {
    let render = state.metrics.0.as_ref().ok_or_else(|| Problem::not_found("there is no such route"))?;
    let mut response = Response::new(Body::from(render()));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    Ok(response)
}

/// How a check went; none where there is nothing to check.
async fn check(name: &'static str, passes: impl Future<Output = Option<bool>>) -> Option<wire::Check> {
    let start = Instant::now();
    let ok = timeout(CHECK_TIMEOUT, passes).await.unwrap_or(Some(false))?;
    let latency_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Some(wire::Check { latency_ms, ..passed(name, ok) })
}

fn passed(name: &'static str, ok: bool) -> wire::Check {
    wire::Check { name, status: if ok { "ok" } else { "failed" }, latency_ms: 0 }
}
