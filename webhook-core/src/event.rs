//! Accepted messages and what they are sent to.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{DeliveryId, EventId, EventType, Sealed, SubscriptionId, TargetId, TenantId, Timestamp};

/// One accepted message. Immutable; its payload bytes are what is signed and sent, never re-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Its id, which is also the `webhook-id` of all its attempts.
    pub id: EventId,
    /// Whose event this is.
    pub tenant: TenantId,
    /// What happened; direct events may have none.
    pub event_type: Option<EventType>,
    /// The `Content-Type` its attempts carry; none when it is empty.
    pub content_type: String,
    /// The exact bytes that were accepted.
    pub payload: Bytes,
    /// The caller's own notes, a JSON object; never sent.
    pub metadata: Option<serde_json::Value>,
    /// It was sent to one given target instead of being matched.
    pub direct: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
}

impl Event {
    /// An event with an empty JSON payload and no metadata; set the public fields to change it.
    pub fn new(id: EventId, tenant: TenantId, created_at: Timestamp) -> Self {
        Self {
            id,
            tenant,
            event_type: None,
            content_type: "application/json".to_owned(),
            payload: Bytes::new(),
            metadata: None,
            direct: false,
            created_at,
        }
    }
}

/// An event as lists show it: without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventSummary {
    /// Its id.
    pub id: EventId,
    /// What happened; direct events may have none.
    pub event_type: Option<EventType>,
    /// The caller's own notes.
    pub metadata: Option<serde_json::Value>,
    /// The length of its payload in bytes.
    pub payload_bytes: u64,
    /// How many deliveries it was given when it was accepted.
    pub deliveries: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
}

impl EventSummary {
    /// A summary of `event`, accepted with `deliveries` deliveries.
    pub fn of(event: &Event, deliveries: u32) -> Self {
        Self {
            id: event.id,
            event_type: event.event_type.clone(),
            metadata: event.metadata.clone(),
            payload_bytes: event.payload.len() as u64,
            deliveries,
            created_at: event.created_at,
        }
    }
}

/// What a delivery goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A subscription of the tenant.
    Subscription(SubscriptionId),
    /// One target of its own: URL, method, headers and secret, sealed.
    AdHoc {
        /// Deliveries with the same key share fairness and limits.
        key: TargetId,
        /// The sealed target.
        sealed: Sealed,
    },
}

impl Target {
    /// The key under which fairness, limits and hints count.
    pub fn id(&self) -> TargetId {
        match self {
            Self::Subscription(id) => (*id).into(),
            Self::AdHoc { key, .. } => *key,
        }
    }

    /// The subscription, where it is one.
    pub fn subscription(&self) -> Option<SubscriptionId> {
        match self {
            Self::Subscription(id) => Some(*id),
            Self::AdHoc { .. } => None,
        }
    }
}

/// The answer to an accepted event; kept with its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventReceipt {
    /// The event's id.
    pub id: EventId,
    /// What happened.
    pub event_type: Option<EventType>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How many deliveries it was given.
    pub deliveries: u32,
    /// The delivery of a direct event.
    pub delivery: Option<DeliveryId>,
}

impl EventReceipt {
    /// The receipt of `event`, accepted with these deliveries.
    pub fn of(event: &Event, deliveries: &[crate::store::NewDelivery]) -> Self {
        Self {
            id: event.id,
            event_type: event.event_type.clone(),
            created_at: event.created_at,
            deliveries: u32::try_from(deliveries.len()).unwrap_or(u32::MAX),
            delivery: match deliveries {
                [only] => Some(only.id),
                _ => None,
            },
        }
    }
}
