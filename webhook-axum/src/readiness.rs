//! Whether the process should get requests.

use tokio_util::sync::CancellationToken;

/// What `/health/ready` answers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duty {
    /// Requests: a worker that is stuck degrades the process.
    #[default]
    Requests,
    /// Deliveries alone: the process is not ready unless its worker asked for deliveries lately, and was answered.
    Deliveries,
}

/// Tells `/health/ready`, and whoever follows a capture path, that the process is stopping. Cheap to clone; all clones
/// are the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    stopping: CancellationToken,
}

impl Readiness {
    /// From now on `/health/ready` answers 503, so that no new requests are sent here, and streams end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether [`Readiness::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Until [`Readiness::stop`] is called.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }
}
