//! Many events at once.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;
use webhook_core::NewEvent;

use crate::api::ApiState;
use crate::extract::{IdempotencyKey, Writer};
use crate::json::{Object, UpTo};
use crate::problem::Problem;
use crate::request_id::RequestId;
use crate::{body, json, wire};

/// Events of one batch at most.
const MAX_EVENTS: usize = 1000;

/// Send many events
///
/// Each has an answer of its own, in order: one that is refused does not harm the others.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/events/batch", tag = "Events",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours gives the first answers")),
    request_body = Vec<wire::EventInput>,
    responses((status = 202, description = "Each with its own status", body = wire::BatchAnswer)),
))]
pub(crate) async fn create_events(
    State(state): State<Arc<ApiState>>,
    caller: Writer,
    IdempotencyKey(key): IdempotencyKey,
    id: RequestId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_json(&headers, body, state.options.max_batch_bytes).await?;
    let read = read(&body, state.webhooks.options().max_payload)?;
    let (places, events): (Vec<_>, Vec<_>) = read
        .into_iter()
        .map(|item| match item {
            Ok(event) => (Ok(()), Some(event)),
            Err(problem) => (Err(problem), None),
        })
        .unzip();
    let events: Vec<NewEvent> = events.into_iter().flatten().collect();
    let emitted = match events.is_empty() {
        true => Vec::new(),
        false => state.webhooks.emit_batch(caller.tenant(), events, key).await?,
    };
    let mut emitted = emitted.into_iter();
    let results: Vec<Result<_, Problem>> = places
        .into_iter()
        .map(|place| {
            place?;
            let result = emitted.next().ok_or_else(Problem::internal)?;
            result.map_err(Problem::from)
        })
        .collect();
    let items = results.iter().map(|result| match result {
        Ok(event) => wire::BatchItem::Accepted { status: 202, event: event.clone().into() },
        Err(problem) => {
            wire::BatchItem::Refused { status: problem.status.as_u16(), problem: problem.document(Some(&id)) }
        }
    });
    Ok(json::answer(StatusCode::ACCEPTED, &wire::BatchAnswer { data: items.collect() }))
}

/// The events of the body; only where one is wrong they are read one by one.
fn read(body: &Bytes, max_payload: usize) -> Result<Vec<Result<NewEvent, Problem>>, Problem> {
    let text = body::text(body)?;
    if let Ok(UpTo(inputs)) = serde_json::from_str::<UpTo<Object<wire::EventInput<'_>>, MAX_EVENTS>>(text) {
        return Ok(inputs.into_iter().map(|Object(input)| input.into_event(body, max_payload)).collect());
    }
    let UpTo(items): UpTo<&RawValue, MAX_EVENTS> =
        json::parse_borrowed(text, |text| json::fault_in::<UpTo<&RawValue, MAX_EVENTS>>(text))?;
    let one = |item: &RawValue| {
        let Object(input): Object<wire::EventInput<'_>> =
            json::parse_borrowed(item.get(), |text| json::fault_in::<Object<wire::EventInput<'_>>>(text))?;
        input.into_event(body, max_payload)
    };
    Ok(items.into_iter().map(one).collect())
}
