#![doc = include_str!("../README.md")]

mod attempt;
mod clock;
mod delivery;
mod entropy;
mod event;
mod event_type;
mod group_commit;
mod id;
mod keyring;
mod matching;
mod pattern;
pub mod queue;
mod rate_limit;
mod retry;
mod secret;
mod signature;
pub mod store;
mod subscription;
mod timestamp;
pub mod transport;

pub use attempt::{Attempt, AttemptFailure, ErrorKind};
pub use clock::{Clock, SystemClock};
pub use delivery::{Delivery, DeliveryState, Hint, ParseDeliveryStateError, Reason};
pub use entropy::{Entropy, OsEntropy};
pub use event::{Event, EventReceipt, EventSummary, Target};
pub use event_type::{EventType, ParseEventTypeError};
pub use group_commit::{BatchLost, GroupCommit};
pub use id::{AttemptId, DeliveryId, EventId, ParseIdError, ParseTenantError, SubscriptionId, TargetId, TenantId};
#[cfg(feature = "encryption")]
pub use keyring::{EncryptionKey, KeyringConfigError, ParseEncryptionKeyError};
pub use keyring::{KeyId, Keyring, KeyringError, ParseKeyIdError, Sealed};
pub use matching::{MatchIndex, TooMany};
pub use pattern::{EventPattern, ParseEventPatternError};
pub use queue::{MemoryQueue, Queue, QueueError};
pub use rate_limit::{Grant, LocalRateLimiter, RateLimit, RateLimitError, RateLimiter, RateLimiterError, TokenRequest};
pub use retry::{
    ExponentialBackoff, FailedAttempt, MAX_RETRY_AFTER, RetryPolicy, RetryPolicyError, RetrySchedule, RetrySpec,
    next_due, parse_retry_after,
};
pub use secret::Secret;
#[cfg(feature = "ed25519")]
pub use signature::Ed25519Signer;
pub use signature::{
    Message, PlainSigner, SecretError, SignError, Signer, Signers, StandardSigner, VerifyError, verify_ingest,
};
pub use store::{Store, StoreError};
pub use subscription::{
    DisabledReason, Generation, PreviousSecret, SubscriptionRecord, SubscriptionSecrets, SubscriptionSettings,
};
pub use timestamp::{ParseTimestampError, Timestamp};
#[cfg(feature = "http")]
pub use transport::HttpTransport;
pub use transport::{
    AddressGuard, Blocked, Deadlines, OutboundRequest, OutboundResponse, TargetError, Transport, TransportError,
};
