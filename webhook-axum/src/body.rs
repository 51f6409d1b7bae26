//! Reading request bodies, within limits.

use std::error::Error;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::problem::Problem;
use crate::serve::BodyDeadline;

/// Bytes of a request that configures something.
pub(crate) const SMALL: usize = 256 * 1024;
/// What the JSON around a payload may add.
pub(crate) const AROUND: usize = 64 * 1024;

/// The whole body; one that came in one piece is not copied.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Problem::too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if is::<LengthLimitError>(&*error) => Err(Problem::too_large(limit)),
        Err(error) if is::<BodyDeadline>(&*error) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body took too long to arrive"))
        }
        Err(_) => Err(Problem::bad_request("incomplete_body", "the body ended before it was complete")),
    }
}

/// The whole body of a request that must be JSON, as text.
pub(crate) async fn read_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    if !is_json(headers) {
        return Err(not_json());
    }
    read(headers, body, limit).await
}

/// The body as text: JSON is UTF-8 (RFC 8259 section 8.1).
pub(crate) fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|_| Problem::bad_request("malformed_json", "the body is not UTF-8"))
}

/// `application/json` or `application/*+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return true;
    }
    let essence = essence.to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype.len() > 5 && subtype.ends_with("+json"))
}

/// Whether an `E` is anywhere in the error.
pub(crate) fn is<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Like [`read_json`], but there may also be no body at all, whatever its announced type.
pub(crate) async fn read_optional_json(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let bytes = read(headers, body, limit).await?;
    if bytes.is_empty() || is_json(headers) { Ok(bytes) } else { Err(not_json()) }
}

/// The body as text; no body stands for an object without fields.
pub(crate) fn text_or_empty_object(body: &[u8]) -> Result<&str, Problem> {
    if body.is_empty() { Ok("{}") } else { text(body) }
}

fn not_json() -> Problem {
    let detail = "the body must be JSON, with Content-Type: application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}
