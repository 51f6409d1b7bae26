//! Receiving.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::json;
use webhook_core::verify::{Inbound, Verifier as _};
use webhook_core::{Clock as _, SystemClock};

use super::App;
use crate::database::Inserted;
use crate::message::Message;
use crate::refusal::Refusal;
use crate::request_log::Outcome;

/// Bytes of a body at most: more than the longest text needs, however it is escaped.
const MAX_BODY: usize = 1024 * 1024;

const FIGURE: &str = "webhook_requests_total";

/// All results are there from the start, so that the first one of a kind is seen as a change.
pub(super) fn start_figures() {
    for result in ["created", "duplicate", "invalid_signature", "invalid"] {
        metrics::counter!(FIGURE, "result" => result).absolute(0);
    }
}

/// Checks the signature of the bytes as they came, and only then looks at what they mean.
pub(super) async fn receive(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(failure) = app.verifier.verify(&Inbound::new(&parts.headers, &body), SystemClock.now()) {
        tracing::info!(%failure, "a message was not believed");
        return finish("invalid_signature", None, Refusal::Unverified);
    }
    let message = match Message::parse(&body) {
        Ok(message) => message,
        Err(invalid) => return finish("invalid", None, Refusal::Invalid(invalid)),
    };
    let id = message.message_id.clone();
    let accepted = Json(json!({ "status": "ok" }));
    match app.database.insert(message).await {
        Ok(Inserted::Created) => finish("created", Some(id), accepted),
        Ok(Inserted::Duplicate) => finish("duplicate", Some(id), accepted),
        Err(error) => Refusal::from(error).into_response(),
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Err(_) => Err(Refusal::Incomplete),
    }
}

/// Counts the result, and leaves it to the log.
fn finish(result: &'static str, message_id: Option<String>, answer: impl IntoResponse) -> Response {
    metrics::counter!(FIGURE, "result" => result).increment(1);
    (Extension(Outcome { result, message_id }), answer).into_response()
}
