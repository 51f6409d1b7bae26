#![doc = include_str!("../README.md")]

mod announcer;
mod attempt;
mod builder;
mod cache;
mod capture;
mod clock;
mod context;
mod deliveries;
mod delivery;
mod draft;
mod emit;
mod entropy;
mod error;
mod event;
mod event_type;
mod events;
mod group_commit;
mod id;
mod inbox;
mod index;
mod keyring;
mod matching;
mod metrics;
mod notifier;
mod options;
mod pattern;
pub mod queue;
mod rate_limit;
mod receipt;
mod retry;
mod secret;
mod shelf;
mod signature;
pub mod store;
mod subscription;
mod subscriptions;
mod sweeper;
mod target;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;
pub mod transport;
pub mod verify;
mod webhooks;
mod worker;

pub use attempt::{Attempt, AttemptFailure, ErrorKind};
pub use builder::{BuildError, WebhooksBuilder};
pub use cache::{CacheError, SharedCache};
pub use capture::{
    CaptureFilter, CapturePath, CaptureWatch, Captured, CapturedRequest, CustomResponse, HeaderField, IncomingRequest,
    LivePath, ParsePathIdError, PathCreated, PathDraft, PathId, PathSettings, PathVersion, Refusal, ReplayRequest,
    Replayed, WatchEvent,
};
pub use clock::{Clock, SystemClock};
pub use deliveries::DeliveryView;
pub use delivery::{Delivery, DeliveryState, Hint, ParseDeliveryStateError, Reason};
pub use draft::{SecretChange, SubscriptionDraft};
pub use emit::{AdHocTarget, DirectTarget, Emitted, NewEvent, Prepared};
pub use entropy::{Entropy, OsEntropy};
pub use error::{Conflict, Error, Invalid, Noun};
pub use event::{Event, EventReceipt, EventSummary, Target};
pub use event_type::{EventType, ParseEventTypeError};
pub use events::EventStatus;
pub use group_commit::{BatchLost, GroupCommit};
pub use id::{
    AttemptId, CaptureId, DeliveryId, EventId, ParseIdError, ParseTenantError, PathKey, SubscriptionId, TargetId,
    TenantId,
};
pub use inbox::{HandlerError, InboxHandler, InboxMessage, ReceivedMessage};
#[cfg(feature = "encryption")]
pub use keyring::{EncryptionKey, KeyringConfigError, ParseEncryptionKeyError};
pub use keyring::{KeyId, Keyring, KeyringError, ParseKeyIdError, Sealed};
pub use matching::{MatchIndex, TooMany};
pub use notifier::{Notifier, NotifierError, Signal};
pub use options::Options;
pub use pattern::{EventPattern, ParseEventPatternError};
pub use queue::{MemoryQueue, Queue, QueueError};
pub use rate_limit::{Grant, LocalRateLimiter, RateLimit, RateLimitError, RateLimiter, RateLimiterError, TokenRequest};
pub use receipt::{Beginning, Handling, ParseSourceError, ReceiptKey, Receipts, Source};
pub use retry::{
    ExponentialBackoff, FailedAttempt, MAX_RETRY_AFTER, RetryPolicy, RetryPolicyError, RetrySchedule, RetrySpec,
    next_due, parse_retry_after,
};
pub use secret::Secret;
#[cfg(feature = "ed25519")]
pub use signature::Ed25519Signer;
pub use signature::{Message, PlainSigner, SecretError, SignError, Signer, Signers, StandardSigner};
pub use store::{MemoryStore, Store, StoreError};
pub use subscription::{
    DisabledReason, Generation, PreviousSecret, SubscriptionRecord, SubscriptionSecrets, SubscriptionSettings,
};
pub use subscriptions::{NewSubscription, RevealedSecret, Subscribed, Subscription};
pub use timestamp::{ParseTimestampError, Timestamp};
#[cfg(feature = "http")]
pub use transport::HttpTransport;
pub use transport::{
    AddressGuard, Blocked, Deadlines, OutboundRequest, OutboundResponse, TargetError, Transport, TransportError,
};
pub use verify::{Inbound, Verified, Verifier, VerifyFailure, verify_ingest};
pub use webhooks::{Role, Webhooks};
