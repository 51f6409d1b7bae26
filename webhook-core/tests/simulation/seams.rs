//! What a node sees of the store, the queue and the network.

use std::sync::{Arc, Mutex};

use webhook_core::{
    ErrorKind, Hint, MemoryQueue, OutboundRequest, OutboundResponse, Queue, QueueError, StoreError, Timestamp,
    Transport, TransportError,
};

use crate::audit::Audit;
use crate::node::{Done, Node};
use crate::receiver::Receiver;
use crate::world::Plant;

/// The store that all nodes share, as one of them reaches it.
#[derive(Debug)]
pub(crate) struct NodeStore {
    pub(crate) inner: Arc<Audit>,
    pub(crate) node: Arc<Node>,
}

impl NodeStore {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let fail = |done| match done {
            // Now and then it is one that says for sure that nothing happened.
            Done::Nothing if self.node.chance().hits(200) => StoreError::Other(format!("{method} was refused").into()),
            _ => StoreError::Unavailable(format!("{method} was to fail").into()),
        };
        self.node.pass(method, call, fail).await
    }
}

webhook_core::wrap_store!(NodeStore);

/// The queue that all nodes share; it can lose everything.
#[derive(Debug, Default)]
pub(crate) struct SharedQueue {
    queue: Mutex<Arc<MemoryQueue>>,
}

impl SharedQueue {
    pub(crate) fn flush(&self) {
        *self.queue.lock().unwrap() = Arc::default();
    }

    fn queue(&self) -> Arc<MemoryQueue> {
        Arc::clone(&self.queue.lock().unwrap())
    }
}

/// The queue, as one node reaches it: hints come twice and in any order.
#[derive(Debug)]
pub(crate) struct NodeQueue {
    pub(crate) shared: Arc<SharedQueue>,
    pub(crate) node: Arc<Node>,
}

impl NodeQueue {
    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, QueueError>> + Send,
    ) -> Result<T, QueueError> {
        let fail = |_| QueueError::Unavailable(format!("{method} was to fail").into());
        self.node.pass(method, call, fail).await
    }

    /// Whether the network is to double what goes through it now.
    fn doubles(&self) -> bool {
        !self.node.world.is_calm() && self.node.chance().hits(self.node.weather.doubles)
    }
}

#[async_trait::async_trait]
impl Queue for NodeQueue {
    async fn push(&self, hints: &[Hint]) -> Result<(), QueueError> {
        let queue = self.shared.queue();
        let times = if self.doubles() { 2 } else { 1 };
        for _ in 1..times {
            self.around("push", queue.push(hints)).await?;
        }
        self.around("push", queue.push(hints)).await
    }

    async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Result<Vec<Hint>, QueueError> {
        let queue = self.shared.queue();
        let mut hints = self.around("pop", queue.pop(now, hold_until, limit)).await?;
        if !hints.is_empty() && self.doubles() {
            hints.reverse();
            hints.extend(hints.first().copied());
            hints.truncate(limit as usize);
        }
        Ok(hints)
    }

    async fn done(&self, hints: &[Hint]) -> Result<(), QueueError> {
        let queue = self.shared.queue();
        self.around("done", queue.done(hints)).await
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        let queue = self.shared.queue();
        self.around("depth", queue.depth()).await
    }
}

/// The network, as one node reaches it.
#[derive(Debug)]
pub(crate) struct NodeTransport {
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) node: Arc<Node>,
}

#[async_trait::async_trait]
impl Transport for NodeTransport {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let (node, total) = (&self.node, request.deadlines.total);
        node.gate().await;
        let lost = !node.world.is_calm() && node.chance().hits(node.weather.fails_after);
        if !node.world.is_calm() && node.chance().hits(node.weather.fails) {
            return Err(TransportError::new(ErrorKind::Connect, "no connection"));
        }
        let expected = self.receiver.expect_end(node, total);
        let exchange = self.receiver.take(node, request);
        let answer = if node.world.plant == Some(Plant::HasNoDeadline) {
            exchange.await
        } else {
            let late = |_| Err(TransportError::new(ErrorKind::Timeout, "no answer within the deadline"));
            tokio::time::timeout(total, exchange).await.unwrap_or_else(late)
        };
        expected.came();
        node.gate().await;
        if lost { Err(TransportError::new(ErrorKind::Protocol, "the answer was lost")) } else { answer }
    }
}
