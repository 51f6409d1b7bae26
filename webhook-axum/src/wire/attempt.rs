//! Attempts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use webhook_core::EventType;

use super::{Id, Time};

/// One HTTP try of a delivery.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Attempt {
    /// Its id.
    id: Id,
    /// Its delivery.
    delivery_id: Id,
    /// The subscription it went to; none for a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_id: Option<Id>,
    /// The event it carried.
    event_id: Id,
    /// The event's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    event_type: Option<EventType>,
    /// The URL it went to.
    target_url: String,
    /// 1 for the first attempt of its delivery.
    number: u32,
    /// When it started.
    started_at: Time,
    /// How long it took.
    duration_ms: u64,
    /// `success` or `failure`.
    outcome: &'static str,
    /// Another attempt follows.
    will_retry: bool,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    /// How it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<AttemptError>,
    /// What was sent, secrets and signatures redacted. The values of a name that came more than once are joined by `, `.
    request_headers: BTreeMap<String, String>,
    /// What came back.
    response_headers: BTreeMap<String, String>,
    /// The first bytes of the answer's body.
    response_body: String,
    /// How `response_body` is written: `utf8` or `base64`.
    response_body_encoding: &'static str,
    /// The answer's body had more bytes.
    response_truncated: bool,
}

/// How an attempt failed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct AttemptError {
    /// `connect`, `dns`, `tls`, `timeout`, `status`, `redirect`, `blocked` or `protocol`.
    kind: &'static str,
    /// What went wrong, for people.
    message: String,
}

impl Attempt {
    /// With at most `room` bytes of its response.
    pub(crate) fn cut_to(mut attempt: webhook_core::Attempt, room: usize) -> Self {
        attempt.response_truncated |= attempt.response_body.len() > room;
        attempt.response_body.truncate(room);
        attempt.into()
    }
}

impl From<webhook_core::Attempt> for Attempt {
    fn from(attempt: webhook_core::Attempt) -> Self {
        let (response_body, response_body_encoding) = match std::str::from_utf8(&attempt.response_body) {
            Ok(text) => (text.to_owned(), "utf8"),
            // The cut may have gone through the last character.
            Err(error) if attempt.response_truncated && error.error_len().is_none() => {
                let whole = attempt.response_body.get(..error.valid_up_to()).unwrap_or_default();
                (String::from_utf8_lossy(whole).into_owned(), "utf8")
            }
            Err(_) => (STANDARD.encode(&attempt.response_body), "base64"),
        };
        let outcome = if attempt.failure.is_none() { "success" } else { "failure" };
        let error = attempt.failure.map(|error| AttemptError { kind: error.kind.as_str(), message: error.message });
        Self {
            id: attempt.id.into(),
            delivery_id: attempt.delivery_id.into(),
            subscription_id: attempt.subscription_id.map(Into::into),
            event_id: attempt.event_id.into(),
            event_type: attempt.event_type,
            target_url: attempt.target_url,
            number: attempt.number,
            started_at: attempt.started_at.into(),
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            outcome,
            will_retry: attempt.will_retry,
            status_code: attempt.status_code,
            error,
            request_headers: by_name(attempt.request_headers),
            response_headers: by_name(attempt.response_headers),
            response_body,
            response_body_encoding,
            response_truncated: attempt.response_truncated,
        }
    }
}

fn by_name(headers: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        match named.get_mut(&name) {
            Some(present) => {
                present.push_str(", ");
                present.push_str(&value);
            }
            None => drop(named.insert(name, value)),
        }
    }
    named
}
