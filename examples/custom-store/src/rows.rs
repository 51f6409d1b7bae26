//! Rows as the journal has them. The types of `webhook-core` say nothing about how they are stored; these do.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webhook_core::store::StoredKey;
use webhook_core::{
    Attempt, AttemptFailure, AttemptId, Delivery, DeliveryId, DeliveryState, DisabledReason, ErrorKind, Event, EventId,
    EventType, Generation, Reason, Sealed, SubscriptionId, SubscriptionRecord, SubscriptionSettings, Target, TargetId,
    TenantId, Timestamp,
};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SubscriptionRow {
    pub(crate) id: SubscriptionId,
    pub(crate) tenant: TenantId,
    pub(crate) version: Generation,
    pub(crate) disabled: Option<DisabledReason>,
    pub(crate) settings: SubscriptionSettings,
    pub(crate) secrets: Vec<u8>,
    pub(crate) paused_until: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) deleted: bool,
}

impl SubscriptionRow {
    pub(crate) fn record(&self) -> SubscriptionRecord {
        let secrets = Sealed::from_bytes(self.secrets.clone());
        let mut record =
            SubscriptionRecord::new(self.id, self.tenant.clone(), self.settings.clone(), secrets, self.created_at);
        record.version = self.version;
        record.disabled = self.disabled.clone();
        record.paused_until = self.paused_until;
        record.updated_at = self.updated_at;
        record
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EventRow {
    pub(crate) id: EventId,
    pub(crate) tenant: TenantId,
    pub(crate) event_type: Option<EventType>,
    content_type: String,
    payload: Bytes,
    metadata: Option<Value>,
    pub(crate) direct: bool,
    pub(crate) created_at: Timestamp,
    /// How many deliveries it was given when it was accepted.
    pub(crate) given: u32,
}

impl EventRow {
    pub(crate) fn new(event: &Event, given: u32) -> Self {
        Self {
            id: event.id,
            tenant: event.tenant.clone(),
            event_type: event.event_type.clone(),
            content_type: event.content_type.clone(),
            payload: event.payload.clone(),
            metadata: event.metadata.clone(),
            direct: event.direct,
            created_at: event.created_at,
            given,
        }
    }

    pub(crate) fn event(&self) -> Event {
        let mut event = Event::new(self.id, self.tenant.clone(), self.created_at);
        event.event_type = self.event_type.clone();
        event.content_type = self.content_type.clone();
        event.payload = self.payload.clone();
        event.metadata = self.metadata.clone();
        event.direct = self.direct;
        event
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX)
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum TargetRow {
    Subscription(SubscriptionId),
    AdHoc { key: TargetId, sealed: Vec<u8> },
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct DeliveryRow {
    pub(crate) id: DeliveryId,
    pub(crate) tenant: TenantId,
    pub(crate) event: EventId,
    pub(crate) target: TargetRow,
    pub(crate) state: DeliveryState,
    pub(crate) reason: Option<Reason>,
    pub(crate) next_at: Timestamp,
    pub(crate) token: Option<i64>,
    pub(crate) reopened: Option<(DeliveryState, Option<Reason>)>,
    pub(crate) attempts: u32,
    pub(crate) lost_leases: u32,
    pub(crate) last_status_code: Option<u16>,
    pub(crate) last_error: Option<ErrorKind>,
    pub(crate) created_at: Timestamp,
    pub(crate) last_attempt_at: Option<Timestamp>,
    pub(crate) completed_at: Option<Timestamp>,
}

impl DeliveryRow {
    pub(crate) fn new(id: DeliveryId, tenant: TenantId, event: EventId, target: &Target, now: Timestamp) -> Self {
        let target = match target {
            Target::AdHoc { key, sealed } => TargetRow::AdHoc { key: *key, sealed: sealed.as_bytes().to_vec() },
            other => TargetRow::Subscription(SubscriptionId::from_uuid(other.id().as_uuid())),
        };
        Self {
            id,
            tenant,
            event,
            target,
            state: DeliveryState::Pending,
            reason: None,
            next_at: now,
            token: None,
            reopened: None,
            attempts: 0,
            lost_leases: 0,
            last_status_code: None,
            last_error: None,
            created_at: now,
            last_attempt_at: None,
            completed_at: None,
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.state == DeliveryState::Pending
    }

    pub(crate) fn target(&self) -> Target {
        match &self.target {
            TargetRow::Subscription(id) => Target::Subscription(*id),
            TargetRow::AdHoc { key, sealed } => Target::AdHoc { key: *key, sealed: Sealed::from_bytes(sealed.clone()) },
        }
    }

    pub(crate) fn target_id(&self) -> TargetId {
        match &self.target {
            TargetRow::Subscription(id) => (*id).into(),
            TargetRow::AdHoc { key, .. } => *key,
        }
    }

    pub(crate) fn subscription(&self) -> Option<SubscriptionId> {
        match &self.target {
            TargetRow::Subscription(id) => Some(*id),
            TargetRow::AdHoc { .. } => None,
        }
    }

    /// The same delivery, ended.
    pub(crate) fn ended(mut self, state: DeliveryState, reason: Option<Reason>, now: Timestamp) -> Self {
        (self.state, self.reason, self.completed_at) = (state, reason, Some(now));
        (self.token, self.reopened) = (None, None);
        self
    }

    pub(crate) fn delivery(&self, event_type: Option<EventType>, held: bool) -> Delivery {
        let mut delivery = Delivery::new(self.id, self.tenant.clone(), self.event, self.created_at);
        delivery.event_type = event_type;
        delivery.subscription_id = self.subscription();
        delivery.state = self.state;
        delivery.reason = self.reason;
        delivery.next_at = self.next_at;
        delivery.leased = self.token.is_some();
        delivery.held = held;
        delivery.attempts = self.attempts;
        delivery.lost_leases = self.lost_leases;
        delivery.last_status_code = self.last_status_code;
        delivery.last_error = self.last_error;
        delivery.last_attempt_at = self.last_attempt_at;
        delivery.completed_at = self.completed_at;
        delivery
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AttemptRow {
    pub(crate) id: AttemptId,
    pub(crate) tenant: TenantId,
    pub(crate) delivery: DeliveryId,
    pub(crate) subscription: Option<SubscriptionId>,
    pub(crate) event: EventId,
    event_type: Option<EventType>,
    target_url: String,
    pub(crate) number: u32,
    pub(crate) started_at: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) failure: Option<(ErrorKind, String)>,
    will_retry: bool,
    pub(crate) status_code: Option<u16>,
    request_headers: Vec<(String, String)>,
    response_headers: Vec<(String, String)>,
    response_body: Bytes,
    response_truncated: bool,
}

impl AttemptRow {
    pub(crate) fn new(attempt: &Attempt) -> Self {
        Self {
            id: attempt.id,
            tenant: attempt.tenant.clone(),
            delivery: attempt.delivery_id,
            subscription: attempt.subscription_id,
            event: attempt.event_id,
            event_type: attempt.event_type.clone(),
            target_url: attempt.target_url.clone(),
            number: attempt.number,
            started_at: attempt.started_at,
            duration: attempt.duration,
            failure: attempt.failure.as_ref().map(|failure| (failure.kind, failure.message.clone())),
            will_retry: attempt.will_retry,
            status_code: attempt.status_code,
            request_headers: attempt.request_headers.clone(),
            response_headers: attempt.response_headers.clone(),
            response_body: attempt.response_body.clone(),
            response_truncated: attempt.response_truncated,
        }
    }

    pub(crate) fn attempt(&self) -> Attempt {
        let mut attempt = Attempt::new(self.id, self.tenant.clone(), self.delivery, self.event, self.started_at);
        attempt.subscription_id = self.subscription;
        attempt.event_type = self.event_type.clone();
        attempt.target_url = self.target_url.clone();
        attempt.number = self.number;
        attempt.duration = self.duration;
        attempt.failure = self.failure.as_ref().map(|(kind, message)| AttemptFailure::new(*kind, message.clone()));
        attempt.will_retry = self.will_retry;
        attempt.status_code = self.status_code;
        attempt.request_headers = self.request_headers.clone();
        attempt.response_headers = self.response_headers.clone();
        attempt.response_body = self.response_body.clone();
        attempt.response_truncated = self.response_truncated;
        attempt
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    pub(crate) tenant: TenantId,
    pub(crate) scope: String,
    pub(crate) key: String,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) answer: Vec<u8>,
    pub(crate) expires_at: Timestamp,
}

impl From<StoredKey> for KeyRow {
    fn from(key: StoredKey) -> Self {
        let StoredKey { tenant, scope, key, fingerprint, answer, expires_at } = key;
        Self { tenant, scope, key, fingerprint, answer, expires_at }
    }
}

impl From<KeyRow> for StoredKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { tenant, scope, key, fingerprint, answer, expires_at } = row;
        Self { tenant, scope, key, fingerprint, answer, expires_at }
    }
}
