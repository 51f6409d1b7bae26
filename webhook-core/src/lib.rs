#![doc = include_str!("../README.md")]

mod attempt;
mod clock;
mod entropy;
mod id;
mod keyring;
mod secret;
mod signature;
mod timestamp;

pub use attempt::ErrorKind;
pub use clock::{Clock, SystemClock};
pub use entropy::{Entropy, OsEntropy};
pub use id::{AttemptId, DeliveryId, EventId, ParseIdError, ParseTenantError, SubscriptionId, TargetId, TenantId};
#[cfg(feature = "encryption")]
pub use keyring::{EncryptionKey, KeyringConfigError, ParseEncryptionKeyError};
pub use keyring::{KeyId, Keyring, KeyringError, ParseKeyIdError, Sealed};
pub use secret::Secret;
#[cfg(feature = "ed25519")]
pub use signature::Ed25519Signer;
pub use signature::{
    Message, PlainSigner, SecretError, SignError, Signer, Signers, StandardSigner, VerifyError, verify_ingest,
};
pub use timestamp::{ParseTimestampError, Timestamp};
