//! The engine's limits and intervals.

use std::time::Duration;

/// The engine's limits and intervals, each with its default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Attempts at once in this process: 512.
    pub concurrency: usize,
    /// Attempts at once to one target, unless its subscription says otherwise: 256.
    pub target_concurrency: u32,
    /// The deadline of an attempt, unless its subscription says otherwise: 15 s.
    pub timeout: Duration,
    /// The largest deadline a subscription may ask for: 30 s.
    pub max_timeout: Duration,
    /// How much longer than the largest deadline a lease lasts: 15 s.
    pub lease_margin: Duration,
    /// How long attempts in flight may take to end at shutdown: 20 s.
    pub grace: Duration,
    /// How often workers look for due deliveries when nothing wakes them: 1 s.
    pub poll_interval: Duration,
    /// How long an event is kept after the end of its last delivery: 72 h.
    pub retention: Duration,
    /// How often history is pruned: 1 h.
    pub cleanup_interval: Duration,
    /// How long anything about a subscription is believed without asking the store: 600 s.
    pub cache_ttl: Duration,
    /// How long idempotency keys are remembered: 24 h.
    pub idempotency_window: Duration,
    /// Deliveries of one event at most: 10,000.
    pub max_fan_out: usize,
    /// Bytes of one payload at most: 1 MiB.
    pub max_payload: usize,
    /// Bytes of payload that workers hold at once: 64 MiB.
    pub payload_budget: usize,
    /// Bytes of a captured request's body that are read at most: 16 MiB.
    pub capture_max_body: usize,
    /// Bytes of a captured request's body that are kept at most, from its beginning: 1 MiB.
    pub capture_prefix: usize,
    /// How long captured requests are kept: 720 h.
    pub capture_retention: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 512,
            target_concurrency: 256,
            timeout: Duration::from_secs(15),
            max_timeout: Duration::from_secs(30),
            lease_margin: Duration::from_secs(15),
            grace: Duration::from_secs(20),
            poll_interval: Duration::from_secs(1),
            retention: Duration::from_secs(72 * 3600),
            cleanup_interval: Duration::from_secs(3600),
            cache_ttl: Duration::from_secs(600),
            idempotency_window: Duration::from_secs(24 * 3600),
            max_fan_out: 10_000,
            max_payload: 1 << 20,
            payload_budget: 64 << 20,
            capture_max_body: 16 << 20,
            capture_prefix: 1 << 20,
            capture_retention: Duration::from_secs(720 * 3600),
        }
    }
}

impl Options {
    /// How long a lease lasts.
    pub(crate) fn lease(&self) -> Duration {
        self.max_timeout.max(self.timeout) + self.lease_margin
    }
}
