//! What callers were told, and what endpoints saw.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

pub(crate) const TENANTS: usize = 20;
/// Subscriptions of each tenant.
pub(crate) const SLOTS: usize = 3;
/// In every payload, and never in a log.
pub(crate) const PAYLOAD_CANARY: &str = "payload-canary";

/// Where a subscription sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    pub(crate) tenant: usize,
    pub(crate) slot: usize,
}

impl Endpoint {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..TENANTS).flat_map(|tenant| (0..SLOTS).map(move |slot| Self { tenant, slot }))
    }

    pub(crate) fn path(self) -> String {
        format!("/{}/{}", self.tenant, self.slot)
    }

    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let (tenant, slot) = path.strip_prefix('/')?.split_once('/')?;
        Some(Self { tenant: tenant.parse().ok()?, slot: slot.parse().ok()? })
    }
}

/// Whose event that is.
pub(crate) fn tenant_of(n: u32) -> usize {
    n as usize % TENANTS
}

/// What event `n` carries, to the byte.
pub(crate) fn payload(n: u32) -> String {
    let pad = "ü".repeat(n as usize % 97);
    format!(r#"{{"n":{n}, "tenant": {},"note":"{PAYLOAD_CANARY}", "pad":"{pad}" }}"#, tenant_of(n))
}

/// Which event has that payload.
pub(crate) fn number_in(payload: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(payload).ok()?.strip_prefix(r#"{"n":"#)?;
    text.split(',').next()?.parse().ok()
}

/// What is captured with event `n`.
pub(crate) fn captured_body(n: u32) -> String {
    format!("capture {n} {PAYLOAD_CANARY} \u{0}\u{1} {}", "x".repeat(n as usize % 301))
}

/// An event that was answered 202.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) id: Uuid,
    pub(crate) deliveries: u32,
    pub(crate) tries: u32,
    /// From when it was to be sent until it was acknowledged.
    pub(crate) latency: Duration,
}

/// A captured request: whether it was answered 200, and how often it was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Captured {
    pub(crate) acknowledged: u32,
    pub(crate) tries: u32,
}

/// One attempt, as an endpoint saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) n: u32,
    pub(crate) endpoint: Endpoint,
    pub(crate) event: Uuid,
    pub(crate) attempt: u16,
    /// What was answered; zero for nothing that is an answer.
    pub(crate) status: u16,
    pub(crate) arrived: Duration,
    pub(crate) ended: Duration,
    pub(crate) signed: bool,
    pub(crate) exact: bool,
}

/// Everything that was seen from outside.
#[derive(Debug)]
pub(crate) struct Ledger {
    start: Instant,
    acknowledged: Mutex<BTreeMap<u32, Acknowledged>>,
    captured: Mutex<BTreeMap<u32, Captured>>,
    arrivals: Mutex<Vec<Arrival>>,
    /// What should not have been answered.
    odd: Mutex<Vec<String>>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            acknowledged: Mutex::default(),
            captured: Mutex::default(),
            arrivals: Mutex::default(),
            odd: Mutex::default(),
        }
    }

    /// Since the start of the run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn acknowledged(&self) -> MutexGuard<'_, BTreeMap<u32, Acknowledged>> {
        self.acknowledged.lock().unwrap()
    }

    pub(crate) fn captured(&self) -> MutexGuard<'_, BTreeMap<u32, Captured>> {
        self.captured.lock().unwrap()
    }

    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap()
    }

    pub(crate) fn odd(&self) -> MutexGuard<'_, Vec<String>> {
        self.odd.lock().unwrap()
    }
}
