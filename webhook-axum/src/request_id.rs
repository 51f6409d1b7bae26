//! The id that a request has in logs and answers.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;
use webhook_core::{Entropy, OsEntropy, Webhooks};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: the caller's own `x-request-id` when that is 1 to 128 characters of `A-Za-z0-9._-`, otherwise a
/// new UUID. Every request that reaches a handler has it as an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The id that the caller chose, when it is sane.
    pub(crate) fn given(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(X_REQUEST_ID)?;
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let sane = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(legal);
        sane.then(|| Self(value.clone()))
    }

    pub(crate) fn generated(webhooks: &Webhooks) -> Self {
        Self::of(webhooks.new_request_id())
    }

    /// A random one, where no engine is at hand.
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        OsEntropy.fill(&mut bytes);
        Self::of(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    fn of(uuid: Uuid) -> Self {
        let mut text = [0; 36];
        let text = uuid.hyphenated().encode_lower(&mut text);
        Self(HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let known = parts.extensions.get().cloned().or_else(|| Self::given(&parts.headers));
        Ok(known.unwrap_or_else(Self::random))
    }
}
