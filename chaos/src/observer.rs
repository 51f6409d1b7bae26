//! Watches how much the servers' processes take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use crate::process;

const INTERVAL: Duration = Duration::from_millis(500);

/// The most that a process ever took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// MiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Observer {
    peaks: Arc<Mutex<BTreeMap<u32, Peak>>>,
}

impl Observer {
    pub(crate) fn start() -> Self {
        let observer = Self::default();
        let watching = observer.clone();
        tokio::spawn(async move {
            loop {
                watching.look();
                sleep(INTERVAL).await;
            }
        });
        observer
    }

    /// Watches that process too.
    pub(crate) fn watch(&self, pid: u32) {
        self.peaks.lock().unwrap().insert(pid, Peak::default());
    }

    /// Over all processes that ever were.
    pub(crate) fn peak(&self) -> Peak {
        let peaks = self.peaks.lock().unwrap();
        Peak {
            memory: peaks.values().map(|peak| peak.memory).max().unwrap_or(0),
            descriptors: peaks.values().map(|peak| peak.descriptors).max().unwrap_or(0),
        }
    }

    fn look(&self) {
        for (pid, peak) in self.peaks.lock().unwrap().iter_mut() {
            peak.memory = peak.memory.max(process::memory(*pid, "VmHWM").unwrap_or(0));
            peak.descriptors = peak.descriptors.max(process::descriptors(*pid).unwrap_or(0));
        }
    }
}
