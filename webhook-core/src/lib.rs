#![doc = include_str!("../README.md")]

mod attempt;
mod clock;
mod delivery;
mod entropy;
mod event;
mod group_commit;
mod id;
pub mod queue;
mod secret;
pub mod store;
mod stubs;
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;

pub use attempt::{Attempt, AttemptFailure, ErrorKind};
pub use clock::{Clock, SystemClock};
pub use delivery::{Delivery, DeliveryState, Hint, ParseDeliveryStateError, Reason};
pub use entropy::{Entropy, OsEntropy};
pub use event::{Event, EventReceipt, EventSummary, Target};
pub use group_commit::{BatchLost, GroupCommit};
pub use id::{AttemptId, DeliveryId, EventId, ParseIdError, ParseTenantError, SubscriptionId, TargetId, TenantId};
pub use queue::{MemoryQueue, Queue, QueueError};
pub use secret::Secret;
pub use store::{MemoryStore, Store, StoreError};
pub use stubs::*;
pub use subscription::{
    DisabledReason, Generation, PreviousSecret, SubscriptionRecord, SubscriptionSecrets, SubscriptionSettings,
};
pub use timestamp::{ParseTimestampError, Timestamp};
