//! The HTTP request of an attempt, and what of it the attempt log shows.

use std::sync::LazyLock;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::target::LiveTarget;
use crate::{Deadlines, Event, Message, OutboundRequest, SignError, Timestamp};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const ATTEMPT: HeaderName = HeaderName::from_static("webhook-attempt");
const EVENT_TYPE: HeaderName = HeaderName::from_static("x-event-type");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("webhook/", env!("CARGO_PKG_VERSION")));
static JSON: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static("application/json"));
const REDACTED: &str = "[redacted]";
/// Header bytes of an answer that the attempt log keeps.
const RESPONSE_HEADER_BYTES: usize = 8 * 1024;

/// The request of attempt `number`, signed at `now`.
pub(super) fn outbound(
    target: &LiveTarget,
    event: &Event,
    number: u32,
    now: Timestamp,
) -> Result<OutboundRequest, SignError> {
    let mut headers = target.headers.clone();
    if event.content_type == "application/json" {
        headers.entry(CONTENT_TYPE).or_insert_with(|| JSON.clone());
    } else if !event.content_type.is_empty()
        && let Ok(value) = HeaderValue::try_from(&event.content_type)
    {
        headers.entry(CONTENT_TYPE).or_insert(value);
    }
    if let Some(event_type) = &event.event_type
        && let Ok(value) = HeaderValue::try_from(event_type.as_str())
    {
        headers.insert(EVENT_TYPE, value);
    }
    headers.insert(ATTEMPT, HeaderValue::from(number));
    headers.entry(USER_AGENT).or_insert(AGENT);
    let mut buffer = uuid::Uuid::encode_buffer();
    let id = event.id.as_uuid().hyphenated().encode_lower(&mut buffer);
    // Whatever the scheme: it is how receivers know a repeat. A replayed request may bring its own.
    if let Ok(value) = HeaderValue::try_from(&*id) {
        headers.entry(ID).or_insert(value);
    }
    if let Some(signer) = &target.signer {
        let message = Message::new(id, now, &event.payload);
        signer.sign(&message, &target.secrets.at(now), &mut headers)?;
    }
    Ok(OutboundRequest::new(target.method.clone(), target.url.clone())
        .with_headers(headers)
        .with_body(event.payload.clone())
        .with_deadlines(Deadlines::default().with_total(target.timeout)))
}

/// The headers of a request, without the values of signatures and of the target's own headers.
pub(super) fn headers_for_log(headers: &HeaderMap, target: &LiveTarget) -> Vec<(String, String)> {
    let signs = |name: &str| target.signer.as_ref().is_some_and(|signer| signer.signature_headers().contains(&name));
    let show = |(name, value): (&HeaderName, &HeaderValue)| {
        let secret = value.is_sensitive() || signs(name.as_str()) || target.headers.contains_key(name);
        let value = if secret { REDACTED.to_owned() } else { text(value) };
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(show).collect()
}

/// The headers of an answer, up to a bound; cookies are the receiver's own.
pub(super) fn response_headers_for_log(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut bytes = 0;
    let mut shown = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len();
        if bytes > RESPONSE_HEADER_BYTES {
            break;
        }
        let value = if *name == http::header::SET_COOKIE { REDACTED.to_owned() } else { text(value) };
        shown.push((name.as_str().to_owned(), value));
    }
    shown
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
