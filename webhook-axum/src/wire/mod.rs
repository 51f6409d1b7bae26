//! What the API reads and writes, by noun.

mod attempt;
mod captured;
mod delivery;
mod event;
mod health;
mod ingest;
mod list;
mod path;
mod path_input;
mod scalar;
mod secret;
mod stats;
mod subscription;
mod subscription_input;

pub(crate) use attempt::Attempt;
pub(crate) use captured::{
    Body, CaptureReceipt, Captured, Credentials, DashboardStats, Encoding, FieldValue, ReplayInput, Replayed, Show,
};
pub(crate) use delivery::{Delivery, DeliveryAccepted, DeliveryWithLog};
pub(crate) use event::{BatchAnswer, BatchItem, Event, EventInput, EventReceipt, EventStatus, EventSummary};
pub(crate) use health::{Check, Health, Live, Ready};
pub(crate) use ingest::Ingested;
pub(crate) use list::{List, Pagination};
pub(crate) use path::{Path, PathSettings, PathStats};
pub(crate) use path_input::PathInput;
pub(crate) use scalar::{Id, Seconds, Time};
pub(crate) use secret::{RecoverInput, Recovered, RevealedSecret, RotateInput, RotatedSecret, TestInput};
pub(crate) use stats::{Activities, Stats};
pub(crate) use subscription::{Headers, REDACTED, Settings, Signature, Subscription};
pub(crate) use subscription_input::SubscriptionInput;
#[cfg(feature = "openapi")]
pub(crate) use {
    ingest::RawBody, path_input::PathPatch, subscription::CreatedSubscription, subscription_input::SubscriptionPatch,
};
