//! What a verified request says of itself.

use http::StatusCode;

use crate::Timestamp;

/// What is known of a request that verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What the sender calls the message, the same for each time it sends it. Whether the signature covers it depends on
    /// the scheme; each says so.
    pub message_id: Option<String>,
    /// When the sender signed it, where the signature covers a time.
    pub signed_at: Option<Timestamp>,
    /// The request is no message, but the sender asking whether this is really its endpoint.
    pub handshake: Option<Handshake>,
}

/// What answers a sender who asks whether this is really its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Handshake {
    /// The status.
    pub status: StatusCode,
    /// The content type; empty where there is no body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Verified {
    /// A message without an id.
    pub fn new() -> Self {
        Self::default()
    }

    /// With that id, if there is one.
    #[must_use]
    pub fn with_message_id(mut self, id: Option<String>) -> Self {
        self.message_id = id;
        self
    }

    /// Signed then.
    #[must_use]
    pub fn with_signed_at(mut self, at: Timestamp) -> Self {
        self.signed_at = Some(at);
        self
    }

    /// A handshake, if it is one.
    #[must_use]
    pub fn with_handshake(mut self, handshake: Option<Handshake>) -> Self {
        self.handshake = handshake;
        self
    }
}

impl Handshake {
    /// 200 with that body.
    pub fn ok(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: StatusCode::OK, content_type, body: body.into() }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: "", body: Vec::new() }
    }
}
