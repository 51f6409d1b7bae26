//! Following a capture path: streams, and waiting for one request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use http::{HeaderMap, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use webhook_core::{CaptureId, CaptureWatch, Error, WatchEvent};

use super::captured::{LISTED_BODY, credentials_of, filter};
use crate::api::ApiState;
use crate::extract::{CapturePathId, Reader};
use crate::problem::Problem;
use crate::query::Query;
use crate::readiness::Readiness;
use crate::wire::{Body, Credentials, Show};
use crate::{json, wire};

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// After the store has failed, before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// Follow a capture path
///
/// Server-sent events: for each request one named `request`, with its id and the request as lists show it. One named
/// `gap` says that requests came which are gone. `Last-Event-ID` goes on after that request; the stream ends when the
/// server stops or the path is deleted.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/stream", tag = "Capturing", params(
        ("path_id" = String, Path),
        ("Last-Event-ID" = Option<wire::Id>, Header, description = "The last request that was seen"),
        ("mask" = Option<bool>, Query, description = "Hides the values of headers that are credentials"),
    ),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream")),
))]
pub(crate) async fn stream_captured_requests(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let credentials = credentials_of(&mut query);
    query.finish()?;
    let last = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let last = last.map(|value| value.to_str().ok().and_then(|text| text.parse::<wire::Id>().ok()));
    let after = match last {
        Some(Some(id)) => Some(CaptureId::from(id)),
        Some(None) => return Err(Problem::invalid(LAST_EVENT_ID, "not the id of a request")),
        None => None,
    };
    let place = place(&state.followers)?;
    let watch = state.webhooks.watch(caller.tenant(), &path_id, after).await?;
    let events = events(watch, credentials, state.readiness.clone(), place);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Wait for a request
///
/// The next request from now on that matches, with all of its body that is kept.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/paths/{path_id}/wait", tag = "Capturing", params(
        ("path_id" = String, Path),
        ("method" = Option<String>, Query, description = "Only this method, in any case"),
        ("q" = Option<String>, Query, description = "Only where this is in the path, the query, the headers or the body"),
        ("timeout_seconds" = Option<f64>, Query, description = "0 to 60 (default 30)"),
        ("mask" = Option<bool>, Query, description = "Hides the values of headers that are credentials"),
    ),
    responses(
        (status = 200, description = "The request", body = wire::Captured),
        (status = 204, description = "None came in time"),
    ),
))]
pub(crate) async fn wait_for_captured_request(
    State(state): State<Arc<ApiState>>,
    caller: Reader,
    CapturePathId(path_id): CapturePathId,
    mut query: Query,
) -> Result<Response, Problem> {
    let filter = filter(&mut query);
    let credentials = credentials_of(&mut query);
    let seconds: Option<f64> = query.get("timeout_seconds");
    query.finish()?;
    let patience = match seconds.map(Duration::try_from_secs_f64) {
        None => DEFAULT_WAIT,
        Some(Ok(patience)) if patience <= MAX_WAIT => patience,
        Some(_) => return Err(Problem::invalid("timeout_seconds", "0 to 60")),
    };
    let _place = place(&state.followers)?;
    let mut watch = state.webhooks.watch(caller.tenant(), &path_id, None).await?;
    let found = tokio::select! {
        found = watch.wait_for(|captured| filter.matches(captured), patience) => found?,
        () = state.readiness.stopped() => return Err(Problem::unavailable()),
    };
    Ok(match found {
        Some(captured) => {
            json::answer(StatusCode::OK, &wire::Captured::of(captured, Show { body: Body::Shown, credentials }))
        }
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

fn place(followers: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(followers).try_acquire_owned().map_err(|_| Problem::unavailable())
}

fn events(
    watch: CaptureWatch,
    credentials: Credentials,
    readiness: Readiness,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((watch, readiness, place), move |(mut watch, readiness, place)| async move {
        let event = tokio::select! {
            event = next(&mut watch, credentials) => event?,
            () = readiness.stopped() => return None,
        };
        Some((Ok(event), (watch, readiness, place)))
    })
}

/// The next event; none when the path is gone.
async fn next(watch: &mut CaptureWatch, credentials: Credentials) -> Option<Event> {
    loop {
        match watch.next().await {
            Ok(WatchEvent::Request(captured)) => {
                let id = captured.id;
                let captured = captured.cut_to(LISTED_BODY as usize);
                let shown = wire::Captured::of(captured, Show { body: Body::Shown, credentials });
                // JSON has no line breaks of its own, so this is one line whatever was captured.
                let data = serde_json::to_string(&shown).unwrap_or_default();
                return Some(Event::default().id(id.to_string()).event("request").data(data));
            }
            Ok(WatchEvent::Gap) => return Some(Event::default().event("gap").data("{}")),
            Err(Error::NotFound(_)) => return None,
            Err(error) => {
                tracing::warn!(%error, "a capture path cannot be followed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
