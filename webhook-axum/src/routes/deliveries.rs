//! Deliveries.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use webhook_core::DeliveryId;
use webhook_core::store::DeliveryFilter;

use crate::api::ApiState;
use crate::extract::{PathId, Reader, Writer};
use crate::problem::Problem;
use crate::query::Query;
use crate::{json, wire};

/// List deliveries
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/deliveries", tag = "Deliveries", params(
        ("state" = Option<String>, Query, description = "pending, delivered, exhausted or cancelled"),
        ("subscription_id" = Option<wire::Id>, Query, description = "Only to this subscription"),
        ("event_id" = Option<wire::Id>, Query, description = "Only of this event"),
        ("since" = Option<wire::Time>, Query, description = "Created from this time on"),
    ),
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::Delivery>)),
))]
pub(crate) async fn list_deliveries(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    let filter = DeliveryFilter {
        state: query.get("state"),
        subscription: query.get::<wire::Id>("subscription_id").map(Into::into),
        event: query.get::<wire::Id>("event_id").map(Into::into),
        since: query.time("since"),
    };
    query.finish()?;
    let page = state.webhooks.deliveries(caller.tenant(), &filter, paging.request).await?;
    Ok(json::answer(StatusCode::OK, &paging.answer(page, |item| item.delivery.id.as_uuid(), wire::Delivery::from)))
}

/// Read a delivery with its attempts
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/deliveries/{id}", tag = "Deliveries", params(("id" = wire::Id, Path)),
    responses((status = 200, description = "The delivery", body = wire::DeliveryWithLog)),
))]
pub(crate) async fn get_delivery(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let delivery = state.webhooks.delivery(caller.tenant(), id.into()).await?;
    let attempts = state.webhooks.attempts_of(caller.tenant(), id.into()).await?;
    let attempt_log = attempts.into_iter().map(Into::into).collect();
    Ok(json::answer(StatusCode::OK, &wire::DeliveryWithLog { delivery: delivery.into(), attempt_log }))
}

/// Attempt a delivery now
///
/// One that has ended is opened again for exactly one attempt. It is a conflict while it is being attempted.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/deliveries/{id}/retry", tag = "Deliveries", params(("id" = wire::Id, Path)),
    responses((status = 202, description = "Accepted", body = wire::DeliveryAccepted)),
))]
pub(crate) async fn retry_delivery(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    state.webhooks.retry(caller.tenant(), id.into()).await?;
    Ok(accepted(id.into()))
}

/// Cancel a pending delivery
///
/// It is a conflict when it has ended.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/deliveries/{id}/cancel", tag = "Deliveries", params(("id" = wire::Id, Path)),
    responses((status = 202, description = "Accepted", body = wire::DeliveryAccepted)),
))]
pub(crate) async fn cancel_delivery(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    state.webhooks.cancel(caller.tenant(), id.into()).await?;
    Ok(accepted(id.into()))
}

fn accepted(id: DeliveryId) -> Response {
    json::answer(StatusCode::ACCEPTED, &wire::DeliveryAccepted { delivery_id: id.into() })
}
