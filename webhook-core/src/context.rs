//! What every part of the engine needs.

use std::sync::Arc;

use uuid::Uuid;

use crate::announcer::Announcer;
use crate::id::Ids;
use crate::inbox::Handlers;
use crate::shelf::Shelf;
use crate::transport::AddressGuard;
use crate::{Clock, Entropy, Keyring, Options, Queue, RateLimiter, RetryPolicy, Signers, Store, Timestamp, Transport};

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

    pub(crate) fn new_id(&self) -> Uuid {
        self.ids.next()
    }
}
