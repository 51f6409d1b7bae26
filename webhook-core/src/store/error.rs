//! How a store fails.

use std::error::Error;

/// A store could not do what was asked. Nothing of the call happened, unless it is [`StoreError::Unavailable`]: then
/// it may have happened without the answer arriving, and the caller must be able to ask again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be reached, is busy, or the connection broke off.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The schema is missing or of another version.
    #[error("the store's schema is not the one this version needs: {0}")]
    Schema(String),
    /// What the database holds does not make sense.
    #[error("the store holds something that cannot be read: {0}")]
    Corrupt(String),
    /// Anything else the database said.
    #[error("the store failed")]
    Other(#[source] Box<dyn Error + Send + Sync>),
}

impl StoreError {
    /// Asking again later may work.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
