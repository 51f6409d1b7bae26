//! The queue as the worker sees it: it never waits for it, holds little for it, and does without it while it is away.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::alarm::Alarm;
use crate::context::Context;
use crate::{DeliveryId, Hint, Queue, QueueError, TargetId, Timestamp};

/// Changes that wait to be told to the queue, at most: about 4 MiB. What exceeds it is left to the store.
const WAITING: usize = 50_000;
/// Changes told at once.
const BATCH: usize = 1_000;
/// A call to the queue takes no longer, whatever the queue makes of it.
const DEADLINE: Duration = Duration::from_secs(1);
/// The queue is away after so many failures in a row: one alone may be a server that was replaced.
const FAILURES: u32 = 2;
/// It is back after so many successful trials in a row.
const TRIALS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A trial removes hints from a queue that takes no more for so long.
const CLEARING: Duration = Duration::from_secs(1);
/// A hint of a trial is due so much later: nobody gets to see it.
const TRIAL_DELAY: Duration = Duration::from_secs(3600);

/// Tells the queue what is due when, in batches, and asks it for hints; nothing while it is away.
#[derive(Debug)]
pub(super) struct Hints {
    queue: Arc<dyn Queue>,
    context: Arc<Context>,
    alarm: Arc<Alarm>,
    state: Mutex<State>,
    itself: Weak<Hints>,
}

#[derive(Debug, Default)]
struct State {
    /// The last change of each delivery's hint that was not told yet.
    waiting: BTreeMap<DeliveryId, Change>,
    telling: bool,
    failures: u32,
    away: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Push(Hint),
    Forget(Hint),
}

impl Hints {
    pub(super) fn new(queue: Arc<dyn Queue>, context: Arc<Context>, alarm: Arc<Alarm>) -> Arc<Self> {
        crate::metrics::queue_up();
        Arc::new_cyclic(|itself| Self { queue, context, alarm, state: Mutex::default(), itself: Weak::clone(itself) })
    }

    /// The queue does not answer; the store is asked instead.
    pub(super) fn away(&self) -> bool {
        self.state().away
    }

    /// Tells the queue about these, without waiting for it. Whoever waits for those that are due is woken when the
    /// queue knows them, or turned to the store when it cannot.
    pub(super) fn push(&self, hints: Vec<Hint>) {
        let mut state = self.state();
        let lost = if state.away { hints } else { self.enqueue(&mut state, hints, Change::Push) };
        drop(state);
        self.lost(&lost);
    }

    /// Takes hints back, without waiting for it. Those that stay find nothing to do.
    pub(super) fn forget(&self, hints: Vec<Hint>) {
        let mut state = self.state();
        if !state.away {
            self.enqueue(&mut state, hints, Change::Forget);
        }
    }

    /// Up to `limit` hints that are due, held until `hold_until`; none when the queue cannot tell.
    pub(super) async fn pop(&self, now: Timestamp, hold_until: Timestamp, limit: u32) -> Option<Vec<Hint>> {
        if self.away() {
            return None;
        }
        let popped = in_time(self.queue.pop(now, hold_until, limit)).await;
        self.learn(&popped);
        popped.ok()
    }

    /// Ok when the queue answers and is in use.
    pub(super) async fn check(&self) -> Result<(), QueueError> {
        if self.away() {
            return Err(QueueError::Unavailable("it did not answer; it is being tried".into()));
        }
        in_time(self.queue.depth()).await.map(|_| ())
    }

    /// Lets the changes wait to be told; those for which there is no place.
    fn enqueue(&self, state: &mut State, hints: Vec<Hint>, change: fn(Hint) -> Change) -> Vec<Hint> {
        let mut refused = Vec::new();
        for hint in hints {
            if state.waiting.len() < WAITING || state.waiting.contains_key(&hint.delivery) {
                state.waiting.insert(hint.delivery, change(hint));
            } else {
                refused.push(hint);
            }
        }
        if !state.waiting.is_empty()
            && !std::mem::replace(&mut state.telling, true)
            && let Some(hints) = self.itself.upgrade()
        {
            tokio::spawn(async move { hints.tell().await });
        }
        refused
    }

    /// Tells the queue what waits, and what comes meanwhile.
    async fn tell(&self) {
        loop {
            let waiting = {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state.telling = false;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let changes: Vec<_> = waiting.into_values().collect();
            for batch in changes.chunks(BATCH) {
                self.tell_batch(batch).await;
            }
        }
    }

    async fn tell_batch(&self, batch: &[Change]) {
        let (mut pushed, mut forgotten) = (Vec::new(), Vec::new());
        for change in batch {
            match change {
                Change::Push(hint) => pushed.push(*hint),
                Change::Forget(hint) => forgotten.push(*hint),
            }
        }
        if self.away() {
            return self.lost(&pushed);
        }
        if !forgotten.is_empty() {
            self.learn(&in_time(self.queue.done(&forgotten)).await);
        }
        if pushed.is_empty() {
            return;
        }
        let told = in_time(self.queue.push(&pushed)).await;
        self.learn(&told);
        if told.is_err() {
            return self.lost(&pushed);
        }
        let now = self.context.now();
        if pushed.iter().any(|hint| hint.due <= now) {
            self.alarm.ring();
            self.context.announcer.due();
        }
    }

    /// The queue does not know these: for what is due among them, the store is asked, here and elsewhere.
    fn lost(&self, hints: &[Hint]) {
        if hints.is_empty() {
            return;
        }
        crate::metrics::hints_lost(hints.len());
        let now = self.context.now();
        if hints.iter().any(|hint| hint.due <= now) {
            self.alarm.ring_without_hint();
            self.context.announcer.due();
        }
    }

    /// One failure more, or none any more.
    fn learn<T>(&self, result: &Result<T, QueueError>) {
        let mut state = self.state();
        let Err(error) = result else {
            state.failures = 0;
            return;
        };
        state.failures += 1;
        if state.away || state.failures < FAILURES {
            return;
        }
        state.away = true;
        drop(state);
        let error: &(dyn std::error::Error + 'static) = error;
        tracing::warn!(error, "the queue does not answer; the store is asked instead");
        crate::metrics::queue_away();
        tokio::spawn(try_until_back(Weak::clone(&self.itself)));
    }

    /// Everything that workers do with a queue, on a hint that nobody gets to see: a queue that can be read may still
    /// not be written to.
    async fn try_out(&self) -> Result<(), QueueError> {
        let now = self.context.now();
        let trial = Hint::new(DeliveryId::from_uuid(Uuid::nil()), TargetId::from_uuid(Uuid::nil()), now + TRIAL_DELAY);
        let begun = Instant::now();
        loop {
            let popped = in_time(self.queue.pop(now, now + self.context.options.lease(), BATCH as u32)).await?;
            let Err(error) = self.push_in_trial(trial, &popped).await else {
                return in_time(self.queue.done(&[trial])).await;
            };
            // It may be full of hints that nobody takes, because all are away. The store knows what they point at.
            if !popped.is_empty() {
                in_time(self.queue.done(&popped)).await?;
            }
            if popped.is_empty() || begun.elapsed() > CLEARING {
                return Err(error);
            }
        }
    }

    async fn push_in_trial(&self, trial: Hint, popped: &[Hint]) -> Result<(), QueueError> {
        in_time(self.queue.push(&[trial])).await?;
        if popped.is_empty() { Ok(()) } else { in_time(self.queue.push(popped)).await }
    }

    fn back(&self) {
        let mut state = self.state();
        state.away = false;
        state.failures = 0;
        drop(state);
        tracing::info!("the queue answers again");
        crate::metrics::queue_up();
        // What became due meanwhile has no hints.
        self.alarm.ring_without_hint();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries the queue until it has worked for a while, or nobody needs it any more.
async fn try_until_back(hints: Weak<Hints>) {
    let (mut pause, mut successes) = (FIRST_PAUSE, 0);
    loop {
        tokio::time::sleep(pause).await;
        let Some(hints) = hints.upgrade() else { return };
        match hints.try_out().await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                successes += 1;
                if successes == TRIALS {
                    return hints.back();
                }
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the queue does not answer yet");
                successes = 0;
                // Many processes should not try in step.
                let jitter = hints.context.entropy.next_unit() / 4.0;
                pause = (pause * 2).min(LONGEST_PAUSE).mul_f64(1.0 - jitter);
            }
        }
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    let late = |_| Err(QueueError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()).into()));
    tokio::time::timeout(DEADLINE, call).await.unwrap_or_else(late)
}
