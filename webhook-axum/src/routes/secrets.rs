//! The secrets of subscriptions.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::api::ApiState;
use crate::extract::{PathId, SecretReader, SecretWriter};
use crate::problem::Problem;
use crate::{body, json, wire};

const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3600);
const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Read the secrets of a subscription
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/subscriptions/{id}/secret", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    responses((status = 200, description = "The secrets", body = wire::RevealedSecret)),
))]
pub(crate) async fn get_secret(
    State(state): State<Arc<ApiState>>,
    caller: SecretReader,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let revealed = state.webhooks.reveal_secret(caller.tenant(), id.into()).await?;
    Ok(unstored(json::answer(StatusCode::OK, &wire::RevealedSecret::from(revealed))))
}

/// Rotate the secret of a subscription
///
/// Until the grace ends, both secrets sign. A scheme whose header has room for one signature has no grace: the new
/// secret counts at once, and the answer has no `previous_expires_at`.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/subscriptions/{id}/secret/rotate", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    request_body = Option<wire::RotateInput>,
    responses((status = 200, description = "The new secret", body = wire::RotatedSecret)),
))]
pub(crate) async fn rotate_secret(
    State(state): State<Arc<ApiState>>,
    caller: SecretWriter,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_optional_json(&headers, body, body::SMALL).await?;
    let json::Object(input): json::Object<wire::RotateInput> = json::parse(body::text_or_empty_object(&body)?)?;
    let grace = input.grace_seconds.map_or(DEFAULT_GRACE, |seconds| seconds.0);
    if grace > MAX_GRACE {
        return Err(Problem::invalid("grace_seconds", format!("0 to {}", MAX_GRACE.as_secs())));
    }
    let revealed = state.webhooks.rotate_secret(caller.tenant(), id.into(), input.secret, grace).await?;
    Ok(unstored(json::answer(StatusCode::OK, &wire::RotatedSecret::from(revealed))))
}

/// Secrets do not belong into caches.
fn unstored(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
