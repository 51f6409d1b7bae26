//! Builds an engine.

use std::sync::Arc;

use crate::announcer::Announcer;
use crate::context::Context;
use crate::id::Ids;
use crate::inbox::Handlers;
use crate::shelf::Shelf;
use crate::{
    AddressGuard, Clock, Entropy, InboxHandler, Keyring, LocalRateLimiter, Notifier, Options, OsEntropy, Queue,
    RateLimiter, RetryPolicy, RetrySchedule, SharedCache, Signer, Signers, Source, Store, Transport, Webhooks,
};

/// An engine could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No transport was given, and this build has none of its own (feature `http`).
    #[error("no transport was given, and this build has none of its own")]
    NoTransport,
    /// The HTTP transport could not be built.
    #[error("the HTTP transport could not be built")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Builds a [`Webhooks`] engine; everything but the store has a default.
#[derive(Debug)]
#[must_use]
pub struct WebhooksBuilder {
    store: Arc<dyn Store>,
    queue: Option<Arc<dyn Queue>>,
    transport: Option<Arc<dyn Transport>>,
    guard: AddressGuard,
    signers: Signers,
    keyring: Keyring,
    retry: Arc<dyn RetryPolicy>,
    limiter: Arc<dyn RateLimiter>,
    handlers: Handlers,
    notifiers: Vec<Arc<dyn Notifier>>,
    cache: Option<Arc<dyn SharedCache>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: Options,
}

impl WebhooksBuilder {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            notifiers: store.notifier().into_iter().collect(),
            clock: store.clock(),
            store,
            queue: None,
            cache: None,
            transport: None,
            guard: AddressGuard::new(),
            signers: Signers::default(),
            keyring: Keyring::plain(),
            retry: Arc::new(RetrySchedule::default()),
            limiter: Arc::new(LocalRateLimiter::new()),
            handlers: Handlers::default(),
            entropy: Arc::new(OsEntropy),
            options: Options::default(),
        }
    }

    /// Hints go through this queue. By default there is none: the store is the queue.
    pub fn queue(mut self, queue: Arc<dyn Queue>) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Attempts go through this transport. By default through HTTP behind the guard.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// What may be reached. By default public addresses over https only.
    pub fn guard(mut self, guard: AddressGuard) -> Self {
        self.guard = guard;
        self
    }

    /// One more signature scheme, or another one under a known name.
    pub fn signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signers = self.signers.with(signer);
        self
    }

    /// Seals secrets at rest. By default they are stored in clear.
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = keyring;
        self
    }

    /// The policy of subscriptions without their own. By default 12 attempts over about three days.
    pub fn retry(mut self, retry: Arc<dyn RetryPolicy>) -> Self {
        self.retry = retry;
        self
    }

    /// Counts rate limits. By default in this process.
    pub fn rate_limiter(mut self, limiter: Arc<dyn RateLimiter>) -> Self {
        self.limiter = limiter;
        self
    }

    /// One more that carries signals between the processes that share the store, beside the store's own, where it has one:
    /// everything is said through all of them, and what one misses another one carries.
    pub fn notifier(mut self, notifier: Arc<dyn Notifier>) -> Self {
        self.notifiers.push(notifier);
        self
    }

    /// Subscriptions and match indexes are shared between processes in this cache, encrypted with the keyring's keys and
    /// for [`Options::cache_ttl`] at most, so that a new process asks the store for less. Without keys nothing is shared.
    /// By default there is none.
    pub fn shared_cache(mut self, cache: Arc<dyn SharedCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Handles what [`Webhooks::receive`] stored from that source. Every process that delivers should have the same
    /// handlers: what one without the handler claims waits for a minute.
    pub fn inbox(mut self, source: Source, handler: Arc<dyn InboxHandler>) -> Self {
        self.handlers.insert(source, handler);
        self
    }

    /// Tells the time. By default the store's own clock does: [`MaintenanceStore::clock`].
    ///
    /// [`MaintenanceStore::clock`]: crate::store::MaintenanceStore::clock
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where chance comes from. By default from the operating system.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Limits and intervals.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Builds the engine. It does nothing by itself: see [`Webhooks::run`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] when there is no transport or it cannot be built.
    pub fn build(self) -> Result<Webhooks, BuildError> {
        let transport = match self.transport {
            Some(transport) => transport,
            None => default_transport(&self.guard)?,
        };
        Ok(Webhooks::from_context(Context {
            store: self.store,
            queue: self.queue,
            transport,
            guard: self.guard,
            signers: self.signers,
            keyring: self.keyring,
            retry: self.retry,
            limiter: self.limiter,
            handlers: self.handlers,
            announcer: Announcer::new(self.notifiers),
            shelf: Shelf::new(self.cache),
            ids: Ids::new(Arc::clone(&self.clock), Arc::clone(&self.entropy)),
            clock: self.clock,
            entropy: self.entropy,
            options: self.options,
        }))
    }
}

#[cfg(feature = "tls-ring")]
fn default_transport(guard: &AddressGuard) -> Result<Arc<dyn Transport>, BuildError> {
    let transport = crate::HttpTransport::builder(guard.clone()).build();
    Ok(Arc::new(transport.map_err(|error| BuildError::Transport(error.into()))?))
}

#[cfg(not(feature = "tls-ring"))]
fn default_transport(_: &AddressGuard) -> Result<Arc<dyn Transport>, BuildError> {
    Err(BuildError::NoTransport)
}
