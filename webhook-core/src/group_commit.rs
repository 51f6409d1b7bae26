//! Natural group commit: while one batch commits, the next one gathers.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So often a batch lets others in before it commits, at most.
const PATIENCE: usize = 64;
/// So many items are a batch: it waits for no others.
const ENOUGH: usize = 64;

type Commit<T, R> = dyn Fn(Vec<T>) -> Pin<Box<dyn Future<Output = Vec<R>> + Send>> + Send + Sync;

/// Gathers what many callers submit into batches, one of which commits at a time.
///
/// A lone item is committed at once; a flood is not one commit each. A batch commits in a short-lived task of its own,
/// so a caller who goes away cancels nothing. Needs a tokio runtime when [`GroupCommit::submit`] is called.
pub struct GroupCommit<T, R> {
    shared: Arc<Shared<T, R>>,
}

struct Shared<T, R> {
    commit: Box<Commit<T, R>>,
    limit: usize,
    state: Mutex<State<T, R>>,
}

struct State<T, R> {
    waiting: VecDeque<Entry<T, R>>,
    committing: bool,
}

struct Entry<T, R> {
    item: T,
    weight: usize,
    answer: oneshot::Sender<R>,
}

/// The batch was lost with the task that committed it: the runtime is shutting down, or the commit panicked. Whether
/// it happened is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch was lost before its outcome was known")]
pub struct BatchLost;

impl<T: Send + 'static, R: Send + 'static> GroupCommit<T, R> {
    /// Commits batches with `commit`, which answers each item, in order. A batch weighs at most `limit`, or is a
    /// single item.
    pub fn new<F, Fut>(limit: usize, commit: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let commit: Box<Commit<T, R>> = Box::new(move |items| Box::pin(commit(items)));
        let state = Mutex::new(State { waiting: VecDeque::new(), committing: false });
        Self { shared: Arc::new(Shared { commit, limit, state }) }
    }

    /// Hands in an item of that weight, and waits for the answer of the batch that it becomes part of.
    pub async fn submit(&self, item: T, weight: usize) -> Result<R, BatchLost> {
        let (answer, outcome) = oneshot::channel();
        let start = {
            let mut state = self.shared.state();
            state.waiting.push_back(Entry { item, weight, answer });
            !std::mem::replace(&mut state.committing, true)
        };
        if start {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.drain().await });
        }
        outcome.await.map_err(|_| BatchLost)
    }
}

impl<T, R> Shared<T, R> {
    fn state(&self) -> MutexGuard<'_, State<T, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drain(&self) {
        let guard = Drained(self);
        loop {
            self.let_others_in().await;
            let (items, answers) = self.next_batch();
            if items.is_empty() {
                break;
            }
            for (outcome, answer) in (self.commit)(items).await.into_iter().zip(answers) {
                // A caller who went away does not care.
                let _ = answer.send(outcome);
            }
        }
        std::mem::forget(guard);
    }

    /// Lets everybody go first who is ready to hand something in: callers that were just answered often are. Ends when
    /// nobody came, so that a lone item waits for nothing, or enough have come: with hundreds of tasks ready to run, each
    /// turn of theirs takes a millisecond.
    async fn let_others_in(&self) {
        let mut waiting = self.state().waiting.len();
        for _ in 0..PATIENCE {
            if waiting >= ENOUGH {
                break;
            }
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut waiting, self.state().waiting.len());
            if waiting == before {
                break;
            }
        }
    }

    fn next_batch(&self) -> (Vec<T>, Vec<oneshot::Sender<R>>) {
        let mut state = self.state();
        let (mut items, mut answers, mut weight) = (Vec::new(), Vec::new(), 0_usize);
        while let Some(entry) = state.waiting.front() {
            weight = weight.saturating_add(entry.weight);
            if weight > self.limit && !items.is_empty() {
                break;
            }
            let Some(entry) = state.waiting.pop_front() else { break };
            items.push(entry.item);
            answers.push(entry.answer);
        }
        state.committing = !items.is_empty();
        (items, answers)
    }
}

/// Clears up when the committing task is dropped or panics: nobody may wait for a task that is gone.
struct Drained<'a, T, R>(&'a Shared<T, R>);

impl<T, R> Drop for Drained<'_, T, R> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.committing = false;
        state.waiting.clear();
    }
}

impl<T, R> fmt::Debug for GroupCommit<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("limit", &self.shared.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_flood_is_committed_in_few_batches_and_everybody_gets_the_right_answer() {
        let batches = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&batches);
        let group = GroupCommit::new(64, move |items: Vec<usize>| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                items.into_iter().map(|item| item * 2).collect()
            }
        });
        let answers = join_all((0..1000).map(|item| group.submit(item, 1))).await;
        for (item, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer, Ok(item * 2));
        }
        let batches = batches.load(Ordering::Relaxed);
        assert!((16..40).contains(&batches), "{batches} batches");
    }

    #[tokio::test]
    async fn an_item_heavier_than_the_limit_goes_alone() {
        let group = GroupCommit::new(10, |items: Vec<usize>| async move { vec![items.len(); items.len()] });
        let answers = join_all([group.submit(0, 100), group.submit(1, 5), group.submit(2, 5)]).await;
        assert_eq!(answers, [Ok(1), Ok(2), Ok(2)]);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_cancels_nothing() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let group = GroupCommit::new(10, move |items: Vec<usize>| {
            let count = Arc::clone(&count);
            async move {
                tokio::task::yield_now().await;
                count.fetch_add(items.len(), Ordering::Relaxed);
                vec![(); items.len()]
            }
        });
        let mut call = Box::pin(group.submit(1, 1));
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        assert_eq!(group.submit(2, 1).await, Ok(()));
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_panic_while_committing_is_an_error_and_the_next_batch_works() {
        let group = GroupCommit::new(10, |items: Vec<bool>| async move {
            assert!(items.iter().all(|fine| *fine), "planted");
            vec![(); items.len()]
        });
        assert_eq!(group.submit(false, 1).await, Err(BatchLost));
        assert_eq!(group.submit(true, 1).await, Ok(()));
    }
}
