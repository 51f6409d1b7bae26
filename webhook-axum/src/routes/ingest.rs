//! Requests from elsewhere, for one subscription.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use webhook_core::{DirectTarget, Error, EventType, NewEvent, Secret, SubscriptionId, TenantId, verify_ingest};

use crate::api::ApiState;
use crate::auth::Scopes;
use crate::extract::{IdempotencyKey, PathId, authenticate};
use crate::problem::Problem;
use crate::{body, json, wire};

const OCTET_STREAM: &str = "application/octet-stream";
const X_EVENT_TYPE: &str = "X-Event-Type";

/// Ingest a request for a subscription
///
/// The body is delivered as it is, with its content type; the subscription's patterns are not consulted. Where the
/// subscription has an ingest secret, a signature over the body is the credential: `X-Webhook-Signature-256:
/// sha256=<hex>`, `X-Signature: <hex>` or Standard Webhooks headers.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/ingest/{id}", tag = "Ingest", params(
        ("id" = wire::Id, Path, description = "The subscription"),
        ("X-Event-Type" = Option<String>, Header, description = "What happened"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours gives the first answer"),
    ),
    request_body(content = wire::RawBody, content_type = "*/*"),
    responses((status = 202, description = "Accepted", body = wire::Ingested)),
    security(("api_key" = []), ()),
))]
pub(crate) async fn ingest(State(state): State<Arc<ApiState>>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let id = PathId::from_request_parts(&mut parts, &state).await;
    let limit = state.webhooks.options().max_payload;
    let (subscription, owner) = match id {
        Ok(PathId(id)) => (Ok(SubscriptionId::from(id)), owner(&state, id.into()).await?),
        Err(problem) => (Err(problem), None),
    };
    let (tenant, subscription, body) = match (owner, subscription) {
        (Some((tenant, Some(secret))), Ok(subscription)) => {
            let body = body::read(&parts.headers, body, limit).await?;
            verify(&state, &secret, &parts.headers, &body)?;
            (tenant, subscription, body)
        }
        (owner, subscription) => {
            let caller = authenticate(&parts, &state, Scopes::WRITE).await?;
            let subscription = subscription?;
            if owner.is_none_or(|(tenant, _)| tenant != caller.tenant) {
                return Err(Error::NotFound(webhook_core::Noun::Subscription).into());
            }
            (caller.tenant, subscription, body::read(&parts.headers, body, limit).await?)
        }
    };
    let event = event(&parts.headers, body)?;
    let emitted = state.webhooks.emit_direct(&tenant, event, DirectTarget::Subscription(subscription)).await?;
    let delivery = emitted.delivery.ok_or_else(Problem::internal)?;
    let answer = wire::Ingested { webhook_id: delivery.into(), event_id: emitted.id.into() };
    Ok(json::answer(StatusCode::ACCEPTED, &answer))
}

/// Whose subscription that is, with its ingest secret; none when it is unknown.
async fn owner(state: &ApiState, id: SubscriptionId) -> Result<Option<(TenantId, Option<Secret>)>, Problem> {
    match state.webhooks.ingest_owner(id).await {
        Ok(owner) => Ok(Some(owner)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whoever sent it learns no more than that it was refused; the reason is in the log.
fn verify(state: &ApiState, secret: &Secret, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    verify_ingest(secret, headers, body, state.webhooks.now()).map_err(|error| {
        tracing::info!(%error, "an ingested request was refused");
        Problem::unauthorized("invalid_signature", "the signature does not hold")
    })
}

fn event(headers: &HeaderMap, body: Bytes) -> Result<NewEvent, Problem> {
    let mut event = NewEvent::untyped(body);
    event.idempotency_key = IdempotencyKey::of(headers)?.0;
    event.content_type = match headers.get(CONTENT_TYPE).map(http::HeaderValue::to_str) {
        None => OCTET_STREAM.to_owned(),
        Some(Ok(content_type)) => content_type.to_owned(),
        Some(Err(_)) => return Err(Problem::invalid("Content-Type", "not visible ASCII")),
    };
    event.event_type = match headers.get(X_EVENT_TYPE) {
        None => None,
        Some(value) => Some(event_type(value.to_str().unwrap_or_default())?),
    };
    Ok(event)
}

fn event_type(text: &str) -> Result<EventType, Problem> {
    text.parse().map_err(|error| Problem::invalid(X_EVENT_TYPE, error))
}
