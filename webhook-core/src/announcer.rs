//! Tells other processes what they should not have to poll for, and hears what they say.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::context::Context;
use crate::index::Indexes;
use crate::worker::Worker;
use crate::{Notifier, NotifierError, Signal, TenantId};

/// After a signal that deliveries are due, the next one follows no earlier.
const QUIET: Duration = Duration::from_millis(50);
/// How long to wait before listening again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What has not been said by then comes too late to be worth it, and the next word waits behind it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says that deliveries are due: the first time at once, then in intervals, however many there are.
#[derive(Debug)]
pub(crate) struct Announcer {
    voices: Vec<Voice>,
}

/// One of the ways to say it. None waits for another: what one cannot carry, or carries late, another one does.
#[derive(Clone, Debug)]
struct Voice {
    notifier: Arc<dyn Notifier>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// A task waits until the quiet time is over, and will speak then if something is left to say.
    resting: bool,
    due: bool,
}

impl Announcer {
    pub(crate) fn new(notifiers: Vec<Arc<dyn Notifier>>) -> Self {
        let voice = |notifier| Voice { notifier, state: Arc::default() };
        Self { voices: notifiers.into_iter().map(voice).collect() }
    }

    /// Deliveries are due that this process has not taken.
    pub(crate) fn due(&self) {
        self.voices.iter().for_each(Voice::due);
    }

    /// The tenant's subscriptions changed.
    pub(crate) fn subscriptions_changed(&self, tenant: &TenantId) {
        for voice in &self.voices {
            let (voice, signal) = (voice.clone(), Signal::SubscriptionsChanged(tenant.clone()));
            tokio::spawn(async move { voice.say(signal).await });
        }
    }
}

impl Voice {
    fn due(&self) {
        let mut state = lock(&self.state);
        state.due = true;
        if std::mem::replace(&mut state.resting, true) {
            return;
        }
        drop(state);
        let voice = self.clone();
        tokio::spawn(async move {
            loop {
                {
                    let mut state = lock(&voice.state);
                    if !std::mem::take(&mut state.due) {
                        state.resting = false;
                        return;
                    }
                }
                voice.say(Signal::Due).await;
                tokio::time::sleep(QUIET).await;
            }
        });
    }

    async fn say(&self, signal: Signal) {
        let late = |_| Err(NotifierError::Unavailable("nobody takes the signal".into()));
        let said = timeout(PATIENCE, self.notifier.publish(&[signal])).await.unwrap_or_else(late);
        if let Err(error) = said {
            tracing::debug!(error = &error as &dyn Error, "other processes were not told; they poll");
        }
    }
}

/// Hears signals for ever, and does what they say. Returns at once where there is no notifier.
pub(crate) async fn listen(context: &Context, indexes: &Indexes, worker: &Worker) {
    let voices = &context.announcer.voices;
    if voices.is_empty() {
        return;
    }
    let changed = Changed::default();
    let hear = |signal| match signal {
        Signal::Due => worker.wake(),
        Signal::SubscriptionsChanged(tenant) => changed.one(tenant),
        Signal::Missed => {
            worker.wake();
            changed.all();
        }
    };
    let listening = voices.iter().map(|voice| listen_again_and_again(&*voice.notifier, &hear));
    tokio::join!(join_all(listening), changed.follow(indexes));
}

async fn listen_again_and_again(notifier: &dyn Notifier, hear: &(dyn Fn(Signal) + Send + Sync)) {
    let mut pause = FIRST_PAUSE;
    let deaf = AtomicBool::new(false);
    let hear = |signal| {
        if deaf.swap(false, Ordering::Relaxed) {
            tracing::info!("signals of other processes are heard again");
        }
        hear(signal);
    };
    loop {
        let begun = Instant::now();
        let error = notifier.listen(&hear).await;
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if deaf.swap(true, Ordering::Relaxed) {
            tracing::debug!(error = &error as &dyn Error, "signals of other processes are not heard yet");
        } else {
            let error: &dyn Error = &error;
            tracing::warn!(error, "signals of other processes are not heard; trying again, and polling meanwhile");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whose subscriptions changed elsewhere.
#[derive(Debug, Default)]
struct Changed {
    what: Mutex<What>,
    something: Notify,
}

#[derive(Debug, Default)]
struct What {
    tenants: BTreeSet<TenantId>,
    all: bool,
}

impl Changed {
    fn one(&self, tenant: TenantId) {
        lock(&self.what).tenants.insert(tenant);
        self.something.notify_one();
    }

    fn all(&self) {
        lock(&self.what).all = true;
        self.something.notify_one();
    }

    async fn follow(&self, indexes: &Indexes) {
        loop {
            self.something.notified().await;
            let What { tenants, all } = std::mem::take(&mut *lock(&self.what));
            let refreshed = if all { indexes.refresh_all().await } else { indexes.refresh_many(&tenants).await };
            if let Err(error) = refreshed {
                tracing::debug!(%error, "indexes were not refreshed; they are at the next poll");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    #[derive(Debug, Default)]
    struct Said(Mutex<Vec<Instant>>);

    #[async_trait]
    impl Notifier for Said {
        async fn publish(&self, signals: &[Signal]) -> Result<(), NotifierError> {
            assert_eq!(signals, [Signal::Due]);
            lock(&self.0).push(Instant::now());
            Ok(())
        }

        async fn listen(&self, _: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError {
            std::future::pending().await
        }
    }

    /// It hangs until its deadline, each time.
    #[derive(Debug)]
    struct Hanging;

    #[async_trait]
    impl Notifier for Hanging {
        async fn publish(&self, _: &[Signal]) -> Result<(), NotifierError> {
            tokio::time::sleep(Duration::from_millis(250)).await;
            Err(NotifierError::Unavailable("it hangs".into()))
        }

        async fn listen(&self, _: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_notifier_that_hangs_delays_no_other() {
        let said = Arc::new(Said::default());
        let announcer = Announcer::new(vec![Arc::new(Hanging), Arc::clone(&said) as Arc<dyn Notifier>]);
        for _ in 0..1000 {
            announcer.due();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(lock(&said.0).len() >= 18, "{:?}", said.0);
    }

    /// It does not answer the first time.
    #[derive(Debug, Default)]
    struct Frozen(Said, AtomicBool);

    #[async_trait]
    impl Notifier for Frozen {
        async fn publish(&self, signals: &[Signal]) -> Result<(), NotifierError> {
            if !self.1.swap(true, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.0.publish(signals).await
        }

        async fn listen(&self, _: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_notifier_that_never_answers_is_asked_again() {
        let frozen = Arc::new(Frozen::default());
        let announcer = Announcer::new(vec![Arc::clone(&frozen) as Arc<dyn Notifier>]);
        for _ in 0..2 {
            announcer.due();
            tokio::time::sleep(PATIENCE + QUIET).await;
        }
        assert_eq!(lock(&frozen.0.0).len(), 1);
    }

    #[derive(Debug)]
    struct Mute;

    #[async_trait]
    impl Notifier for Mute {
        async fn publish(&self, _: &[Signal]) -> Result<(), NotifierError> {
            Err(NotifierError::Unavailable("it is mute".into()))
        }

        async fn listen(&self, _: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError {
            NotifierError::Unavailable("it is deaf, too".into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_notifier_cannot_say_another_one_says() {
        let said = Arc::new(Said::default());
        let announcer = Announcer::new(vec![Arc::new(Mute), Arc::clone(&said) as Arc<dyn Notifier>]);
        announcer.due();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(lock(&said.0).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_goes_at_once_and_a_flood_is_one_in_fifty_milliseconds() {
        let said = Arc::new(Said::default());
        let announcer = Announcer::new(vec![Arc::clone(&said) as Arc<dyn Notifier>]);
        let start = Instant::now();
        for _ in 0..200 {
            announcer.due();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        announcer.due();
        tokio::task::yield_now().await;
        let said: Vec<_> = lock(&said.0).iter().map(|at| at.duration_since(start).as_millis()).collect();
        assert_eq!(said.len(), 6, "{said:?}");
        assert!(said[0] <= 1 && said[5] >= 1200, "{said:?}");
        assert!(said[..5].windows(2).all(|pair| pair[1] - pair[0] >= 50), "{said:?}");
    }
}
