//! The seam to a database: role traits, their sum [`Store`], and what they speak of.
//!
//! The store is the truth. One method is one atomic unit; every promise is a bullet under `# Contract` and a case of
//! the conformance suite in [`crate::testing`].

mod accept;
mod capture;
mod capture_plan;
mod claim;
mod delivery;
mod error;
mod event;
mod history;
mod maintenance;
mod memory;
mod page;
mod receipt;
mod subscription;

pub use accept::{
    AcceptItem, AcceptOutcome, AcceptPlan, AcceptUnit, IdempotencyKey, ItemOutcome, KeyedAnswer, LeaseGrant,
    NewDelivery, StoredKey,
};
pub use capture::{
    CaptureOutcome, CapturePruneRequest, CapturePruneStep, CaptureStats, CaptureStore, NewCapture, PATH_METHODS,
    PathInserted, PathRecord, PathUpdated, PathUsage, ReadLimit,
};
pub use capture_plan::{CapturePlan, Evicted, Eviction, PathState, PlannedCapture};
pub use claim::{ClaimRequest, Claimed, Lease, LeaseToken, Release, Room};
pub use delivery::{DeliveryStore, NextStep, Outcome, Recorded, TargetEffect};
pub use error::StoreError;
pub use event::{EventFilter, EventStore};
pub use history::{
    Activity, ActivityKind, AddedDelivery, CancelOutcome, DeliveryFilter, HistoryStore, Recoverable, RetryOutcome,
    Stats,
};
pub use maintenance::{Backlog, MaintenanceStore, PruneRequest, PruneStep};
pub use memory::MemoryStore;
pub use page::{Page, PageRequest, Position};
pub use receipt::{NewReceipt, ReceiptState, ReceiptStore};
pub use subscription::{IndexEntry, Inserted, SubscriptionChanges, SubscriptionStore, Updated};

/// Everything a backend has to do; implemented for whatever implements the roles.
pub trait Store:
    SubscriptionStore + EventStore + DeliveryStore + HistoryStore + MaintenanceStore + CaptureStore + ReceiptStore
{
}

impl<S> Store for S where
    S: SubscriptionStore + EventStore + DeliveryStore + HistoryStore + MaintenanceStore + CaptureStore + ReceiptStore
{
}
