//! Events.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use webhook_core::EventType;
use webhook_core::store::EventFilter;

use crate::api::ApiState;
use crate::extract::{IdempotencyKey, PathId, Reader, Writer};
use crate::json::Object;
use crate::problem::Problem;
use crate::query::Query;
use crate::{body, json, wire};

/// Send an event
///
/// It is delivered to every subscription whose patterns match its type. When this is answered, the event and its
/// deliveries are stored durably.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/events", tag = "Events",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours gives the first answer")),
    request_body = wire::EventInput,
    responses((status = 202, description = "Accepted", body = wire::EventReceipt)),
))]
pub(crate) async fn create_event(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    IdempotencyKey(key): IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let max_payload = state.webhooks.options().max_payload;
    let body = body::read_json(&headers, body, max_payload + body::AROUND).await?;
    let Object(input): Object<wire::EventInput<'_>> =
        json::parse_borrowed(body::text(&body)?, |text| json::fault_in::<Object<wire::EventInput<'_>>>(text))?;
    let mut event = input.into_event(&body, max_payload)?;
    event.idempotency_key = key;
    let emitted = state.webhooks.emit(caller.tenant(), event).await?;
    Ok(json::answer(StatusCode::ACCEPTED, &wire::EventReceipt::from(emitted)))
}

/// List events
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/events", tag = "Events", params(
        ("event_type" = Option<String>, Query, description = "Only of this type"),
        ("since" = Option<wire::Time>, Query, description = "From this time on, inclusive"),
        ("until" = Option<wire::Time>, Query, description = "Before this time, exclusive"),
    ),
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::EventSummary>)),
))]
pub(crate) async fn list_events(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    let filter = EventFilter {
        event_type: query.get::<EventType>("event_type"),
        since: query.time("since"),
        until: query.time("until"),
    };
    query.finish()?;
    let page = state.webhooks.events(caller.tenant(), &filter, paging.request).await?;
    Ok(json::answer(StatusCode::OK, &paging.answer(page, |item| item.id.as_uuid(), wire::EventSummary::from)))
}

/// Read an event
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/events/{id}", tag = "Events", params(("id" = wire::Id, Path)),
    responses((status = 200, description = "The event with its payload", body = wire::Event)),
))]
pub(crate) async fn get_event(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let (event, deliveries) = state.webhooks.event(caller.tenant(), id.into()).await?;
    Ok(json::answer(StatusCode::OK, &wire::Event::of(&event, deliveries)))
}

/// See how an event fares
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/events/{id}/status", tag = "Events", params(("id" = wire::Id, Path)),
    responses((status = 200, description = "The event and its deliveries", body = wire::EventStatus)),
))]
pub(crate) async fn get_event_status(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let (event, status, deliveries) = state.webhooks.event_status(caller.tenant(), id.into()).await?;
    let deliveries = deliveries.into_iter().map(Into::into).collect();
    let answer = wire::EventStatus { event: event.into(), status: status.as_str(), deliveries };
    Ok(json::answer(StatusCode::OK, &answer))
}
