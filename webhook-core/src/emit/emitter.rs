//! Accepts events: one transaction for all that come while the last one commits.

use std::sync::Arc;
use std::time::Duration;

use super::{Emitted, Prepared};
use crate::context::Context;
use crate::error::{Conflict, Noun};
use crate::index::Indexes;
use crate::store::{AcceptOutcome, AcceptUnit, IdempotencyKey, ItemOutcome};
use crate::worker::{Reserved, Worker};
use crate::{Error, Generation, GroupCommit, Hint, StoreError, TenantId};

/// One transaction weighs at most so much: an event counts one, so does a delivery, and so do 4 KiB of payload.
const BATCH_WEIGHT: usize = 4096;
/// How often an event is matched again when subscriptions keep changing under it.
const MATCHES: u32 = 16;
/// After the first few times it waits longer each time, 1.6 s in all: a burst of changes is over by then.
const MATCHES_AT_ONCE: u32 = 4;
const MATCHING_PAUSE: Duration = Duration::from_millis(20);

/// Accepts events in batches and hands their deliveries to the local worker, or wakes it.
#[derive(Debug)]
pub(crate) struct Emitter {
    context: Arc<Context>,
    indexes: Arc<Indexes>,
    worker: Arc<Worker>,
    group: GroupCommit<Arrival, Result<AcceptOutcome, StoreError>>,
}

#[derive(Debug)]
struct Arrival {
    unit: AcceptUnit,
    reserved: Vec<Reserved>,
}

impl Emitter {
    pub(crate) fn new(context: Arc<Context>, indexes: Arc<Indexes>, worker: Arc<Worker>) -> Self {
        let commit = Commit { context: Arc::clone(&context), worker: Arc::clone(&worker) };
        let group = GroupCommit::new(BATCH_WEIGHT, move |arrivals| commit.clone().run(arrivals));
        Self { context, indexes, worker, group }
    }

    /// Accepts the events, matching them again as long as subscriptions change in between.
    pub(crate) async fn accept(&self, mut prepared: Prepared) -> Result<Vec<Result<Emitted, Error>>, Error> {
        for times in 1..=MATCHES {
            let reserved = self.worker.reserve(&mut prepared);
            let unit = prepared.unit().clone();
            let weight =
                unit.items.iter().map(|item| 1 + item.deliveries.len() + item.event.payload.len() / 4096).sum();
            let outcome = self.group.submit(Arrival { unit, reserved }, weight).await;
            match outcome.map_err(|lost| StoreError::Unavailable(lost.into()))?? {
                AcceptOutcome::Done(outcomes) => return Ok(outcomes.into_iter().map(Emitted::try_from).collect()),
                AcceptOutcome::Conflict => return Err(Conflict::KeyReused.into()),
                AcceptOutcome::Stale => {
                    tokio::time::sleep(MATCHING_PAUSE * times.saturating_sub(MATCHES_AT_ONCE)).await;
                    prepared = self.match_again(prepared).await?;
                }
            }
        }
        let busy = std::io::Error::other("the tenant's subscriptions change faster than they can be matched");
        Err(StoreError::Unavailable(busy.into()).into())
    }
}

impl Emitter {
    /// What was answered under a key; none where it is free, and then nothing is stored.
    pub(crate) async fn known(
        &self,
        tenant: &TenantId,
        key: IdempotencyKey,
    ) -> Result<Option<Vec<Result<Emitted, Error>>>, Error> {
        // Keys come before generations, and this one never is.
        let mut unit = AcceptUnit::new(tenant.clone(), Generation::new(i64::MAX), Vec::new());
        unit.key = Some(key);
        let outcome = self.group.submit(Arrival { unit, reserved: Vec::new() }, 1).await;
        match outcome.map_err(|lost| StoreError::Unavailable(lost.into()))?? {
            AcceptOutcome::Done(outcomes) => Ok(Some(outcomes.into_iter().map(Emitted::try_from).collect())),
            AcceptOutcome::Conflict => Err(Conflict::KeyReused.into()),
            AcceptOutcome::Stale => Ok(None),
        }
    }

    async fn match_again(&self, prepared: Prepared) -> Result<Prepared, Error> {
        let tenant = prepared.unit().tenant.clone();
        self.indexes.refresh(&tenant).await?;
        let index = self.indexes.get(&tenant).await?;
        let matched = prepared.by(index)?;
        // A direct event is matched by nothing: its subscription may be gone.
        if let Some(id) = matched.direct_subscription()
            && self.context.in_time(self.context.store.subscriptions(&[(tenant, id)])).await?.is_empty()
        {
            return Err(Error::NotFound(Noun::Subscription));
        }
        Ok(matched)
    }
}

#[derive(Clone, Debug)]
struct Commit {
    context: Arc<Context>,
    worker: Arc<Worker>,
}

impl Commit {
    async fn run(self, arrivals: Vec<Arrival>) -> Vec<Result<AcceptOutcome, StoreError>> {
        let (units, reserved): (Vec<_>, Vec<_>) =
            arrivals.into_iter().map(|arrival| (arrival.unit, arrival.reserved)).unzip();
        match self.context.in_time(self.context.store.accept(self.context.now(), &units)).await {
            Ok(outcomes) => {
                self.hand_over(units, reserved, &outcomes).await;
                outcomes.into_iter().map(Ok).collect()
            }
            Err(error) if units.len() == 1 => vec![Err(error)],
            Err(error) if error.is_retryable() => {
                let text = error.to_string();
                units.iter().map(|_| Err(StoreError::Unavailable(text.clone().into()))).collect()
            }
            // One bad unit fails alone.
            Err(_) => {
                let mut answers = Vec::with_capacity(units.len());
                for (unit, reserved) in units.into_iter().zip(reserved) {
                    let unit = [unit];
                    let answer = self.context.in_time(self.context.store.accept(self.context.now(), &unit)).await;
                    answers.push(answer.map(|mut outcomes| outcomes.pop().unwrap_or(AcceptOutcome::Stale)));
                    if let Some(Ok(outcome)) = answers.last() {
                        let outcome = [outcome.clone()];
                        self.hand_over(unit.into(), vec![reserved], &outcome).await;
                    }
                }
                answers
            }
        }
    }

    /// Starts what was leased to the local worker, and says that there is more.
    async fn hand_over(&self, units: Vec<AcceptUnit>, reserved: Vec<Vec<Reserved>>, outcomes: &[AcceptOutcome]) {
        let mut hints = Vec::new();
        for ((unit, reserved), outcome) in units.into_iter().zip(reserved).zip(outcomes) {
            let AcceptOutcome::Done(outcomes) = outcome else { continue };
            let mut reserved = reserved.into_iter().peekable();
            for ((position, item), outcome) in unit.items.into_iter().enumerate().zip(outcomes) {
                let mut of_item = Vec::new();
                while let Some(next) = reserved.next_if(|next| next.item == position) {
                    of_item.push(next);
                }
                if !matches!(outcome, ItemOutcome::Created(_)) {
                    continue;
                }
                crate::metrics::accepted(item.deliveries.len());
                let due = item.event.created_at;
                let open = item.deliveries.iter().filter(|delivery| delivery.lease.is_none());
                hints.extend(open.map(|delivery| Hint::new(delivery.id, delivery.target.id(), due)));
                self.worker.start(item, of_item);
            }
        }
        if !hints.is_empty() {
            self.worker.offer(hints);
        }
    }
}
