//! What was sent to one subscription, and sending to it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use webhook_core::store::DeliveryFilter;
use webhook_core::{EventType, NewEvent, Timestamp};

use crate::api::ApiState;
use crate::extract::{PathId, Reader, Writer};
use crate::page_writer::PageWriter;
use crate::problem::Problem;
use crate::query::Query;
use crate::{body, json, wire};

const TEST_TYPE: &str = "webhook.test";

/// Attempts that are read at once: a response may be long.
const AT_ONCE: u32 = 64;

/// Send a test delivery
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/subscriptions/{id}/test", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    request_body = Option<wire::TestInput>,
    responses((status = 202, description = "Accepted", body = wire::DeliveryAccepted)),
))]
pub(crate) async fn test_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limit = state.webhooks.options().max_payload + body::AROUND;
    let body = body::read_optional_json(&headers, body, limit).await?;
    let text = body::text_or_empty_object(&body)?;
    let json::Object(input): json::Object<wire::TestInput<'_>> =
        json::parse_borrowed(text, |text| json::fault_in::<json::Object<wire::TestInput<'_>>>(text))?;
    let event_type = input.event_type.as_deref().unwrap_or(TEST_TYPE);
    let event_type: EventType = event_type.parse().map_err(|error| Problem::invalid("event_type", error))?;
    let payload = match input.payload {
        Some(payload) => {
            json::check_depth(payload.get())?;
            Bytes::copy_from_slice(payload.get().as_bytes())
        }
        None => example(&event_type, state.webhooks.now()),
    };
    let delivery = state.webhooks.send_test(caller.tenant(), id.into(), NewEvent::new(event_type, payload)).await?;
    Ok(json::answer(StatusCode::ACCEPTED, &wire::DeliveryAccepted { delivery_id: delivery.into() }))
}

/// Send again what failed, and what was missed
///
/// Failed deliveries of the time get one more attempt; events of the time that match the subscription as it is now, and
/// have no delivery to it, get one.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/subscriptions/{id}/recover", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    request_body = wire::RecoverInput,
    responses((status = 202, description = "Accepted", body = wire::Recovered)),
))]
pub(crate) async fn recover_subscription(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, body::SMALL).await?;
    let json::Object(input): json::Object<wire::RecoverInput> = json::parse(body::text(&body)?)?;
    let since = input.since.0;
    // Exclusive: one tick later, so that what was accepted in this very millisecond belongs to it.
    let until = input.until.map_or_else(|| state.webhooks.now() + Duration::from_millis(1), |time| time.0);
    if until < since {
        return Err(Problem::invalid("until", "not before since"));
    }
    let count = state.webhooks.recover(caller.tenant(), id.into(), since, until).await?;
    Ok(json::answer(StatusCode::ACCEPTED, &wire::Recovered { count }))
}

/// List the attempts that went to a subscription
///
/// A page ends early, with a `next_cursor`, when it has more than 4 MiB; with `offset` or `page` further responses are cut,
/// which `response_truncated` says.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/subscriptions/{id}/attempts", tag = "Subscriptions", params(("id" = wire::Id, Path)),
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::Attempt>)),
))]
pub(crate) async fn list_subscription_attempts(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    query.finish()?;
    let mut answer = PageWriter::new(paging);
    while let Some(wanted) = answer.wanted(AT_ONCE) {
        let page = state.webhooks.attempts(caller.tenant(), id.into(), wanted).await?;
        answer.write(page, |attempt| attempt.id.as_uuid(), wire::Attempt::cut_to)?;
    }
    answer.finish()
}

/// List the deliveries to a subscription
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/subscriptions/{id}/deliveries", tag = "Subscriptions", params(
        ("id" = wire::Id, Path),
        ("state" = Option<String>, Query, description = "pending, delivered, exhausted or cancelled"),
        ("since" = Option<wire::Time>, Query, description = "Created from this time on"),
    ),
    responses((status = 200, description = "A page, newest first", body = wire::List<wire::Delivery>)),
))]
pub(crate) async fn list_subscription_deliveries(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    PathId(id): PathId,
    mut query: Query,
) -> Result<Response, Problem> {
    let paging = query.paging();
    let mut filter =
        DeliveryFilter { state: query.get("state"), since: query.time("since"), ..DeliveryFilter::default() };
    query.finish()?;
    let subscription = state.webhooks.subscription(caller.tenant(), id.into()).await?;
    filter.subscription = Some(subscription.id);
    let page = state.webhooks.deliveries(caller.tenant(), &filter, paging.request).await?;
    Ok(json::answer(StatusCode::OK, &paging.answer(page, |item| item.delivery.id.as_uuid(), wire::Delivery::from)))
}

/// The payload of a test, in the form that Standard Webhooks recommends.
fn example(event_type: &EventType, now: Timestamp) -> Bytes {
    let message = "This is a test delivery.";
    let payload = serde_json::json!({ "type": event_type, "timestamp": now, "data": { "message": message } });
    payload.to_string().into()
}
