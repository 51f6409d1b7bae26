//! Wakes the claim loop: now, or when the next delivery is due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::Timestamp;

/// Rings at once, or tells the earliest time it was set to.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Mutex<Option<Timestamp>>,
    changed: Notify,
    without_hint: AtomicBool,
}

impl Alarm {
    /// Something may be due now.
    pub(super) fn ring(&self) {
        self.set(Timestamp::EPOCH);
    }

    /// Something may be due now that the queue has no hint at.
    pub(super) fn ring_without_hint(&self) {
        self.without_hint.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Whether it rang for something without a hint since this was last asked.
    pub(super) fn take_without_hint(&self) -> bool {
        self.without_hint.swap(false, Ordering::SeqCst)
    }

    /// Something is due at `at`.
    pub(super) fn set(&self, at: Timestamp) {
        let mut earliest = self.at();
        if earliest.is_none_or(|earliest| at < earliest) {
            *earliest = Some(at);
            drop(earliest);
            self.changed.notify_one();
        }
    }

    /// Forgets what it was set to: whoever calls this looks at everything that is due.
    pub(super) fn clear(&self) {
        *self.at() = None;
    }

    /// The earliest time it was set to.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        *self.at()
    }

    /// Waits until it is set to an earlier time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn at(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
