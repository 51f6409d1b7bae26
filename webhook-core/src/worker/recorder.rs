//! Records outcomes: one transaction for all that come while the last one commits.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::store::{Outcome, Recorded};
use crate::{GroupCommit, StoreError, Timestamp};

/// Outcomes in one transaction at most.
const BATCH: usize = 512;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Records outcomes in batches.
#[derive(Debug)]
pub(super) struct Recorder {
    context: Arc<Context>,
    group: GroupCommit<Outcome, Result<Recorded, StoreError>>,
}

impl Recorder {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let committer = Arc::clone(&context);
        let group = GroupCommit::new(BATCH, move |outcomes: Vec<Outcome>| {
            let context = Arc::clone(&committer);
            async move { commit(&context, outcomes).await }
        });
        Self { context, group }
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
        loop {
            match self.group.submit(outcome.clone(), 1).await {
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
