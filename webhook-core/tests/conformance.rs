//! The stores, queues and rate limiters of this crate keep every promise.

use std::sync::Arc;

use webhook_core::{LocalRateLimiter, MemoryQueue, MemoryStore, Queue, RateLimiter, Store};

mod store {
    use super::*;

    async fn fresh() -> (Arc<dyn Store>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    webhook_core::store_conformance!(fresh);
    webhook_core::store_model!(fresh, 400);
}

mod queue {
    use super::*;

    async fn fresh() -> (Arc<dyn Queue>, ()) {
        (Arc::new(MemoryQueue::new()), ())
    }

    webhook_core::queue_conformance!(fresh);
}

mod rate_limiter {
    use super::*;

    async fn fresh() -> (Arc<dyn RateLimiter>, ()) {
        (Arc::new(LocalRateLimiter::new()), ())
    }

    webhook_core::rate_limiter_conformance!(fresh);
}
