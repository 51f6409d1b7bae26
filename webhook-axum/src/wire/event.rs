//! Events.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use webhook_core::{Emitted, Invalid, NewEvent};

use super::{Delivery, Id, Time};
use crate::json::{Distinct, Unique, check_depth, has_nul};
use crate::problem::{Problem, ProblemDocument};

const MAX_ID: usize = 255;
const MAX_METADATA: usize = 16 * 1024;
/// A payload of fewer bytes is copied out of its request's body.
const WORTH_SHARING: usize = 4096;

/// An event to send.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct EventInput<'a> {
    /// What happened, such as `order.created`.
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    /// Any JSON. Its bytes as they are sent here are signed and delivered.
    #[serde(borrow)]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    payload: &'a RawValue,
    /// The caller's own key for this event: 1 to 255 characters without `.`. A repeat creates nothing.
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    /// The caller's own notes, at most 16 KiB; never sent.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    metadata: Option<Unique<Distinct>>,
}

impl EventInput<'_> {
    /// The event; its payload shares the memory of `body`, which it was read from, where that is worth it.
    pub(crate) fn into_event(self, body: &Bytes, max_payload: usize) -> Result<NewEvent, Problem> {
        let payload = self.payload.get();
        if payload.len() > max_payload {
            return Err(Problem::too_large(max_payload));
        }
        check_depth(payload)?;
        let mut invalid = Invalid::new();
        let event_type = self.event_type.parse().map_err(|error| invalid.push("event_type", error)).ok();
        let metadata = self
            .metadata
            .map(|metadata| Value::Object(metadata.0.into_iter().map(|(name, value)| (name, value.0)).collect()));
        if let Some(metadata) = &metadata {
            if has_nul(metadata) {
                invalid.push("metadata", "has a NUL character");
            }
            if serde_json::to_vec(metadata).map_or(usize::MAX, |json| json.len()) > MAX_METADATA {
                invalid.push("metadata", format!("at most {MAX_METADATA} bytes of JSON"));
            }
        }
        if self.id.as_ref().is_some_and(|id| {
            !(1..=MAX_ID).contains(&id.chars().count()) || id.contains('.') || id.chars().any(char::is_control)
        }) {
            invalid.push("id", format!("1 to {MAX_ID} characters without '.' and control characters"));
        }
        invalid.into_result()?;
        let payload = payload.as_bytes();
        let share = payload.len() >= WORTH_SHARING && payload.len() >= body.len() / 2;
        let payload = if share { body.slice_ref(payload) } else { Bytes::copy_from_slice(payload) };
        let mut event = NewEvent::untyped(payload);
        event.event_type = event_type;
        event.key = self.id.map(Cow::into_owned);
        event.metadata = metadata;
        Ok(event)
    }
}

/// An accepted event.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct EventReceipt {
    /// Its id.
    id: Id,
    /// What happened.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    event_type: Option<webhook_core::EventType>,
    /// When it was accepted.
    created_at: Time,
    /// How many deliveries it was given.
    deliveries: u32,
    /// Its key was used before: this is what was accepted then.
    duplicate: bool,
}

impl From<Emitted> for EventReceipt {
    fn from(emitted: Emitted) -> Self {
        Self {
            id: emitted.id.into(),
            event_type: emitted.event_type,
            created_at: emitted.created_at.into(),
            deliveries: emitted.deliveries,
            duplicate: emitted.duplicate,
        }
    }
}

/// The answers to a batch, in its order.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct BatchAnswer<'a> {
    pub(crate) data: Vec<BatchItem<'a>>,
}

/// The answer to one event of a batch: its receipt, or a problem.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) enum BatchItem<'a> {
    Accepted {
        /// 202.
        status: u16,
        #[serde(flatten)]
        event: EventReceipt,
    },
    Refused {
        /// The status that the event alone would have been answered with.
        status: u16,
        #[cfg_attr(feature = "openapi", schema(inline = false))]
        problem: ProblemDocument<'a>,
    },
}

/// An event without its payload.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct EventSummary {
    /// Its id.
    id: Id,
    /// What happened; what came in through ingest may have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    event_type: Option<webhook_core::EventType>,
    /// The caller's own notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    metadata: Option<Value>,
    /// The length of its payload.
    payload_bytes: u64,
    /// How many deliveries it was given when it was accepted.
    deliveries: u32,
    /// When it was accepted.
    created_at: Time,
}

impl From<webhook_core::EventSummary> for EventSummary {
    fn from(event: webhook_core::EventSummary) -> Self {
        Self {
            id: event.id.into(),
            event_type: event.event_type,
            metadata: event.metadata,
            payload_bytes: event.payload_bytes,
            deliveries: event.deliveries,
            created_at: event.created_at.into(),
        }
    }
}

/// An event with its payload: as JSON where it is JSON alone, otherwise in base64.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Event<'a> {
    #[serde(flatten)]
    summary: EventSummary,
    /// The media type of its payload.
    content_type: &'a str,
    /// The payload, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    payload: Option<&'a RawValue>,
    /// The payload in base64, where it is not JSON or has space around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> Event<'a> {
    pub(crate) fn of(event: &'a webhook_core::Event, deliveries: u32) -> Self {
        let payload = std::str::from_utf8(&event.payload).ok().and_then(|text| {
            serde_json::from_str::<&RawValue>(text).ok().filter(|json| json.get().len() == event.payload.len())
        });
        Self {
            summary: webhook_core::EventSummary::of(event, deliveries).into(),
            content_type: &event.content_type,
            payload,
            payload_base64: payload.is_none().then(|| STANDARD.encode(&event.payload)),
        }
    }
}

/// How an event fares.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct EventStatus {
    pub(crate) event: EventSummary,
    /// `no_subscribers`, `pending`, `delivered`, `partially_delivered` or `failed`.
    pub(crate) status: &'static str,
    pub(crate) deliveries: Vec<Delivery>,
}
