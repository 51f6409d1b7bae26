//! Capture paths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use webhook_core::{CapturePath, Conflict, Error, PathCreated, PathDraft};

use crate::api::ApiState;
use crate::extract::{CapturePathId, IdempotencyKey, Reader, Writer};
use crate::page_writer::PageWriter;
use crate::problem::Problem;
use crate::query::Query;
use crate::{body, json, wire};

/// A path with the longest answer in base64, and what is around it.
const MAX_BODY: usize = 512 * 1024;
/// How often a patch is tried against somebody else's changes.
const PATCH_TRIES: usize = 5;
/// A path is active that was reached so long ago at most.
const ACTIVE: Duration = Duration::from_secs(24 * 3600);
const RECENT: u32 = 10;
/// Paths of a list that are read at once, each perhaps with a long response.
const AT_ONCE: u32 = 16;

/// Create a capture path
///
/// Without a body it gets a generated `path_id`. Whoever knows the `path_id` can send requests there.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/paths", tag = "Capturing",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours gives the first answer")),
    request_body = Option<wire::PathInput>,
    responses((status = 201, description = "Created", body = wire::Path)),
))]
pub(crate) async fn create_path(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_optional_json(&headers, body, MAX_BODY).await?;
    let json::Object(input): json::Object<wire::PathInput> = json::parse(body::text_or_empty_object(&body)?)?;
    let draft = input.into_draft()?;
    let Some(key) = key else {
        let path = state.webhooks.create_path(caller.tenant(), draft).await?;
        return Ok(json::answer(StatusCode::CREATED, &shown(&state, path)));
    };
    let answer = |path: &CapturePath| serde_json::to_vec(&shown(&state, path.clone())).unwrap_or_default();
    let fingerprint = Sha256::digest(&body).into();
    Ok(match state.webhooks.create_path_once(caller.tenant(), draft, key, fingerprint, answer).await? {
        PathCreated::Created(path) => json::answer(StatusCode::CREATED, &shown(&state, *path)),
        PathCreated::Repeated(answer) => json::written(StatusCode::CREATED, answer),
    })
}

/// List capture paths
///
/// A page ends early, with a `next_cursor`, when it has more than 4 MiB, with `offset` or `page` 8 MiB: their responses may be
/// long.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths", tag = "Capturing",
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::Path>)),
))]
pub(crate) async fn list_paths(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    query.finish()?;
    let mut answer = PageWriter::new(paging);
    while let Some(wanted) = answer.wanted(AT_ONCE) {
        let page = state.webhooks.capture_paths(caller.tenant(), wanted).await?;
        answer.write(page, |path| path.key.as_uuid(), |path, _| shown(&state, path))?;
    }
    answer.finish()
}

/// Read a capture path
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}", tag = "Capturing", params(("path_id" = String, Path)),
    responses((status = 200, description = "The path", body = wire::Path)),
))]
pub(crate) async fn get_path(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
) -> Result<Response, Problem> {
    let path = state.webhooks.capture_path(caller.tenant(), &path_id).await?;
    Ok(json::answer(StatusCode::OK, &shown(&state, path)))
}

/// Change a capture path
///
/// A merge patch (RFC 7396): only what is given changes, and null takes a field back to its default. Requests beyond a
/// lowered quota are removed.
#[cfg_attr(feature = "openapi", utoipa::path(
    patch, path = "/api/paths/{path_id}", tag = "Capturing", params(("path_id" = String, Path)),
    request_body(content(
        (wire::PathPatch = "application/merge-patch+json"),
        (wire::PathPatch = "application/json"),
    )),
    responses((status = 200, description = "The path as it is now", body = wire::Path)),
))]
pub(crate) async fn update_path(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    CapturePathId(path_id): CapturePathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, MAX_BODY).await?;
    let json::Unique(patch): json::Unique<json::Distinct> = json::parse(body::text(&body)?)?;
    let mut tries = 1;
    loop {
        let current = state.webhooks.capture_path(caller.tenant(), &path_id).await?;
        let version = current.version;
        let draft = patched(current, &patch)?;
        match state.webhooks.replace_path(caller.tenant(), &path_id, draft, Some(version)).await {
            Err(Error::Conflict(Conflict::Changed)) if tries < PATCH_TRIES => tries += 1,
            result => return Ok(json::answer(StatusCode::OK, &shown(&state, result?))),
        }
    }
}

/// Delete a capture path
///
/// Its requests go too.
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/api/paths/{path_id}", tag = "Capturing", params(("path_id" = String, Path)),
    responses((status = 204, description = "Deleted")),
))]
pub(crate) async fn delete_path(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    CapturePathId(path_id): CapturePathId,
) -> Result<Response, Problem> {
    state.webhooks.delete_path(caller.tenant(), &path_id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Read figures of a capture path
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/stats", tag = "Capturing", params(("path_id" = String, Path)),
    responses((status = 200, description = "Figures", body = wire::PathStats)),
))]
pub(crate) async fn get_path_stats(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
) -> Result<Response, Problem> {
    let (path, methods) = state.webhooks.path_methods(caller.tenant(), &path_id).await?;
    Ok(json::answer(StatusCode::OK, &wire::PathStats::of(path, methods)))
}

/// Read figures of all capture paths
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/dashboard/stats", tag = "Capturing",
    responses((status = 200, description = "Figures", body = wire::DashboardStats)),
))]
pub(crate) async fn get_dashboard_stats(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
) -> Result<Response, Problem> {
    let since = state.webhooks.now() - ACTIVE;
    let stats = state.webhooks.capture_stats(caller.tenant(), since, RECENT).await?;
    Ok(json::answer(StatusCode::OK, &wire::DashboardStats::from(stats)))
}

fn shown(state: &ApiState, path: CapturePath) -> wire::Path {
    wire::Path::of(path, state.options.public_url.as_deref().unwrap_or_default())
}

/// The draft that is the path's present form with the patch merged in.
fn patched(current: CapturePath, patch: &BTreeMap<String, json::Distinct>) -> Result<PathDraft, Problem> {
    let mut document = wire::PathSettings::document(current).map_err(|error| {
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "a path has no JSON form");
        Problem::internal()
    })?;
    for (field, json::Distinct(value)) in patch {
        json::merge(&mut document[field.as_str()], value);
    }
    let input: wire::PathInput = json::from_value(document)?;
    Ok(input.into_draft()?)
}
