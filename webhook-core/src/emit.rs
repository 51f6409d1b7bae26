//! Events on their way in: what a host gives, and the emitter that accepts them.

mod emitter;
mod prepared;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub(crate) use emitter::Emitter;
pub use prepared::Prepared;
pub(crate) use prepared::{open_ad_hoc, own_key};

use crate::context::Context;
use crate::store::ItemOutcome;
use crate::{
    Conflict, DeliveryId, Error, EventId, EventReceipt, EventType, Invalid, Secret, Source, SubscriptionId, Timestamp,
};

const MAX_KEY: usize = 255;
const MAX_METADATA: usize = 16 * 1024;

/// An event to emit. Its payload bytes are stored, signed and sent as they are given.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewEvent {
    /// What happened; matching needs it, direct events may go without.
    pub event_type: Option<EventType>,
    /// The exact bytes.
    pub payload: Bytes,
    /// Their media type: `application/json` unless set.
    pub content_type: String,
    /// The caller's own id for this event, 1 to 255 visible ASCII characters without `.`: acts as an idempotency key.
    pub key: Option<String>,
    /// The key of the call that emits it, 1 to 255 visible ASCII characters: an idempotency key too.
    pub idempotency_key: Option<String>,
    /// The caller's own notes, at most 16 KiB of JSON; never sent.
    pub metadata: Option<serde_json::Value>,
}

impl NewEvent {
    /// An event with this payload, sent as `application/json`.
    pub fn new(event_type: EventType, payload: impl Into<Bytes>) -> Self {
        Self { event_type: Some(event_type), ..Self::untyped(payload) }
    }

    /// An event without a type, for direct targets.
    pub fn untyped(payload: impl Into<Bytes>) -> Self {
        Self {
            event_type: None,
            payload: payload.into(),
            content_type: "application/json".to_owned(),
            key: None,
            idempotency_key: None,
            metadata: None,
        }
    }

    /// An event whose payload is `value` as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the type is no event type, or the value has no JSON form.
    pub fn json(event_type: &str, value: &impl Serialize) -> Result<Self, Error> {
        let event_type = event_type.parse().map_err(|error| Error::invalid("event_type", error))?;
        let payload = serde_json::to_vec(value).map_err(|error| Error::invalid("payload", error))?;
        Ok(Self::new(event_type, payload))
    }

    /// With the caller's own id.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With this media type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    pub(crate) fn check(&self, context: &Context) -> Result<(), Error> {
        let limit = context.options.max_payload;
        if self.payload.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        let mut invalid = Invalid::new();
        let visible = |key: &str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if self.key.as_ref().is_some_and(|key| key.is_empty() || key.chars().count() > MAX_KEY || key.contains('.')) {
            invalid.push("id", format!("1 to {MAX_KEY} characters without '.'"));
        }
        if self.idempotency_key.as_ref().is_some_and(|key| !visible(key)) {
            invalid.push("Idempotency-Key", format!("1 to {MAX_KEY} visible ASCII characters"));
        }
        if http::HeaderValue::try_from(&self.content_type).is_err() {
            invalid.push("content_type", "not a media type");
        }
        let metadata = self.metadata.as_ref().and_then(|metadata| serde_json::to_vec(metadata).ok());
        if metadata.is_some_and(|metadata| metadata.len() > MAX_METADATA) {
            invalid.push("metadata", format!("at most {MAX_METADATA} bytes of JSON"));
        }
        Ok(invalid.into_result()?)
    }

    /// SHA-256 of all that makes it this event and no other.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let metadata = self.metadata.as_ref().map(ToString::to_string).unwrap_or_default();
        let event_type = self.event_type.as_ref().map_or("", EventType::as_str);
        for part in [event_type.as_bytes(), self.content_type.as_bytes(), metadata.as_bytes(), &self.payload] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// An accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Emitted {
    /// Its id.
    pub id: EventId,
    /// What happened.
    pub event_type: Option<EventType>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How many deliveries it was given.
    pub deliveries: u32,
    /// The delivery, when there is exactly one.
    pub delivery: Option<DeliveryId>,
    /// Its key was used before with the same content: this is what was accepted then.
    pub duplicate: bool,
}

impl Emitted {
    fn new(receipt: EventReceipt, duplicate: bool) -> Self {
        Self {
            id: receipt.id,
            event_type: receipt.event_type,
            created_at: receipt.created_at,
            deliveries: receipt.deliveries,
            delivery: receipt.delivery,
            duplicate,
        }
    }
}

/// What a store says of one event, as its caller wants to know it.
impl TryFrom<ItemOutcome> for Emitted {
    type Error = Error;

    /// # Errors
    ///
    /// [`Conflict::KeyReused`] when the event's key was used before with another body.
    fn try_from(outcome: ItemOutcome) -> Result<Self, Error> {
        match outcome {
            ItemOutcome::Created(receipt) => Ok(Self::new(receipt, false)),
            ItemOutcome::Duplicate(receipt) => Ok(Self::new(receipt, true)),
            ItemOutcome::Conflict => Err(Conflict::KeyReused.into()),
        }
    }
}

/// What a direct event goes to, instead of being matched.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DirectTarget {
    /// A subscription of the tenant.
    Subscription(SubscriptionId),
    /// One target of its own, sealed with the delivery.
    AdHoc(AdHocTarget),
    /// The handler of that source: [`WebhooksBuilder::inbox`](crate::WebhooksBuilder::inbox).
    Handler(Source),
}

/// A target that is no subscription: what a replay goes to.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct AdHocTarget {
    /// The URL.
    pub url: String,
    /// The HTTP method.
    pub method: String,
    /// The headers, in order; the engine adds its own.
    pub headers: Vec<(String, Secret)>,
    /// Signs the request by the `standard` scheme; none sends it unsigned.
    pub secret: Option<Secret>,
}

impl AdHocTarget {
    /// An unsigned POST to `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), method: "POST".to_owned(), headers: Vec::new(), secret: None }
    }
}
