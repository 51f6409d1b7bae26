//! Captured requests.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use webhook_core::{CaptureFilter, CapturedRequest, ReplayRequest, Secret};

use super::capture::SANDBOX;
use crate::api::ApiState;
use crate::extract::{CapturePathId, CaptureRequestId, Reader, Writer};
use crate::page_writer::PageWriter;
use crate::problem::Problem;
use crate::query::{Flag, Query};
use crate::wire::{Body as ShowBody, Credentials, Show};
use crate::{body, json, wire};

/// Lists and streams cut a body here.
pub(super) const LISTED_BODY: u32 = 64 * 1024;

/// Requests of a list that are read at once …
const AT_ONCE: u32 = 16;
/// … and after those whose bodies were small …
const MANY_AT_ONCE: u32 = 64;
/// … which is so many bytes together.
const SMALL: usize = 64 * 1024;

/// List captured requests
///
/// A page ends early, with a `next_cursor`, when it has more than 4 MiB. With `offset` or `page` bodies are cut further
/// instead (`body_cut`), and it ends at 8 MiB.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/logs", tag = "Capturing", params(
        ("path_id" = String, Path),
        ("include_body" = Option<bool>, Query, description = "With bodies, cut at 64 KiB (default true)"),
        ("method" = Option<String>, Query, description = "Only this method, in any case"),
        ("since" = Option<wire::Time>, Query, description = "From this time on, inclusive"),
        ("until" = Option<wire::Time>, Query, description = "Before this time, exclusive"),
        ("q" = Option<String>, Query, description = "Only where this is in the path, the query, the headers or the body"),
        ("mask" = Option<bool>, Query, description = "Hides the values of headers that are credentials"),
    ),
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::Captured>)),
))]
pub(crate) async fn list_captured_requests(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    let filter = filter(&mut query);
    let body = body_of(&mut query);
    let show = Show { body, credentials: credentials_of(&mut query) };
    query.finish()?;
    let limit = if body == ShowBody::Shown { LISTED_BODY } else { 0 };
    let (mut answer, mut at_once) = (PageWriter::new(paging), AT_ONCE);
    while let Some(wanted) = answer.wanted(at_once) {
        let room = limit.min(u32::try_from(answer.room()).unwrap_or(u32::MAX));
        let page = state.webhooks.captured_requests(caller.tenant(), &path_id, &filter, wanted, room).await?;
        let bytes: usize = page.items.iter().map(|captured| captured.request.body.len()).sum();
        at_once = if bytes <= SMALL { MANY_AT_ONCE } else { AT_ONCE };
        let shown = |captured: CapturedRequest, room| wire::Captured::of(captured.cut_to(room), show);
        answer.write(page, |captured| captured.id.as_uuid(), shown)?;
    }
    answer.finish()
}

/// Read a captured request
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/logs/{request_id}", tag = "Capturing", params(
        ("path_id" = String, Path), ("request_id" = wire::Id, Path),
        ("include_body" = Option<bool>, Query, description = "With its body, as far as it is kept (default true)"),
        ("mask" = Option<bool>, Query, description = "Hides the values of headers that are credentials"),
    ),
    responses((status = 200, description = "The request", body = wire::Captured)),
))]
pub(crate) async fn get_captured_request(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
    CaptureRequestId(id): CaptureRequestId,
    mut query: Query,
) -> Result<Response, Problem> {
    let show = Show { body: body_of(&mut query), credentials: credentials_of(&mut query) };
    query.finish()?;
    let captured = state.webhooks.captured(caller.tenant(), &path_id, id.into()).await?;
    Ok(json::answer(StatusCode::OK, &wire::Captured::of(captured, show)))
}

/// Download the body of a captured request
///
/// As far as it is kept, byte for byte. Always a download, and no browser runs it.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/logs/{request_id}/body", tag = "Capturing",
    params(("path_id" = String, Path), ("request_id" = wire::Id, Path)),
    responses((status = 200, description = "The body", body = wire::RawBody, content_type = "application/octet-stream")),
))]
pub(crate) async fn get_captured_body(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
    CaptureRequestId(id): CaptureRequestId,
) -> Result<Response, Problem> {
    let captured = state.webhooks.captured(caller.tenant(), &path_id, id.into()).await?;
    let mut response = Response::new(Body::from(captured.request.body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_DISPOSITION, attachment(&format!("{}.bin", id.0)));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    Ok(response)
}

/// Delete a captured request
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/api/paths/{path_id}/logs/{request_id}", tag = "Capturing",
    params(("path_id" = String, Path), ("request_id" = wire::Id, Path)),
    responses((status = 204, description = "Deleted")),
))]
pub(crate) async fn delete_captured_request(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    CapturePathId(path_id): CapturePathId,
    CaptureRequestId(id): CaptureRequestId,
) -> Result<Response, Problem> {
    state.webhooks.remove_captured(caller.tenant(), &path_id, id.into()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Delete all captured requests of a path
#[cfg_attr(feature = "openapi", utoipa::path(
    delete, path = "/api/paths/{path_id}/logs", tag = "Capturing", params(("path_id" = String, Path)),
    responses((status = 204, description = "Deleted")),
))]
pub(crate) async fn delete_captured_requests(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    CapturePathId(path_id): CapturePathId,
) -> Result<Response, Problem> {
    state.webhooks.clear_path(caller.tenant(), &path_id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Send a captured request again
///
/// By its method, with its headers and body, through the delivery engine: guarded, retried, every attempt recorded.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/api/paths/{path_id}/logs/{request_id}/replay", tag = "Capturing",
    params(("path_id" = String, Path), ("request_id" = wire::Id, Path)),
    request_body = wire::ReplayInput,
    responses((status = 202, description = "On its way", body = wire::Replayed)),
))]
pub(crate) async fn replay_captured_request(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    CapturePathId(path_id): CapturePathId,
    CaptureRequestId(id): CaptureRequestId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limit = state.webhooks.options().max_payload + body::AROUND;
    let body = body::read_json(&headers, body, limit).await?;
    let json::Object(input): json::Object<wire::ReplayInput> = json::parse(body::text(&body)?)?;
    let mut replay = ReplayRequest::new(input.target_url);
    let given = input.headers.map(|headers| headers.0).unwrap_or_default();
    replay.headers = given.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
    replay.body = input.body.map(Into::into);
    replay.secret = input.secret;
    let replayed = state.webhooks.replay(caller.tenant(), &path_id, id.into(), replay).await?;
    let answer = wire::Replayed { delivery_id: replayed.delivery.into(), stripped_headers: replayed.stripped_headers };
    Ok(json::answer(StatusCode::ACCEPTED, &answer))
}

/// Which requests are wanted.
pub(super) fn filter(query: &mut Query) -> CaptureFilter {
    let mut filter = CaptureFilter::new();
    filter.method = query.get("method");
    filter.since = query.time("since");
    filter.until = query.time("until");
    filter.text = query.get("q");
    filter
}

fn body_of(query: &mut Query) -> ShowBody {
    match query.get("include_body") {
        Some(Flag::Off) => ShowBody::Left,
        Some(Flag::On) | None => ShowBody::Shown,
    }
}

pub(super) fn credentials_of(query: &mut Query) -> Credentials {
    match query.get("mask") {
        Some(Flag::On) => Credentials::Masked,
        Some(Flag::Off) | None => Credentials::Shown,
    }
}

/// `name` must be made of letters, digits, `.`, `-` and `_`.
pub(super) fn attachment(name: &str) -> HeaderValue {
    let value = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    value.unwrap_or(HeaderValue::from_static("attachment"))
}
