//! A request that reached a capture path, byte for byte.

use std::net::IpAddr;

use bytes::Bytes;

use super::PathId;
use crate::{CaptureId, Invalid, TenantId, Timestamp};

/// A header field as it came: its name in lower case, which is all that the HTTP library keeps of it, and the bytes of
/// its value.
pub type HeaderField = (String, Bytes);

/// A request on its way to a capture path.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncomingRequest {
    /// The method, whatever it is.
    pub method: String,
    /// The whole path as it was sent, undecoded.
    pub path: String,
    /// What followed the `?`, undecoded; none without a `?`.
    pub query: Option<String>,
    /// The header fields; fields of one name in their order.
    pub headers: Vec<HeaderField>,
    /// The fields that came after a chunked body.
    pub trailers: Vec<HeaderField>,
    /// Such as `HTTP/1.1`.
    pub http_version: String,
    /// Who sent it, as far as proxies are believed.
    pub ip_address: Option<IpAddr>,
    /// Who was connected.
    pub peer_address: Option<IpAddr>,
    /// What is kept of the body: all, or its beginning.
    pub body: Bytes,
    /// How much of a body arrived, in bytes.
    pub body_size: u64,
    /// SHA-256 of what arrived.
    pub body_sha256: [u8; 32],
    /// `body` is not all that was sent.
    pub body_truncated: bool,
}

impl IncomingRequest {
    /// A request by that method for that path, without anything else.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            query: None,
            headers: Vec::new(),
            trailers: Vec::new(),
            http_version: "HTTP/1.1".to_owned(),
            ip_address: None,
            peer_address: None,
            body: Bytes::new(),
            body_size: 0,
            body_sha256: sha256(b""),
            body_truncated: false,
        }
    }

    /// With this body, all of it.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.body_size = self.body.len() as u64;
        self.body_sha256 = sha256(&self.body);
        self
    }
}

impl IncomingRequest {
    /// The longest method, in bytes: stores have it in an index, and people read it in figures.
    pub const MAX_METHOD_BYTES: usize = 255;

    /// Not every store's texts can hold a NUL, and HTTP has none there.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let mut invalid = Invalid::new();
        let query = self.query.as_deref().unwrap_or_default();
        for (field, text) in
            [("method", &*self.method), ("path", &*self.path), ("query", query), ("http_version", &*self.http_version)]
        {
            if text.contains('\0') {
                invalid.push(field, "has a NUL");
            }
        }
        if self.method.len() > Self::MAX_METHOD_BYTES {
            invalid.push("method", format!("at most {} bytes", Self::MAX_METHOD_BYTES));
        }
        invalid.into_result()
    }
}

/// Shows nothing that was sent but the method.
impl std::fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// One HTTP request that reached a path, byte for byte.
///
/// It is stored as it came, credentials in its headers, query and body included, and never sealed: it has to be
/// searched. `Debug` shows none of these.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapturedRequest {
    /// Its id. Those of one path grow in the order in which they were stored.
    pub id: CaptureId,
    /// Whose path it reached.
    pub tenant: TenantId,
    /// The path's name.
    pub path_id: PathId,
    /// Its place among all that ever reached the path, from 1 on without a gap: where one is missing, a request has been
    /// removed.
    pub number: u64,
    /// What came. `body` may be only the beginning of what is kept: see [`CapturedRequest::body_kept`].
    pub request: IncomingRequest,
    /// How many bytes of the body are kept.
    pub body_kept: u64,
    /// The status that it was answered with.
    pub response_status: u16,
    /// When it had arrived.
    pub received_at: Timestamp,
}

impl CapturedRequest {
    /// A request that reached the path at `received_at`, the first there, answered with 200; set the public fields to
    /// change it.
    pub fn new(
        id: CaptureId,
        tenant: TenantId,
        path_id: PathId,
        request: IncomingRequest,
        received_at: Timestamp,
    ) -> Self {
        let body_kept = request.body.len() as u64;
        Self { id, tenant, path_id, number: 1, request, body_kept, response_status: 200, received_at }
    }

    /// The values of a header field, by its name in lower case, in order.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> {
        self.request.headers.iter().filter(move |(given, _)| given == name).map(|(_, value)| value)
    }

    /// `body` has been cut for showing; more of it is kept.
    pub fn body_cut(&self) -> bool {
        (self.request.body.len() as u64) < self.body_kept
    }

    /// The same request with at most `limit` bytes of its body.
    #[must_use]
    pub fn cut_to(mut self, limit: usize) -> Self {
        if self.request.body.len() > limit {
            self.request.body.truncate(limit);
        }
        self
    }
}

impl std::fmt::Debug for CapturedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapturedRequest")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("path_id", &self.path_id)
            .field("number", &self.number)
            .field("method", &self.request.method)
            .field("body_size", &self.request.body_size)
            .field("response_status", &self.response_status)
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

impl IncomingRequest {
    /// Header fields as stores keep them, and as they are searched: `name: value` and a line feed for each. A value has
    /// no line feed (RFC 9110 section 5.5), so nothing needs escaping.
    pub fn lines_of(fields: &[HeaderField]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(fields.iter().map(|(name, value)| name.len() + value.len() + 3).sum());
        for (name, value) in fields {
            lines.extend_from_slice(name.as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value);
            lines.push(b'\n');
        }
        lines
    }

    /// The header fields of a block that [`IncomingRequest::lines_of`] made; none when it is no such block.
    pub fn fields_of(lines: &[u8]) -> Option<Vec<HeaderField>> {
        let mut fields = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n")?;
            let end = line.windows(2).position(|pair| pair == b": ")?;
            let name = std::str::from_utf8(&line[..end]).ok()?;
            fields.push((name.to_owned(), Bytes::copy_from_slice(&line[end + 2..])));
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_keep_bytes_duplicates_and_empty_values() {
        let fields: Vec<HeaderField> = [("x-a", &b"1: 2"[..]), ("x-a", b""), ("x-b", b"\xff\t\x80 :"), ("y", b": ")]
            .map(|(name, value)| (name.to_owned(), Bytes::from(value)))
            .to_vec();
        let lines = IncomingRequest::lines_of(&fields);
        assert_eq!(IncomingRequest::fields_of(&lines), Some(fields));
        assert_eq!(IncomingRequest::fields_of(b""), Some(Vec::new()));
        assert_eq!(IncomingRequest::fields_of(b"no colon\n"), None);
        assert_eq!(IncomingRequest::fields_of(b"x: cut"), None);
    }

    #[test]
    fn debug_shows_nothing_that_was_sent() {
        let mut request = IncomingRequest::new("POST", "/webhook/p").with_body("canary-body");
        request.headers.push(("authorization".to_owned(), Bytes::from("canary-header")));
        request.query = Some("canary-query".to_owned());
        let id = CaptureId::from_uuid(uuid::Uuid::nil());
        let captured = CapturedRequest::new(id, TenantId::default(), "p".parse().unwrap(), request, Timestamp::EPOCH);
        assert!(!format!("{captured:?}").contains("canary"));
    }
}
