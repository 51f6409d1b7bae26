#![doc = include_str!("../README.md")]

mod attempt;
mod clock;
mod entropy;
mod id;
mod secret;
mod timestamp;
pub mod transport;

pub use attempt::ErrorKind;
pub use clock::{Clock, SystemClock};
pub use entropy::{Entropy, OsEntropy};
pub use id::{AttemptId, DeliveryId, EventId, ParseIdError, ParseTenantError, SubscriptionId, TargetId, TenantId};
pub use secret::Secret;
pub use timestamp::{ParseTimestampError, Timestamp};
#[cfg(feature = "http")]
pub use transport::HttpTransport;
pub use transport::{
    AddressGuard, Blocked, Deadlines, OutboundRequest, OutboundResponse, TargetError, Transport, TransportError,
};
