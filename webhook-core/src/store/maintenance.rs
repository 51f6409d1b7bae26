//! The role that keeps a store in order.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::StoreError;
use crate::{Clock, EventId, Notifier, Timestamp};

/// What one step of pruning should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneRequest {
    /// Events whose last delivery ended before this go.
    pub ended_before: Timestamp,
    /// The time now: idempotency keys that have expired go.
    pub now: Timestamp,
    /// Where the last step went on to; none to begin.
    pub cursor: Option<EventId>,
    /// Look at no more events than this.
    pub limit: u32,
}

/// What one step of pruning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneStep {
    /// Events removed, with their deliveries and attempts.
    pub events: u64,
    /// Where to go on; none when everything was looked at.
    pub cursor: Option<EventId>,
    /// More idempotency keys have expired than one step removes.
    pub more_keys: bool,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Pending deliveries.
    pub pending: u64,
    /// Those of them that are due and not leased.
    pub due: u64,
    /// When the oldest of those was due.
    pub oldest_due: Option<Timestamp>,
}

/// Keeps a store in order.
#[async_trait]
pub trait MaintenanceStore: Debug + Send + Sync + 'static {
    /// The clock that whoever shares this store goes by.
    ///
    /// # Contract
    ///
    /// - Where several processes can share the store, it follows the database's time, so that leases and due times do
    ///   not depend on the hosts' clocks. Otherwise it is the operating system's.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Carries signals to whoever shares this store; none where nobody can, or where it cannot.
    fn notifier(&self) -> Option<Arc<dyn Notifier>>;

    /// Asks whether the store answers.
    ///
    /// # Contract
    ///
    /// - Ok when it does. Not when it could only be read, where that shows without writing.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Removes history in one small step.
    ///
    /// # Contract
    ///
    /// - An event goes only when all its deliveries have ended, the last of them before `ended_before`; one without
    ///   deliveries counts from when it was accepted (I3).
    /// - Its deliveries and attempts go with it.
    /// - Steps that go on from the returned cursor look at every event once.
    async fn prune(&self, request: PruneRequest) -> Result<PruneStep, StoreError>;

    /// Cancels pending deliveries of deleted subscriptions; how many there were.
    ///
    /// # Contract
    ///
    /// - At most `limit`; their reason is `subscription_deleted` and leases on them are void.
    /// - Other deliveries are left alone.
    async fn cancel_orphans(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// What waits, over all tenants.
    ///
    /// # Contract
    ///
    /// - Leased deliveries are pending, but not due.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError>;
}
