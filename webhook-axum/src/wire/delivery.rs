//! Deliveries.

use serde::Serialize;
use webhook_core::{DeliveryView, ErrorKind, EventType, Reason};

use super::{Attempt, Id, Time};

/// One event on its way to one target.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Delivery {
    /// Its id.
    id: Id,
    /// The event it carries.
    event_id: Id,
    /// The subscription it goes to; none for a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_id: Option<Id>,
    /// The event's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    event_type: Option<EventType>,
    /// `pending`, `delivered`, `exhausted` or `cancelled`.
    state: &'static str,
    /// Why it ended without having been delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// It is being attempted right now.
    in_flight: bool,
    /// It waits because its subscription is disabled.
    held: bool,
    /// Attempts so far.
    attempts: u32,
    /// How many the policy allows.
    max_attempts: u32,
    /// When the next one is due, while it is pending; not before its subscription's pause after a 429 or 503 ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Time>,
    /// The status that the last attempt was answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_status_code: Option<u16>,
    /// The kind of failure of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'static str>,
    /// When it was created.
    created_at: Time,
    /// When its last attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Time>,
}

impl From<DeliveryView> for Delivery {
    fn from(view: DeliveryView) -> Self {
        let delivery = view.delivery;
        Self {
            id: delivery.id.into(),
            event_id: delivery.event_id.into(),
            subscription_id: delivery.subscription_id.map(Into::into),
            event_type: delivery.event_type,
            state: delivery.state.as_str(),
            reason: delivery.reason.map(Reason::as_str),
            in_flight: view.in_flight,
            held: delivery.held,
            attempts: delivery.attempts,
            max_attempts: view.max_attempts,
            next_attempt_at: view.next_attempt_at.map(Into::into),
            last_status_code: delivery.last_status_code,
            last_error: delivery.last_error.map(ErrorKind::as_str),
            created_at: delivery.created_at.into(),
            last_attempt_at: delivery.last_attempt_at.map(Into::into),
            completed_at: delivery.completed_at.map(Into::into),
        }
    }
}

/// A delivery with its attempts, oldest first.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct DeliveryWithLog {
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
    pub(crate) attempt_log: Vec<Attempt>,
}

/// The delivery that was created or touched.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct DeliveryAccepted {
    pub(crate) delivery_id: Id,
}
