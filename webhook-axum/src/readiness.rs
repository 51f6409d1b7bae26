//! Whether the process should get requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What `/health/ready` answers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duty {
    /// Requests: a worker that is stuck degrades the process.
    #[default]
    Requests,
    /// Deliveries alone: the process is not ready unless its worker asked for deliveries lately.
    Deliveries,
}

/// Tells `/health/ready` that the process is stopping. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// From now on `/health/ready` answers 503, so that no new requests are sent here.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether [`Readiness::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
