//! The seam between processes that share a store: what they tell each other, so that nobody waits for the next poll.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::TenantId;

/// What one process tells the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// There are deliveries that are due now.
    Due,
    /// The tenant's subscriptions changed.
    SubscriptionsChanged(TenantId),
    /// Signals may have been missed: look at everything. Heard when listening begins, and after every gap.
    Missed,
}

/// A notifier could not say or hear anything; everybody still finds out at the next poll.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifierError {
    /// It cannot be reached, or the connection broke off.
    #[error("the notifier is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Carries signals between processes. They only accelerate: whatever gets lost is found by polling.
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// Tells the other processes.
    ///
    /// # Contract
    ///
    /// - Everybody who listens hears it, unless the connection is lost in between; whoever said it may hear it too.
    async fn publish(&self, signals: &[Signal]) -> Result<(), NotifierError>;

    /// Listens until that is no longer possible, and tells why. The caller listens again, after a pause.
    ///
    /// # Contract
    ///
    /// - [`Signal::Missed`] is heard as soon as it listens, and whenever signals may have been lost.
    /// - Dropping the future ends it at any time.
    async fn listen(&self, heard: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError;
}
