//! One HTTP try of a delivery, and how it ended.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, DeliveryId, EventId, EventType, SubscriptionId, TenantId, Timestamp};

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection: refused, reset or unreachable before the request was written.
    Connect,
    /// The name has no address.
    Dns,
    /// The TLS handshake failed.
    Tls,
    /// A deadline passed: connecting, the whole attempt, or reading the body.
    Timeout,
    /// An answer other than 2xx.
    Status,
    /// A 3xx answer: redirects are never followed.
    Redirect,
    /// The address guard refused the target.
    Blocked,
    /// The answer was not HTTP, or broke off.
    Protocol,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Connect,
        Self::Dns,
        Self::Tls,
        Self::Timeout,
        Self::Status,
        Self::Redirect,
        Self::Blocked,
        Self::Protocol,
    ];

    /// The one with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Its name in the API and in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::Blocked => "blocked",
            Self::Protocol => "protocol",
        }
    }
}

/// One HTTP try, written once, when its outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Whose attempt this is.
    pub tenant: TenantId,
    /// The delivery it belongs to.
    pub delivery_id: DeliveryId,
    /// The subscription it went to; none for an ad-hoc target.
    pub subscription_id: Option<SubscriptionId>,
    /// The event it carried.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: Option<EventType>,
    /// The URL it went to.
    pub target_url: String,
    /// 1 for the first attempt of its delivery, and so on without a gap.
    pub number: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How it failed; none when it succeeded.
    pub failure: Option<AttemptFailure>,
    /// Whether another attempt follows.
    pub will_retry: bool,
    /// The status of the answer, where there was one.
    pub status_code: Option<u16>,
    /// What was sent, secrets and signatures redacted.
    pub request_headers: Vec<(String, String)>,
    /// What came back.
    pub response_headers: Vec<(String, String)>,
    /// The first bytes of the answer's body.
    pub response_body: Bytes,
    /// The answer's body had more bytes.
    pub response_truncated: bool,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptFailure {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// What went wrong, fit for the tenant's eyes.
    pub message: String,
}

impl AttemptFailure {
    /// A failure of that kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl Attempt {
    /// A successful first attempt without headers; set the public fields to change it.
    pub fn new(
        id: AttemptId,
        tenant: TenantId,
        delivery_id: DeliveryId,
        event_id: EventId,
        started_at: Timestamp,
    ) -> Self {
        Self {
            id,
            tenant,
            delivery_id,
            subscription_id: None,
            event_id,
            event_type: None,
            target_url: String::new(),
            number: 1,
            started_at,
            duration: Duration::ZERO,
            failure: None,
            will_retry: false,
            status_code: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            response_body: Bytes::new(),
            response_truncated: false,
        }
    }
}
