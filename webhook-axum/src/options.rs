//! What the API is called, and how much it takes.

use ipnet::IpNet;

/// What the API is called, and how much it takes, each with its default.
///
/// The largest payload of an event and how much of a captured body is read and kept are the engine's own limits:
/// [`webhook_core::Options`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiOptions {
    /// Bytes of one batch at most: 8 MiB.
    pub max_batch_bytes: usize,
    /// The name in `/health`: `webhook`.
    pub service: String,
    /// The version in `/health` and in the API's description: that of this crate.
    pub version: String,
    /// The address that others know the API by, in front of `/webhook/…` in the URLs of capture paths; none leaves them
    /// without a host. Never taken from a request.
    pub public_url: Option<String>,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` are believed: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of captured bodies held in memory at once: 64 MiB, and never less than one body. A path or a sender has a
    /// quarter of them at most. Beyond that callers wait, and then get 503.
    pub capture_budget: usize,
    /// Streams and waits on capture paths at once: 1,024. Further ones get 503.
    pub max_followers: usize,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            max_batch_bytes: 8 << 20,
            service: "webhook".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            public_url: None,
            trusted_proxies: Vec::new(),
            capture_budget: 64 << 20,
            max_followers: 1024,
        }
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

    /// The address that others know the API by.
    #[must_use]
    pub fn with_public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Proxies whose `Forwarded` and `X-Forwarded-For` are believed.
    #[must_use]
    pub fn with_trusted_proxies(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted_proxies = networks.into_iter().collect();
        self
    }
}
