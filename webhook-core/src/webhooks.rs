//! The handle: everything a host does with webhooks.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::builder::WebhooksBuilder;
use crate::capture::Capturer;
use crate::context::Context;
use crate::emit::Emitter;
use crate::index::Indexes;
use crate::store::Store;
use crate::sweeper::Sweeper;
use crate::worker::Worker;
use crate::{Error, Options, Receipts, Signers, Timestamp, announcer};

/// Sends webhooks. Cheap to clone; every clone is the same engine.
#[derive(Clone, Debug)]
pub struct Webhooks {
    engine: Arc<Engine>,
}

#[derive(Debug)]
struct Engine {
    context: Arc<Context>,
    indexes: Arc<Indexes>,
    worker: Arc<Worker>,
    emitter: Emitter,
    capturer: Capturer,
    sweeper: Sweeper,
}

/// What a process does besides answering calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Delivers, and keeps the store in order.
    Worker,
    /// Neither: others deliver what is accepted here.
    Api,
}

impl Webhooks {
    /// Starts to build an engine on `store`.
    pub fn builder(store: Arc<dyn Store>) -> WebhooksBuilder {
        WebhooksBuilder::new(store)
    }

    pub(crate) fn from_context(context: Context) -> Self {
        let context = Arc::new(context);
        let indexes = Arc::new(Indexes::new(Arc::clone(&context)));
        let worker = Worker::new(Arc::clone(&context), Arc::clone(&indexes));
        let emitter = Emitter::new(Arc::clone(&context), Arc::clone(&indexes), Arc::clone(&worker));
        let capturer = Capturer::new(Arc::clone(&context), Arc::clone(&worker));
        let sweeper = Sweeper::new(Arc::clone(&context), Arc::clone(&indexes));
        Self { engine: Arc::new(Engine { context, indexes, worker, emitter, capturer, sweeper }) }
    }

    /// Runs the engine until `shutdown` is cancelled: wake-ups and index refresh in every process, and in a
    /// [`Role::Worker`] delivery and retention.
    ///
    /// Without it emitting is still correct, only slower: some other process has to deliver. On shutdown it stops
    /// claiming, lets what is in flight end within [`Options::grace`], releases the rest, and returns.
    pub async fn run(&self, role: Role, shutdown: CancellationToken) {
        let engine = &self.engine;
        match role {
            Role::Worker => {
                tokio::join!(
                    engine.worker.run(shutdown.clone()),
                    engine.sweeper.run(shutdown.clone()),
                    self.hear(shutdown)
                );
            }
            Role::Api => {
                tokio::join!(engine.sweeper.refresh(shutdown.clone()), self.hear(shutdown));
            }
        }
    }

    /// Hears what other processes say, until `shutdown`.
    async fn hear(&self, shutdown: CancellationToken) {
        let engine = &self.engine;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = announcer::listen(&engine.context, &engine.indexes, &engine.worker) => {}
        }
    }

    /// Says that there are due deliveries, here and to other processes: after a host's own transaction with an
    /// adapter's `emit_in` has committed.
    pub fn wake(&self) {
        self.engine.worker.wake_without_hint();
        self.engine.context.announcer.due();
    }

    /// Remembers inbound messages, so that each is handled once.
    pub fn receipts(&self) -> Receipts {
        Receipts::new(Arc::clone(&self.engine.context))
    }

    /// Ok when the store answers.
    pub async fn check_store(&self) -> Result<(), Error> {
        Ok(self.engine.context.in_time(self.engine.context.store.ping()).await?)
    }

    /// Whether the queue answers; none when the store is the queue.
    pub async fn check_queue(&self) -> Option<Result<(), crate::QueueError>> {
        self.engine.worker.check_queue().await
    }

    /// What the queue is called, where there is one.
    pub fn queue_name(&self) -> Option<&'static str> {
        Some(self.engine.context.queue.as_ref()?.name())
    }

    /// When a worker of this process was last told which deliveries are due; none before it first was.
    pub fn last_claim(&self) -> Option<Timestamp> {
        self.engine.worker.last_claim()
    }

    /// The engine's limits and intervals.
    pub fn options(&self) -> &Options {
        &self.engine.context.options
    }

    /// The signature schemes there are.
    pub fn signers(&self) -> &Signers {
        &self.engine.context.signers
    }

    /// The time now, by the engine's clock.
    pub fn now(&self) -> Timestamp {
        self.engine.context.now()
    }

    /// A fresh version 7 UUID by the engine's clock and entropy: for a request that came without an id of its own.
    pub fn new_request_id(&self) -> Uuid {
        self.engine.context.new_id()
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.engine.context
    }

    pub(crate) fn indexes(&self) -> &Indexes {
        &self.engine.indexes
    }

    pub(crate) fn emitter(&self) -> &Emitter {
        &self.engine.emitter
    }

    pub(crate) fn capturer(&self) -> &Capturer {
        &self.engine.capturer
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.engine.worker
    }
}
