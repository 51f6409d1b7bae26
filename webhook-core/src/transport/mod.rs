//! Sending one prepared request: the seam, the address guard, and the transport on reqwest.

mod error;
mod guard;
#[cfg(feature = "http")]
mod http;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod ranges;
mod target;

use std::fmt;
use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

pub use error::TransportError;
pub use guard::{AddressGuard, Blocked};
#[cfg(feature = "http")]
pub use http::{BuildTransportError, HttpTransport, HttpTransportBuilder, Resolver, SystemResolver};
#[cfg(any(test, feature = "testing"))]
pub use memory::RecordingTransport;
pub use target::{MAX_TARGET_BYTES, TargetError};

/// How much of an answer's body is read, in bytes, before the connection is given up.
pub const MAX_RESPONSE_READ: usize = 64 * 1024;

/// How much of an answer's body is kept, in bytes.
pub const MAX_RESPONSE_KEPT: usize = 16 * 1024;

/// Sends prepared requests to endpoints.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `request` and returns what the endpoint answered, whatever its status.
    ///
    /// # Contract
    ///
    /// - One call is one request: it is never sent again, and a redirect is returned, not followed.
    /// - Every address that is dialled passes the address guard first; a refused one is
    ///   [`ErrorKind::Blocked`](crate::ErrorKind::Blocked).
    /// - Method, headers and body go out as given, and the answer's body comes back as it came: nothing is
    ///   compressed, decompressed or re-encoded.
    /// - It returns within [`Deadlines::total`], whatever the endpoint does.
    /// - At most [`MAX_RESPONSE_READ`] bytes of a body are read (to the end of the chunk that passes it) and
    ///   [`MAX_RESPONSE_KEPT`] kept.
    /// - A body that breaks off or is late fails a 2xx, with the status in the error. Any other status is the
    ///   failure by itself: it is returned with its headers and what there was of the body, marked as truncated.
    /// - Dropping the future gives the request up.
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError>;
}

/// A request, ready to go out.
#[derive(Clone)]
#[non_exhaustive]
pub struct OutboundRequest {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// All headers but `host`, `content-length` and `transfer-encoding`, which the transport sets.
    pub headers: HeaderMap,
    /// The exact bytes of the body.
    pub body: Bytes,
    /// How long it may take.
    pub deadlines: Deadlines,
}

impl OutboundRequest {
    /// A request without headers or body, with the default deadlines.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), deadlines: Deadlines::default() }
    }

    /// Sets the headers.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }
}

/// Shows no header values, query or body: they carry credentials and payloads.
impl fmt::Debug for OutboundRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundRequest")
            .field("method", &self.method)
            .field("origin", &self.url.origin().ascii_serialization())
            .field("headers", &self.headers.keys().map(::http::HeaderName::as_str).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .field("deadlines", &self.deadlines)
            .finish()
    }
}

/// How long one request may take. Connecting has its own limit, set on the transport, as connections are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlines {
    /// From the start to the end of the body, look-up and connecting included. Default 15 s.
    pub total: Duration,
    /// From the arrival of the answer's head to the end of its body, within `total`. Default 10 s.
    pub body: Duration,
}

impl Deadlines {
    /// Sets the limit of the whole exchange.
    #[must_use]
    pub fn with_total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// Sets the limit of reading the answer's body.
    #[must_use]
    pub fn with_body(mut self, body: Duration) -> Self {
        self.body = body;
        self
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { total: Duration::from_secs(15), body: Duration::from_secs(10) }
    }
}

/// What an endpoint answered.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboundResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or its first [`MAX_RESPONSE_KEPT`] bytes.
    pub body: Bytes,
    /// Whether the body went on after `body`.
    pub truncated: bool,
}

impl OutboundResponse {
    /// An answer without headers or body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), truncated: false }
    }

    /// Sets the headers.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the body, of which the first [`MAX_RESPONSE_KEPT`] bytes are kept.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.truncated = self.body.len() > MAX_RESPONSE_KEPT;
        self.body.truncate(MAX_RESPONSE_KEPT);
        self
    }
}

/// Shows no header values or body: they are the endpoint's business.
impl fmt::Debug for OutboundResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundResponse")
            .field("status", &self.status)
            .field("headers", &self.headers.keys().map(::http::HeaderName::as_str).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .field("truncated", &self.truncated)
            .finish()
    }
}
