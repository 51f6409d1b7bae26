//! From rows to what core speaks of.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;
use webhook_core::store::{PathRecord, PathUsage};
use webhook_core::{
    Attempt, AttemptFailure, AttemptId, CaptureId, CapturedRequest, Delivery, DeliveryId, DeliveryState,
    DisabledReason, ErrorKind, Event, EventId, EventSummary, EventType, Generation, HeaderField, IncomingRequest,
    PathId, PathKey, PathVersion, Reason, Sealed, SubscriptionId, SubscriptionRecord, TenantId, Timestamp,
};

use crate::error::Fault;

pub(crate) fn id(row: &PgRow, column: &str) -> Result<Uuid, Fault> {
    Ok(row.try_get(column)?)
}

pub(crate) fn id_opt(row: &PgRow, column: &str) -> Result<Option<Uuid>, Fault> {
    Ok(row.try_get(column)?)
}

pub(crate) fn time(row: &PgRow, column: &str) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_millis(row.try_get(column)?))
}

pub(crate) fn time_opt(row: &PgRow, column: &str) -> Result<Option<Timestamp>, Fault> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}

pub(crate) fn count(row: &PgRow, column: &str) -> Result<u32, Fault> {
    u32::try_from(row.try_get::<i32, _>(column)?).map_err(|_| out_of_range(column))
}

pub(crate) fn big_count(row: &PgRow, column: &str) -> Result<u64, Fault> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| out_of_range(column))
}

pub(crate) fn status(row: &PgRow, column: &str) -> Result<Option<u16>, Fault> {
    let code: Option<i16> = row.try_get(column)?;
    code.map(|code| u16::try_from(code).map_err(|_| out_of_range(column))).transpose()
}

fn out_of_range(column: &str) -> Fault {
    Fault::corrupt(format!("{column} is out of range"))
}

pub(crate) fn tenant(row: &PgRow) -> Result<TenantId, Fault> {
    row.try_get::<&str, _>("tenant")?.parse().map_err(|_| Fault::corrupt("not a tenant"))
}

pub(crate) fn event_type(row: &PgRow) -> Result<Option<EventType>, Fault> {
    let text: Option<&str> = row.try_get("event_type")?;
    text.map(|text| text.parse().map_err(|_| Fault::corrupt("not an event type"))).transpose()
}

pub(crate) fn state(code: i16) -> Result<DeliveryState, Fault> {
    DeliveryState::from_code(code).ok_or_else(|| Fault::corrupt(format!("{code} is no delivery state")))
}

pub(crate) fn reason(code: Option<i16>) -> Result<Option<Reason>, Fault> {
    let known = |code| Reason::from_code(code).ok_or_else(|| Fault::corrupt(format!("{code} is no reason")));
    code.map(known).transpose()
}

fn error_kind(row: &PgRow, column: &str) -> Result<Option<ErrorKind>, Fault> {
    let name: Option<&str> = row.try_get(column)?;
    let known =
        |name| ErrorKind::from_name(name).ok_or_else(|| Fault::corrupt(format!("{name:?} is no kind of failure")));
    name.map(known).transpose()
}

/// Needs the columns of `webhook.subscription`.
pub(crate) fn subscription(row: &PgRow) -> Result<SubscriptionRecord, Fault> {
    let settings = serde_json::from_str(row.try_get("settings")?)?;
    let secrets = Sealed::from_bytes(row.try_get::<Vec<u8>, _>("secrets")?);
    let created_at = time(row, "created_at")?;
    let mut record =
        SubscriptionRecord::new(SubscriptionId::from_uuid(id(row, "id")?), tenant(row)?, settings, secrets, created_at);
    record.version = Generation::new(row.try_get("version")?);
    record.disabled = match row.try_get::<Option<&str>, _>("disabled_reason")? {
        None => None,
        Some(name) => Some(
            DisabledReason::from_name(name)
                .ok_or_else(|| Fault::corrupt(format!("{name:?} is no reason to be disabled")))?,
        ),
    };
    record.paused_until = time_opt(row, "paused_until")?;
    record.updated_at = time(row, "updated_at")?;
    Ok(record)
}

fn metadata(row: &PgRow) -> Result<Option<serde_json::Value>, Fault> {
    let text: Option<&str> = row.try_get("metadata")?;
    Ok(text.map(serde_json::from_str).transpose()?)
}

/// Needs the columns of `webhook.event`.
pub(crate) fn event(row: &PgRow) -> Result<Event, Fault> {
    let mut event = Event::new(EventId::from_uuid(id(row, "id")?), tenant(row)?, time(row, "created_at")?);
    event.event_type = event_type(row)?;
    event.content_type = row.try_get("content_type")?;
    event.payload = Bytes::from(row.try_get::<Vec<u8>, _>("payload")?);
    event.metadata = metadata(row)?;
    event.direct = row.try_get("direct")?;
    Ok(event)
}

/// Needs the columns of `webhook.event` but the payload, and its length as `payload_bytes`.
pub(crate) fn event_summary(row: &PgRow) -> Result<EventSummary, Fault> {
    let event = Event::new(EventId::from_uuid(id(row, "id")?), tenant(row)?, time(row, "created_at")?);
    let mut summary = EventSummary::of(&event, count(row, "deliveries")?);
    summary.event_type = event_type(row)?;
    summary.metadata = metadata(row)?;
    summary.payload_bytes = big_count(row, "payload_bytes")?;
    Ok(summary)
}

/// Needs the columns of `webhook.delivery`, the event's `event_type`, and whether the subscription is `disabled`.
pub(crate) fn delivery(row: &PgRow) -> Result<Delivery, Fault> {
    let mut delivery = Delivery::new(
        DeliveryId::from_uuid(id(row, "id")?),
        tenant(row)?,
        EventId::from_uuid(id(row, "event_id")?),
        time(row, "created_at")?,
    );
    delivery.event_type = event_type(row)?;
    delivery.subscription_id = id_opt(row, "subscription_id")?.map(SubscriptionId::from_uuid);
    delivery.state = state(row.try_get("state")?)?;
    delivery.reason = reason(row.try_get("reason")?)?;
    delivery.next_at = time(row, "next_at")?;
    delivery.leased = row.try_get("leased")?;
    delivery.held = delivery.state == DeliveryState::Pending && row.try_get("disabled")?;
    delivery.attempts = count(row, "attempts")?;
    delivery.lost_leases = count(row, "lost")?;
    delivery.last_status_code = status(row, "last_status")?;
    delivery.last_error = error_kind(row, "last_error")?;
    delivery.last_attempt_at = time_opt(row, "last_attempt_at")?;
    delivery.completed_at = time_opt(row, "completed_at")?;
    Ok(delivery)
}

/// Needs the columns of `webhook.attempt`.
pub(crate) fn attempt(row: &PgRow) -> Result<Attempt, Fault> {
    let mut attempt = Attempt::new(
        AttemptId::from_uuid(id(row, "id")?),
        tenant(row)?,
        DeliveryId::from_uuid(id(row, "delivery_id")?),
        EventId::from_uuid(id(row, "event_id")?),
        time(row, "started_at")?,
    );
    attempt.subscription_id = id_opt(row, "subscription_id")?.map(SubscriptionId::from_uuid);
    attempt.event_type = event_type(row)?;
    attempt.target_url = row.try_get("target_url")?;
    attempt.number = count(row, "number")?;
    attempt.duration = Duration::from_millis(big_count(row, "duration_ms")?);
    attempt.failure = match error_kind(row, "error")? {
        Some(kind) => {
            Some(AttemptFailure::new(kind, row.try_get::<Option<String>, _>("error_message")?.unwrap_or_default()))
        }
        None => None,
    };
    attempt.will_retry = row.try_get("will_retry")?;
    attempt.status_code = status(row, "status_code")?;
    attempt.request_headers = serde_json::from_str(row.try_get("request_headers")?)?;
    attempt.response_headers = serde_json::from_str(row.try_get("response_headers")?)?;
    attempt.response_body = Bytes::from(row.try_get::<Vec<u8>, _>("response_body")?);
    attempt.response_truncated = row.try_get("response_truncated")?;
    Ok(attempt)
}

/// Needs the columns of `webhook.path`.
pub(crate) fn path(row: &PgRow) -> Result<PathRecord, Fault> {
    let key = PathKey::from_uuid(id(row, "key")?);
    let mut record = PathRecord::new(key, path_id(row)?, tenant(row)?, time(row, "created_at")?);
    record.version = PathVersion::new(row.try_get("version")?);
    record.settings = serde_json::from_str(row.try_get("settings")?)?;
    record.response = row.try_get::<Option<Vec<u8>>, _>("response")?.map(Sealed::from_bytes);
    record.expires_at = time_opt(row, "expires_at")?;
    record.updated_at = time(row, "updated_at")?;
    Ok(record)
}

fn path_id(row: &PgRow) -> Result<PathId, Fault> {
    row.try_get::<&str, _>("path_id")?.parse().map_err(|_| Fault::corrupt("not a path_id"))
}

/// Needs the columns of `webhook.path_usage`.
pub(crate) fn path_usage(row: &PgRow) -> Result<PathUsage, Fault> {
    let mut usage = PathUsage::default();
    usage.requests = big_count(row, "requests")?;
    usage.bytes = big_count(row, "bytes")?;
    usage.last_number = big_count(row, "last_number")?;
    usage.last_id = id_opt(row, "last_id")?.map(CaptureId::from_uuid);
    usage.last_request_at = time_opt(row, "last_request_at")?;
    Ok(usage)
}

/// Needs the columns of `webhook.captured_request`, the path's `path_id`, and the body's length as `body_kept`.
pub(crate) fn captured(row: &PgRow) -> Result<CapturedRequest, Fault> {
    let mut request = IncomingRequest::new(row.try_get::<String, _>("method")?, row.try_get::<String, _>("path")?);
    request.query = row.try_get("query")?;
    request.headers = fields(row, "headers")?;
    request.trailers = fields(row, "trailers")?;
    request.http_version = row.try_get("http_version")?;
    request.ip_address = address(row, "ip_address")?;
    request.peer_address = address(row, "peer_address")?;
    request.body = Bytes::from(row.try_get::<Vec<u8>, _>("body")?);
    request.body_size = big_count(row, "body_size")?;
    let hash: Vec<u8> = row.try_get("body_sha256")?;
    request.body_sha256 = hash.try_into().map_err(|_| Fault::corrupt("not a SHA-256"))?;
    request.body_truncated = row.try_get("body_truncated")?;
    let id = CaptureId::from_uuid(id(row, "id")?);
    let mut captured = CapturedRequest::new(id, tenant(row)?, path_id(row)?, request, time(row, "received_at")?);
    captured.number = big_count(row, "number")?;
    captured.body_kept = big_count(row, "body_kept")?;
    captured.response_status = status(row, "response_status")?.unwrap_or_default();
    Ok(captured)
}

fn fields(row: &PgRow, column: &str) -> Result<Vec<HeaderField>, Fault> {
    let lines: &[u8] = row.try_get(column)?;
    IncomingRequest::fields_of(lines).ok_or_else(|| Fault::corrupt(format!("{column} are no header fields")))
}

fn address(row: &PgRow, column: &str) -> Result<Option<IpAddr>, Fault> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| Fault::corrupt(format!("{column} is no address")))).transpose()
}

/// A count as the database holds it.
pub(crate) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Each row by `decode`.
pub(crate) fn all<T>(rows: &[PgRow], decode: impl Fn(&PgRow) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    rows.iter().map(decode).collect()
}
