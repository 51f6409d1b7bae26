//! Records outcomes: one transaction for all that come while the last one commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::store::{Outcome, Recorded, TargetEffect};
use crate::{GroupCommit, StoreError, TenantId, Timestamp};

/// Outcomes in one transaction at most.
const BATCH: usize = 512;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Records outcomes in batches.
#[derive(Debug)]
pub(super) struct Recorder {
    context: Arc<Context>,
    group: Group,
    /// Those that change a subscription may have to wait for whoever works with it: no others wait with them.
    changes: Group,
}

type Group = GroupCommit<Outcome, Result<Recorded, StoreError>>;

impl Recorder {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let committer = Arc::clone(&context);
        let group = GroupCommit::new(BATCH, move |outcomes| {
            let context = Arc::clone(&committer);
            async move { commit(&context, outcomes).await }
        });
        let committer = Arc::clone(&context);
        let changes = GroupCommit::new(BATCH, move |outcomes| {
            let context = Arc::clone(&committer);
            async move { commit_by_tenant(&context, outcomes).await }
        });
        Self { context, group, changes }
    }

    /// Records an outcome, again and again while the store is away, until the lease has run out: then another worker
    /// has the delivery, and this outcome would be fenced. After `abort` it tries no more.
    pub(super) async fn record(
        &self,
        outcome: Outcome,
        until: Timestamp,
        abort: &CancellationToken,
    ) -> Option<Recorded> {
        let mut pause = FIRST_PAUSE;
        let group = if outcome.effect == TargetEffect::DisableGone { &self.changes } else { &self.group };
        loop {
            match group.submit(outcome.clone(), 1).await {
                Ok(Ok(recorded)) => return Some(recorded),
                Ok(Err(error)) => {
                    tracing::warn!(delivery = %outcome.delivery, %error, "an outcome was not recorded yet");
                }
                Err(error) => tracing::warn!(delivery = %outcome.delivery, %error, "an outcome was not recorded yet"),
            }
            if self.context.now() + pause >= until {
                return None;
            }
            tokio::select! {
                biased;
                () = abort.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Each tenant's in a transaction of its own, in the order in which they came.
async fn commit_by_tenant(context: &Context, outcomes: Vec<Outcome>) -> Vec<Result<Recorded, StoreError>> {
    let mut tenants = BTreeMap::<TenantId, Vec<(usize, Outcome)>>::new();
    for (position, outcome) in outcomes.into_iter().enumerate() {
        tenants.entry(outcome.tenant.clone()).or_default().push((position, outcome));
    }
    let mut answers = BTreeMap::new();
    for outcomes in tenants.into_values() {
        let (positions, outcomes): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
        answers.extend(positions.into_iter().zip(commit(context, outcomes).await));
    }
    answers.into_values().collect()
}

async fn commit(context: &Context, outcomes: Vec<Outcome>) -> Vec<Result<Recorded, StoreError>> {
    match context.in_time(context.store.record(context.now(), &outcomes)).await {
        Ok(recorded) => recorded.into_iter().map(Ok).collect(),
        Err(error) if outcomes.len() == 1 => vec![Err(error)],
        Err(error) if error.is_retryable() => {
            let text = error.to_string();
            outcomes.iter().map(|_| Err(StoreError::Unavailable(text.clone().into()))).collect()
        }
        // One bad outcome fails alone.
        Err(_) => {
            let mut answers = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                let answer = context.in_time(context.store.record(context.now(), &[outcome])).await;
                answers.push(answer.map(|recorded| recorded.first().copied().unwrap_or(Recorded::Fenced)));
            }
            answers
        }
    }
}
