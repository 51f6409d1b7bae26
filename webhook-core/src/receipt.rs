//! The memory of inbound messages: each is handled once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::store::{LeaseToken, NewReceipt, ReceiptState};
use crate::{Error, TenantId, Timestamp};

/// The longest message id, in bytes.
const MAX_ID: usize = 255;

/// Where messages come from: message ids count for their source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Source(Arc<str>);

/// The text cannot name a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a source is 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'")]
pub struct ParseSourceError;

impl Source {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
            return Err(ParseSourceError);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for Source {
    type Error = ParseSourceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.0.as_ref().to_owned()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an inbound message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReceiptKey {
    /// Whose message this is.
    pub tenant: TenantId,
    /// Where it came from.
    pub source: Source,
    /// What the sender calls it: 1 to 255 bytes of any text.
    pub message_id: String,
}

impl ReceiptKey {
    /// The message that `source` calls `message_id`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where the id is empty or longer than 255 bytes.
    pub fn new(tenant: TenantId, source: Source, message_id: impl Into<String>) -> Result<Self, Error> {
        let message_id = message_id.into();
        if !(1..=MAX_ID).contains(&message_id.len()) {
            return Err(Error::invalid("message_id", "a message id is 1 to 255 bytes long"));
        }
        Ok(Self { tenant, source, message_id })
    }
}

/// Handles each inbound message once, by its id: [`Webhooks::receipts`](crate::Webhooks::receipts).
///
/// How long an id is remembered has nothing to do with how old a signature may be: senders repeat a message for days,
/// each time freshly signed.
#[derive(Clone, Debug)]
pub struct Receipts {
    context: Arc<Context>,
    lease: Duration,
    memory: Duration,
}

/// What to do with an inbound message.
#[derive(Debug)]
pub enum Beginning {
    /// Handle it.
    New(Handling),
    /// It was handled; this was the answer.
    Handled(Vec<u8>),
    /// Somebody handles it, with a lease until then: ask again, or let the sender do so.
    InProgress(Timestamp),
    /// Something else was sent under this id.
    Conflict,
}

impl Receipts {
    pub(crate) const fn new(context: Arc<Context>) -> Self {
        Self { context, lease: Duration::from_secs(60), memory: Duration::from_secs(7 * 24 * 3600) }
    }

    /// How long a handler may take before it is taken for dead and the message handled again: 60 s.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long a message is remembered after it was handled: 7 days. Longer than its sender repeats it.
    #[must_use]
    pub const fn with_memory(mut self, memory: Duration) -> Self {
        self.memory = memory;
        self
    }

    /// Finds out whether the message with that body was handled, and takes it on where nobody has.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn begin(&self, key: ReceiptKey, body: &[u8]) -> Result<Beginning, Error> {
        let now = self.context.now();
        let token = LeaseToken::new(self.context.entropy.next_u64());
        let receipt = NewReceipt::new(key, Sha256::digest(body).into(), token, now, now + self.lease);
        let receipt = receipt.with_expires_at(now + self.lease + self.memory);
        Ok(match self.context.in_time(self.context.store.begin_receipt(&receipt)).await? {
            ReceiptState::New => Beginning::New(Handling { receipts: self.clone(), key: receipt.key, token }),
            ReceiptState::Handled(answer) => Beginning::Handled(answer),
            ReceiptState::InProgress(until) => Beginning::InProgress(until),
            ReceiptState::Conflict => Beginning::Conflict,
        })
    }
}

/// A message that is to be handled here. Say how it ended: where nothing is said, nobody handles it again before the
/// lease has ended.
#[must_use = "others wait for the end of the lease"]
#[derive(Debug)]
pub struct Handling {
    receipts: Receipts,
    key: ReceiptKey,
    token: LeaseToken,
}

impl Handling {
    /// It was handled, and a repeat is answered so. False where the lease had ended and somebody else took the message
    /// over: it may have been handled twice.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn complete(self, answer: &[u8]) -> Result<bool, Error> {
        let context = &self.receipts.context;
        let expires_at = context.now() + self.receipts.memory;
        Ok(context.in_time(context.store.complete_receipt(&self.key, self.token, answer, expires_at)).await?)
    }

    /// It was not handled, and may be tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn fail(self) -> Result<bool, Error> {
        let context = &self.receipts.context;
        Ok(context.in_time(context.store.fail_receipt(&self.key, self.token)).await?)
    }
}
