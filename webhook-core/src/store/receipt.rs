//! The role that remembers inbound messages.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{LeaseToken, StoreError};
use crate::{ReceiptKey, Timestamp};

/// Somebody wants to handle an inbound message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewReceipt {
    /// Which message.
    pub key: ReceiptKey,
    /// What was sent under this id: the SHA-256 of the body.
    pub fingerprint: [u8; 32],
    /// The token of the lease.
    pub token: LeaseToken,
    /// The time now.
    pub now: Timestamp,
    /// When the lease ends: whoever handles the message has crashed if it is not completed by then.
    pub lease_until: Timestamp,
    /// From then on nobody remembers the message.
    pub expires_at: Timestamp,
}

impl NewReceipt {
    /// The message `key` with that fingerprint, leased from `now` to `lease_until`, and remembered as long.
    pub const fn new(
        key: ReceiptKey,
        fingerprint: [u8; 32],
        token: LeaseToken,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Self {
        Self { key, fingerprint, token, now, lease_until, expires_at: lease_until }
    }

    /// Remembered until then.
    #[must_use]
    pub const fn with_expires_at(mut self, expires_at: Timestamp) -> Self {
        self.expires_at = expires_at;
        self
    }
}

/// What is known of an inbound message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// Nothing: whoever asked has the lease, and handles it.
    New,
    /// It was handled, and answered so.
    Handled(Vec<u8>),
    /// Somebody handles it, with a lease until then.
    InProgress(Timestamp),
    /// Something else was sent under this id.
    Conflict,
}

/// Remembers inbound messages, so that each is handled once.
#[async_trait]
pub trait ReceiptStore: Debug + Send + Sync + 'static {
    /// Takes the lease on a message that is new.
    ///
    /// # Contract
    ///
    /// - Of concurrent calls with one key exactly one finds it new.
    /// - An id counts for its tenant and source, any text is one, and letter case matters.
    /// - One that was handled gives the answer, byte for byte, and one with an open lease when that ends; neither changes.
    /// - A lease that has ended is taken over: the message is new, under the new token.
    /// - Another fingerprint is a conflict, whatever became of the first, and changes nothing.
    /// - From `expires_at` on the message is new, whatever was known of it.
    async fn begin_receipt(&self, receipt: &NewReceipt) -> Result<ReceiptState, StoreError>;

    /// Remembers the answer until `expires_at`; whether the lease was the current one.
    ///
    /// # Contract
    ///
    /// - It counts only with the token of the current lease, also after that has ended while nobody took it over.
    ///   Otherwise nothing changes.
    async fn complete_receipt(
        &self,
        key: &ReceiptKey,
        token: LeaseToken,
        answer: &[u8],
        expires_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Forgets a message that could not be handled; whether the lease was the current one.
    ///
    /// # Contract
    ///
    /// - It counts only with the token of the current lease, and not after that was completed. Otherwise nothing changes.
    /// - The message is new from then on, also with another fingerprint.
    async fn fail_receipt(&self, key: &ReceiptKey, token: LeaseToken) -> Result<bool, StoreError>;

    /// Removes what has expired; how much.
    ///
    /// # Contract
    ///
    /// - At most `limit`, and nothing that has not expired by `now`.
    async fn forget_receipts(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError>;
}
