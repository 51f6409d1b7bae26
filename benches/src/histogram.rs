//! Latencies, sorted at the end.

use serde::{Deserialize, Serialize};

/// What a run's latencies come to, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Percentiles {
    pub(crate) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let rank = (share * micros.len() as f64).ceil() as usize;
            micros.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { count: micros.len(), p50: at(0.5), p99: at(0.99), max: micros.last().copied().unwrap_or(0) }
    }
}
