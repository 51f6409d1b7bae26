//! Figures and recent activity.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use crate::api::ApiState;
use crate::extract::{PathId, Reader};
use crate::problem::Problem;
use crate::query::Query;
use crate::{json, wire};

const DEFAULT_WINDOW: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_ACTIVITY: u32 = 5;
const MAX_ACTIVITY: u32 = 100;

/// Read figures
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/stats", tag = "Figures",
    params(("since" = Option<wire::Time>, Query, description = "From this time on; by default the last 24 hours")),
    responses((status = 200, description = "Figures", body = wire::Stats)),
))]
pub(crate) async fn get_stats(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    mut query: Query,
) -> Result<Response, Problem> {
    let now = state.webhooks.now();
    let since = query.time("since").unwrap_or(now - DEFAULT_WINDOW);
    query.finish()?;
    let stats = state.webhooks.stats(caller.tenant(), None, since).await?;
    Ok(json::answer(StatusCode::OK, &wire::Stats::of_tenant(stats, since, now)))
}

/// Read figures of a subscription
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/subscriptions/{id}/stats", tag = "Subscriptions", params(
        ("id" = wire::Id, Path),
        ("since" = Option<wire::Time>, Query, description = "From this time on; by default the last 24 hours"),
    ),
    responses((status = 200, description = "Figures", body = wire::Stats)),
))]
pub(crate) async fn get_subscription_stats(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
    mut query: Query,
) -> Result<Response, Problem> {
    let now = state.webhooks.now();
    let since = query.time("since").unwrap_or(now - DEFAULT_WINDOW);
    query.finish()?;
    let stats = state.webhooks.stats(caller.tenant(), Some(id.into()), since).await?;
    Ok(json::answer(StatusCode::OK, &wire::Stats::of_subscription(stats, since, now)))
}

/// List what happened last
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/activity", tag = "Figures",
    params(("limit" = Option<u32>, Query, description = "1 to 100 (default 5)")),
    responses((status = 200, description = "Newest first", body = wire::Activities)),
))]
pub(crate) async fn list_activity(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    mut query: Query,
) -> Result<Response, Problem> {
    let limit = query.limit(DEFAULT_ACTIVITY, MAX_ACTIVITY);
    query.finish()?;
    let data = state.webhooks.activity(caller.tenant(), limit).await?;
    let data = data.into_iter().map(Into::into).collect();
    Ok(json::answer(StatusCode::OK, &wire::Activities { data }))
}
