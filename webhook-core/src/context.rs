//! What every part of the engine needs.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::announcer::Announcer;
use crate::id::Ids;
use crate::inbox::Handlers;
use crate::shelf::Shelf;
use crate::transport::AddressGuard;
use crate::{
    Clock, Entropy, Keyring, Options, Queue, RateLimiter, RetryPolicy, Signers, Store, StoreError, Timestamp, Transport,
};

/// Longer than a store waits for a lock. What is still without an answer has lost its connection, most likely, and well
/// within a lease it can be asked for again on another one.
const ANSWER: Duration = Duration::from_secs(15);
/// Upkeep may read much. A store that has its own limits has given up by then.
const UPKEEP: Duration = Duration::from_secs(40);

/// What a caller who searches is likely to wait for.
const SEARCH: Duration = Duration::from_secs(60);

/// The seams and limits of one engine.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) queue: Option<Arc<dyn Queue>>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) guard: AddressGuard,
    pub(crate) signers: Signers,
    pub(crate) keyring: Keyring,
    pub(crate) retry: Arc<dyn RetryPolicy>,
    pub(crate) limiter: Arc<dyn RateLimiter>,
    pub(crate) handlers: Handlers,
    pub(crate) announcer: Announcer,
    pub(crate) shelf: Shelf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) ids: Ids,
    pub(crate) options: Options,
}

impl Context {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the store answers, if it does so in time: whatever waits for its turn behind this call would otherwise wait for
    /// ever. Like any unavailable store, it may have done what was asked.
    pub(crate) async fn in_time<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        within(ANSWER, call).await
    }

    /// The same for a search, which goes through much in small steps. A store that does not answer says so itself.
    pub(crate) async fn searching<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(SEARCH, call).await
    }

    /// The same for upkeep, which nobody waits for.
    pub(crate) async fn patiently<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(UPKEEP, call).await
    }

    pub(crate) fn new_id(&self) -> Uuid {
        self.ids.next()
    }

    /// Ids of what belongs together: a store may keep those of one run in one place.
    pub(crate) fn new_ids(&self) -> impl Iterator<Item = Uuid> {
        self.ids.runs()
    }
}

async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Unavailable(format!("no answer within {} s", deadline.as_secs()).into()));
    tokio::time::timeout(deadline, call).await.unwrap_or_else(late)
}
