//! A store in memory.

mod capture;
mod claim;
mod delivery;
mod event;
mod history;
mod maintenance;
mod open;
mod page;
mod receipt;
mod rows;
mod state;
mod stats;
mod subscription;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use state::State;

/// A store in the process's memory: for tests, for trying things out, and for hosts that can afford to lose what is
/// open when the process ends.
///
/// It keeps every promise of [`Store`](crate::Store) except durability: it lives as long as the value does. Its size
/// is that of what it holds, so prune it like any other.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing awaits while it is held, so each method is one atomic unit.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStore")
            .field("events", &state.events.len())
            .field("deliveries", &state.deliveries.len())
            .field("open", &state.open.len())
            .finish_non_exhaustive()
    }
}
