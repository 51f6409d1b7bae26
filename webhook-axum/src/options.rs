//! What the API is called, and how much it takes.

/// What the API is called, and how much it takes, each with its default.
///
/// The largest payload of an event is the engine's own limit: [`webhook_core::Options::max_payload`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiOptions {
    /// Bytes of one batch at most: 8 MiB.
    pub max_batch_bytes: usize,
    /// The name in `/health`: `webhook`.
    pub service: String,
    /// The version in `/health` and in the API's description: that of this crate.
    pub version: String,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self { max_batch_bytes: 8 << 20, service: "webhook".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

impl ApiOptions {
    /// Bytes of one batch at most.
    #[must_use]
    pub const fn with_max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// The name and version that `/health` tells.
    #[must_use]
    pub fn with_service(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.service = name.into();
        self.version = version.into();
        self
    }
}
