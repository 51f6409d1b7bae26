//! Keeps things in order: match indexes, history, what deleted subscriptions left behind, the figures of the backlog.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::context::Context;
use crate::index::Indexes;
use crate::store::{CapturePruneRequest, PruneRequest};

/// How often other processes' changes to subscriptions are looked for.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// How often the backlog is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(10);
/// How often what waits for deleted subscriptions is looked for, where their deletion did not cancel all of it.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(10);
/// Events looked at in one step of pruning, and the pause between steps.
const PRUNE_STEP: u32 = 1000;
const PRUNE_PAUSE: Duration = Duration::from_millis(20);

/// The work beside delivering.
#[derive(Debug)]
pub(crate) struct Sweeper {
    context: Arc<Context>,
    indexes: Arc<Indexes>,
}

impl Sweeper {
    pub(crate) fn new(context: Arc<Context>, indexes: Arc<Indexes>) -> Self {
        Self { context, indexes }
    }

    /// All of it, until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let upkeep = async { tokio::join!(self.clean_for_ever(), self.cancel_for_ever(), self.measure_for_ever()) };
        let work = async { tokio::join!(self.refresh_for_ever(), upkeep) };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = work => {}
        }
    }

    /// Only what every process needs, until `shutdown`.
    pub(crate) async fn refresh(&self, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.refresh_for_ever() => {}
        }
    }

    async fn refresh_for_ever(&self) {
        loop {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            if let Err(error) = self.indexes.refresh_all().await {
                tracing::debug!(%error, "indexes were not refreshed");
            }
        }
    }

    async fn clean_for_ever(&self) {
        loop {
            match self.clean().await {
                Ok(0) => {}
                Ok(events) => tracing::info!(events, "history was pruned"),
                Err(error) => tracing::warn!(%error, "history was not pruned; trying again at the next interval"),
            }
            match self.clean_captures().await {
                Ok(0) => {}
                Ok(requests) => tracing::info!(requests, "captured requests were pruned"),
                Err(error) => tracing::warn!(%error, "captured requests were not pruned; trying again later"),
            }
            if let Err(error) = self.clean_receipts().await {
                tracing::warn!(%error, "expired messages were not forgotten; trying again later");
            }
            tokio::time::sleep(self.context.options.cleanup_interval).await;
        }
    }

    async fn cancel_for_ever(&self) {
        loop {
            tokio::time::sleep(ORPHANS_INTERVAL).await;
            if let Err(error) = self.cancel_orphans().await {
                tracing::warn!(%error, "what waits for deleted subscriptions was not cancelled; trying again soon");
            }
        }
    }

    async fn cancel_orphans(&self) -> Result<(), Error> {
        let store = &self.context.store;
        while self.context.patiently(store.cancel_orphans(self.context.now(), PRUNE_STEP)).await?
            == u64::from(PRUNE_STEP)
        {}
        Ok(())
    }

    /// Removes the history that is old enough, in small steps; how many events went.
    pub(crate) async fn clean(&self) -> Result<u64, Error> {
        let store = &self.context.store;
        if let Err(error) = self.cancel_orphans().await {
            // History is old enough all the same.
            tracing::warn!(%error, "what waits for deleted subscriptions was not cancelled");
        }
        let now = self.context.now();
        let ended_before = now - self.context.options.retention;
        let (mut events, mut cursor) = (0, None);
        loop {
            let request = PruneRequest { ended_before, now, cursor, limit: PRUNE_STEP };
            let step = self.context.patiently(store.prune(request)).await?;
            events += step.events;
            crate::metrics::pruned(step.events);
            // Keys that are left over take further steps, which look at the last events again.
            if step.cursor.is_none() && !step.more_keys {
                return Ok(events);
            }
            cursor = step.cursor.or(cursor);
            tokio::time::sleep(PRUNE_PAUSE).await;
        }
    }

    /// Removes captured requests that are old enough and paths that have expired, in small steps; how many requests went.
    pub(crate) async fn clean_captures(&self) -> Result<u64, Error> {
        let now = self.context.now();
        let received_before = now - self.context.options.capture_retention;
        let request = CapturePruneRequest { received_before, now, limit: PRUNE_STEP };
        let mut requests = 0;
        loop {
            let step = self.context.patiently(self.context.store.prune_captured(request)).await?;
            requests += step.requests;
            crate::metrics::captures_pruned(step.requests);
            if !step.more {
                return Ok(requests);
            }
            tokio::time::sleep(PRUNE_PAUSE).await;
        }
    }

    /// Forgets inbound messages that have expired, in small steps.
    pub(crate) async fn clean_receipts(&self) -> Result<(), Error> {
        let now = self.context.now();
        while self.context.patiently(self.context.store.forget_receipts(now, PRUNE_STEP)).await?
            == u64::from(PRUNE_STEP)
        {
            tokio::time::sleep(PRUNE_PAUSE).await;
        }
        Ok(())
    }

    async fn measure_for_ever(&self) {
        loop {
            let now = self.context.now();
            match self.context.patiently(self.context.store.backlog(now)).await {
                Ok(backlog) => crate::metrics::backlog(backlog, now),
                Err(error) => tracing::debug!(%error, "the backlog was not measured"),
            }
            tokio::time::sleep(MEASURE_INTERVAL).await;
        }
    }
}
