//! The stores and queues of this crate keep every promise.

use std::sync::Arc;

use webhook_core::{MemoryQueue, MemoryStore, Queue, Store};

mod store {
    use super::*;

    async fn fresh() -> (Arc<dyn Store>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    webhook_core::store_conformance!(fresh);
}

mod queue {
    use super::*;

    async fn fresh() -> (Arc<dyn Queue>, ()) {
        (Arc::new(MemoryQueue::new()), ())
    }

    webhook_core::queue_conformance!(fresh);
}
