//! A queue in memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Queue, QueueError};
use crate::{DeliveryId, Hint, TargetId, Timestamp};

/// A queue in memory: what `webhook-queue-redis` does, in one process.
#[derive(Debug, Default)]
pub struct MemoryQueue {
    hints: Mutex<Hints>,
}

#[derive(Debug, Default)]
struct Hints {
    by_due: BTreeSet<(Timestamp, DeliveryId)>,
    of: HashMap<DeliveryId, (Timestamp, TargetId)>,
}

impl Hints {
    fn set(&mut self, delivery: DeliveryId, target: TargetId, due: Timestamp) {
        if let Some((old, _)) = self.of.insert(delivery, (due, target)) {
            self.by_due.remove(&(old, delivery));
        }
        self.by_due.insert((due, delivery));
    }
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn push(&self, hints: &[Hint]) -> Result<(), QueueError> {
        let mut held = self.hints();
        for hint in hints {
            held.set(hint.delivery, hint.target, hint.due);
        }
        Ok(())
    }

    async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Result<Vec<Hint>, QueueError> {
        let mut held = self.hints();
        let due: Vec<_> = held.by_due.iter().take_while(|(due, _)| *due <= now).take(limit as usize).copied().collect();
        let mut hints = Vec::with_capacity(due.len());
        for (due, delivery) in due {
            let Some((_, target)) = held.of.get(&delivery).copied() else { continue };
            held.set(delivery, target, hold_until);
            hints.push(Hint::new(delivery, target, due));
        }
        Ok(hints)
    }

    async fn done(&self, hints: &[Hint]) -> Result<(), QueueError> {
        let mut held = self.hints();
        for hint in hints {
            if let Some((due, _)) = held.of.remove(&hint.delivery) {
                held.by_due.remove(&(due, hint.delivery));
            }
        }
        Ok(())
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        Ok(self.hints().of.len() as u64)
    }
}
