//! What arrived.

use http::{HeaderMap, Method};

static POST: Method = Method::POST;

/// A request as it arrived, before anything was parsed or decoded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Inbound<'a> {
    /// The method.
    pub method: &'a Method,
    /// The whole URL that the sender called, with its query, as *configured* at the sender: scheme, host and path prefix
    /// never come from the request, whose `Host` header is the caller's to choose. None where the host did not say.
    pub url: Option<&'a str>,
    /// All headers, repeated ones too.
    pub headers: &'a HeaderMap,
    /// The body's bytes, exactly as they came.
    pub body: &'a [u8],
}

impl<'a> Inbound<'a> {
    /// A POST to a URL that is not known.
    pub fn new(headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { method: &POST, url: None, headers, body }
    }

    /// With that method.
    #[must_use]
    pub const fn with_method(mut self, method: &'a Method) -> Self {
        self.method = method;
        self
    }

    /// To that URL.
    #[must_use]
    pub const fn with_url(mut self, url: &'a str) -> Self {
        self.url = Some(url);
        self
    }
}
