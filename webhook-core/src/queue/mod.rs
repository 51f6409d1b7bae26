//! The seam to a queue: hints at deliveries, for fleets that should not all ask the store.

mod memory;

use std::fmt::Debug;

use async_trait::async_trait;

pub use memory::MemoryQueue;

use crate::{Hint, Timestamp};

/// A queue could not do what was asked; workers then ask the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// It cannot be reached, or is too slow.
    #[error("the queue is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl QueueError {
    /// Asking again later may work.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Holds hints: "look at this delivery about then". The store decides; losing all hints loses nothing.
///
/// All hints at one delivery name the same target.
#[async_trait]
pub trait Queue: Debug + Send + Sync + 'static {
    /// Adds hints.
    ///
    /// # Contract
    ///
    /// - A second hint at the same delivery replaces the first one's due time.
    async fn push(&self, hints: &[Hint]) -> Result<(), QueueError>;

    /// Takes up to `limit` hints that are due, and holds them: they are due again at `hold_until` unless they are
    /// pushed anew or done.
    ///
    /// # Contract
    ///
    /// - No hint comes before it is due; those that come are the ones due first.
    /// - A hint that is held comes to nobody else before `hold_until`.
    async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Result<Vec<Hint>, QueueError>;

    /// Forgets the hints at the deliveries of these hints, whenever they are due.
    ///
    /// # Contract
    ///
    /// - They come no more; unknown ones do no harm.
    async fn done(&self, hints: &[Hint]) -> Result<(), QueueError>;

    /// How many hints there are.
    ///
    /// # Contract
    ///
    /// - Held ones count.
    async fn depth(&self) -> Result<u64, QueueError>;

    /// What operators call it, where the health of a process is told: one lower-case word.
    fn name(&self) -> &'static str {
        "queue"
    }
}
