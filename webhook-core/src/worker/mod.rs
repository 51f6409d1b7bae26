//! The worker: claims due deliveries as slots free up, attempts them, and records what came of it.

mod admission;
mod alarm;
mod attempt;
mod claims;
mod dispatch;
mod hints;
mod recorder;
mod request;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use admission::{Admission, Seat};
use alarm::Alarm;
use dispatch::Payload;
use hints::Hints;
use recorder::Recorder;

use crate::context::Context;
use crate::emit::Prepared;
use crate::index::Indexes;
use crate::store::{AcceptItem, Lease, LeaseGrant, LeaseToken, Release};
use crate::target::Targets;
use crate::{DeliveryId, Generation, Hint, QueueError, Target, TargetId, Timestamp};

/// One part in so many of the slots is kept from deliveries of new events: what waits needs room too.
const KEPT_FOR_CLAIMS: usize = 8;

/// One part in so many more is leased than there are slots, and waits here for one: nobody attempts it twice when the
/// process is killed, and no slot waits for a claim.
const LEASED_AHEAD: usize = 2;

/// A store that does not answer is waited for no longer than this at each step of stopping.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Claims, attempts and records.
#[derive(Debug)]
pub(crate) struct Worker {
    context: Arc<Context>,
    indexes: Arc<Indexes>,
    targets: Targets,
    admission: Arc<Admission>,
    recorder: Recorder,
    alarm: Arc<Alarm>,
    /// None when the store is the queue.
    hints: Option<Arc<Hints>>,
    /// One for each lease that is held here, [`LEASED_AHEAD`] more than there are slots.
    places: Arc<Semaphore>,
    /// One for each attempt at once.
    slots: Arc<Semaphore>,
    /// In KiB, so that it fits a semaphore's 32-bit requests.
    payload_budget: Arc<Semaphore>,
    running: AtomicBool,
    tasks: TaskTracker,
    abort: Mutex<CancellationToken>,
    held: Mutex<BTreeMap<DeliveryId, LeaseToken>>,
    returned: Mutex<Returned>,
    last_claim: AtomicI64,
    itself: Weak<Worker>,
}

/// Leases to be given back.
#[derive(Debug, Default)]
struct Returned {
    waiting: Vec<Release>,
    /// Somebody gives them back.
    busy: bool,
}

/// A delivery of a new event that the local worker has room for.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Which event of the unit it belongs to.
    pub(crate) item: usize,
    /// Which delivery of the event it is.
    delivery: usize,
    version: Generation,
    place: OwnedSemaphorePermit,
    slot: OwnedSemaphorePermit,
    seat: Seat,
    /// What was taken of the payload budget, with the first delivery of an event.
    budget: Option<OwnedSemaphorePermit>,
    /// Whoever stops the worker waits for it.
    _task: TaskTrackerToken,
}

impl Worker {
    pub(crate) fn new(context: Arc<Context>, indexes: Arc<Indexes>) -> Arc<Self> {
        let options = &context.options;
        let slots = Arc::new(Semaphore::new(options.concurrency));
        let places = Arc::new(Semaphore::new(options.concurrency + options.concurrency / LEASED_AHEAD));
        let payload_budget = Arc::new(Semaphore::new((options.payload_budget / 1024).max(1)));
        let alarm = Arc::new(Alarm::default());
        let admission = Arc::new(Admission::new(options, Arc::clone(&alarm)));
        let queue = context.queue.clone();
        let hints = queue.map(|queue| Hints::new(queue, Arc::clone(&context), Arc::clone(&alarm)));
        Arc::new_cyclic(|itself| Self {
            recorder: Recorder::new(Arc::clone(&context)),
            context,
            indexes,
            targets: Targets::default(),
            admission,
            alarm,
            hints,
            places,
            slots,
            payload_budget,
            running: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            abort: Mutex::default(),
            held: Mutex::default(),
            returned: Mutex::default(),
            last_claim: AtomicI64::new(0),
            itself: Weak::clone(itself),
        })
    }

    /// Says that something may be due.
    pub(crate) fn wake(&self) {
        self.alarm.ring();
    }

    /// Says that something may be due that the queue has no hint at.
    pub(crate) fn wake_without_hint(&self) {
        self.alarm.ring_without_hint();
    }

    /// Deliveries are due that this worker has not taken: says so to the queue, or wakes all workers.
    pub(crate) fn offer(&self, hints: Vec<Hint>) {
        match &self.hints {
            Some(queue) => queue.push(hints),
            None => {
                self.wake();
                self.context.announcer.due();
            }
        }
    }

    /// Whether the queue answers; none when the store is the queue.
    pub(crate) async fn check_queue(&self) -> Option<Result<(), QueueError>> {
        Some(self.hints.as_ref()?.check().await)
    }

    /// A pause of a target was ended by hand.
    pub(crate) fn resume(&self, target: TargetId) {
        self.admission.resume(target);
        self.wake_without_hint();
    }

    /// When this worker last got an answer as to which deliveries are due.
    pub(crate) fn last_claim(&self) -> Option<Timestamp> {
        match self.last_claim.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Timestamp::from_millis(millis)),
        }
    }

    /// Leases deliveries of new events to this worker, as far as it runs here, has free slots, and the targets are
    /// known to take them right away. They start when the events are committed.
    pub(crate) fn reserve(&self, prepared: &mut Prepared) -> Vec<Reserved> {
        let mut reserved: Vec<Reserved> = Vec::new();
        // Taken before it is known whether the worker runs: one that stops meanwhile waits for this.
        let task = self.tasks.token();
        if !self.running.load(Ordering::SeqCst) {
            return reserved;
        }
        let now = self.context.now();
        let token = LeaseToken::new(self.context.entropy.next_u64());
        let grant = LeaseGrant { token, until: now + self.context.options.lease() };
        let keep = self.context.options.concurrency / KEPT_FOR_CLAIMS;
        prepared.each_delivery(|item, delivery, new, version, payload_bytes| {
            new.lease = None;
            let Target::Subscription(id) = &new.target else { return };
            if self.slots.available_permits() <= keep {
                return;
            }
            let Some(target) = self.targets.get(&self.context, *id, version) else { return };
            let waits = target.disabled || target.paused_until.is_some_and(|until| until > now);
            if waits || target.rate_limit.is_some() {
                return;
            }
            let budget = if reserved.last().is_none_or(|last| last.item != item) {
                let kib = u32::try_from(payload_bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.whole_budget());
                let Ok(budget) = Arc::clone(&self.payload_budget).try_acquire_many_owned(kib) else { return };
                Some(budget)
            } else {
                None
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
            let Some(seat) = self.admission.sit(new.target.id(), target.max_in_flight, now) else { return };
            new.lease = Some(grant);
            reserved.push(Reserved { item, delivery, version, place, slot, seat, budget, _task: task.clone() });
        });
        reserved
    }

    /// Attempts the deliveries of a committed event that were leased to this worker.
    pub(crate) fn start(&self, item: AcceptItem, mut reserved: Vec<Reserved>) {
        let Some(first) = reserved.first_mut() else { return };
        let AcceptItem { event, deliveries, .. } = item;
        let payload = Arc::new(Payload::new(event, first.budget.take()));
        for reserved in reserved {
            let Some(new) = deliveries.get(reserved.delivery) else { continue };
            let (Some(grant), Target::Subscription(id)) = (new.lease, &new.target) else { continue };
            let event = &payload.event;
            let (tenant, target) = (event.tenant.clone(), new.target.clone());
            let mut lease = Lease::new(new.id, tenant, event.id, target, grant.token, grant.until);
            lease.version = reserved.version;
            lease.payload_bytes = u32::try_from(event.payload.len()).unwrap_or(u32::MAX);
            match self.targets.get(&self.context, *id, reserved.version) {
                Some(target) => {
                    let (place, slot) = (reserved.place, Some(reserved.slot));
                    self.spawn(lease, target, Arc::clone(&payload), (place, slot), reserved.seat);
                }
                // It fell out of the cache while the event was committed.
                None => self.give_back(vec![release(&lease, self.context.now())]),
            }
        }
    }

    /// Gives leases back, without waiting for it. Those that come while others are being given back go together.
    fn give_back(&self, releases: Vec<Release>) {
        let Some(worker) = self.itself.upgrade().filter(|_| !releases.is_empty()) else { return };
        let mut held = self.held();
        for release in &releases {
            held.remove(&release.delivery);
        }
        drop(held);
        let mut returned = self.returned();
        returned.waiting.extend(releases);
        if std::mem::replace(&mut returned.busy, true) {
            return;
        }
        drop(returned);
        self.tasks.spawn(async move {
            while let Some(releases) = worker.next_returned() {
                if let Err(error) = worker.context.in_time(worker.context.store.release(&releases)).await {
                    tracing::warn!(%error, "leases were not given back; they will run out");
                }
                if let Some(due) = releases.iter().map(|release| release.due).min() {
                    worker.alarm.set(due);
                }
            }
        });
    }

    fn next_returned(&self) -> Option<Vec<Release>> {
        let mut returned = self.returned();
        let releases = std::mem::take(&mut returned.waiting);
        returned.busy = !releases.is_empty();
        returned.busy.then_some(releases)
    }

    fn returned(&self) -> MutexGuard<'_, Returned> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until `shutdown`, then ends cleanly.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        self.tasks.reopen();
        *self.abort.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
        self.running.store(true, Ordering::SeqCst);
        let patience = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            biased;
            () = self.claim_until(&shutdown) => {}
            // A store that does not answer must not keep the process.
            () = patience => tracing::warn!("a claim got no answer; what it leased will run out"),
        }
        self.running.store(false, Ordering::SeqCst);
        self.stop().await;
    }

    /// Lets what is in flight end within the grace, and releases the rest.
    async fn stop(&self) {
        self.tasks.close();
        if tokio::time::timeout(self.context.options.grace, self.tasks.wait()).await.is_ok() {
            return;
        }
        self.abort().cancel();
        if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
            tracing::warn!("the store does not answer: what was to be recorded or given back is left to its lease");
        }
        let due = self.context.now();
        let held = std::mem::take(&mut *self.held());
        let rest: Vec<_> = held.into_iter().map(|(delivery, token)| Release { delivery, token, due }).collect();
        tracing::warn!(deliveries = rest.len(), "the grace is over: leases are released");
        match tokio::time::timeout(LAST_WORDS, self.context.store.release(&rest)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "leases were not released; they will run out"),
            Err(_) => tracing::warn!("the store does not answer: leases were not released; they will run out"),
        }
    }

    fn abort(&self) -> CancellationToken {
        self.abort.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<DeliveryId, LeaseToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn release(lease: &Lease, due: Timestamp) -> Release {
    Release { delivery: lease.delivery, token: lease.token, due }
}
