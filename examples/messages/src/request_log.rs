//! One line in the log and one step of a counter for each request.

use axum::extract::{FromRequestParts as _, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, HeaderName, X_CONTENT_TYPE_OPTIONS};
use tokio::time::Instant;
use webhook_axum::RequestId;

use crate::refusal::Refusal;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What became of a message, left by its handler.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) result: &'static str,
    pub(crate) message_id: Option<String>,
}

/// In a task of its own: what a caller began who has hung up is done, counted and logged all the same.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    match tokio::spawn(observed(request, next)).await {
        Ok(response) => response,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => Refusal::Unavailable.into_response(),
        },
    }
}

async fn observed(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (mut parts, body) = request.into_parts();
    let Ok(id) = RequestId::from_request_parts(&mut parts, &()).await;
    // The route, not what was asked for: callers may invent paths, and figures must stay few.
    let route = parts.extensions.get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let status = response.status();
    metrics::counter!("http_requests_total", "path" => route, "status" => status.as_str().to_owned()).increment(1);
    let outcome = response.extensions_mut().remove::<Outcome>();
    let result = outcome.as_ref().map(|outcome| outcome.result);
    tracing::info!(
        request_id = id.as_str(),
        method = method.as_str(),
        path,
        status = status.as_u16(),
        latency_ms = start.elapsed().as_micros() as f64 / 1000.0,
        dup = result == Some("duplicate"),
        result,
        message_id = outcome.as_ref().and_then(|outcome| outcome.message_id.as_deref()),
    );
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
