//! How the handle's methods fail.

use crate::StoreError;

/// What a [`crate::Webhooks`] method could not do. Nothing of it happened, unless the store is unavailable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing, or it belongs to another tenant.
    #[error("{0} not found")]
    NotFound(Noun),
    /// Something given is not acceptable.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// What is asked contradicts what is.
    #[error("{0}")]
    Conflict(#[from] Conflict),
    /// The event matches more subscriptions than one event may be delivered to; nothing was stored.
    #[error("the event matches more than {limit} subscriptions")]
    FanOut {
        /// The largest fan-out allowed.
        limit: usize,
    },
    /// The payload is larger than allowed.
    #[error("the payload is larger than {limit} bytes")]
    TooLarge {
        /// The largest payload allowed, in bytes.
        limit: usize,
    },
    /// What was sealed at rest does not open with the keys that were given.
    #[error("a stored secret cannot be opened")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed; see [`StoreError::is_retryable`].
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Error {
    /// One field is not acceptable.
    pub fn invalid(field: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid(Invalid::field(field, message))
    }

    /// Asking again later may work.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// What was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Noun {
    /// A subscription.
    Subscription,
    /// An event.
    Event,
    /// A delivery.
    Delivery,
    /// A capture path.
    Path,
    /// A captured request.
    CapturedRequest,
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Subscription => "subscription",
            Self::Event => "event",
            Self::Delivery => "delivery",
            Self::Path => "path",
            Self::CapturedRequest => "captured request",
        })
    }
}

/// Fields that are not acceptable, each with what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalid {
    errors: Vec<(String, String)>,
}

impl Invalid {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One field is wrong.
    pub fn field(field: impl Into<String>, message: impl ToString) -> Self {
        let mut invalid = Self::new();
        invalid.push(field, message);
        invalid
    }

    /// One more field is wrong.
    pub fn push(&mut self, field: impl Into<String>, message: impl ToString) {
        self.errors.push((field.into(), message.to_string()));
    }

    /// Ok when nothing is wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.errors.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The fields with what is wrong, in the order found.
    pub fn errors(&self) -> &[(String, String)] {
        &self.errors
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (field, message)) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// What is asked contradicts what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The idempotency key was used before with another body.
    #[error("the idempotency key was used before with another body")]
    KeyReused,
    /// The delivery is being attempted right now.
    #[error("the delivery is being attempted right now")]
    InFlight,
    /// The delivery has ended.
    #[error("the delivery has ended")]
    Ended,
    /// The delivery's subscription was deleted.
    #[error("the delivery's subscription was deleted")]
    SubscriptionDeleted,
    /// It was changed by somebody else at the same time.
    #[error("it was changed at the same time")]
    Changed,
    /// There is a capture path of that name already.
    #[error("the path_id is taken")]
    PathTaken,
}
