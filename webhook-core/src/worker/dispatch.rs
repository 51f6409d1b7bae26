//! Gets claimed deliveries what they need, and starts their attempts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::admission::Seat;
use super::{Worker, release};
use crate::store::{Lease, NextStep, Outcome};
use crate::target::{LiveTarget, Unusable};
use crate::{
    DeliveryState, Event, EventId, RateLimit, Reason, StoreError, SubscriptionId, SubscriptionRecord, Target, TargetId,
    Timestamp, TokenRequest,
};

/// An event whose payload bytes count against the worker's budget as long as a delivery holds it.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) event: Event,
    _budget: Option<OwnedSemaphorePermit>,
}

impl Payload {
    /// An event, with what was taken of the budget for it.
    pub(super) fn new(event: Event, budget: Option<OwnedSemaphorePermit>) -> Self {
        Self { event, _budget: budget }
    }
}

/// A lease with all its attempt needs but the event.
#[derive(Debug)]
struct Ready {
    lease: Lease,
    target: Arc<LiveTarget>,
    place: OwnedSemaphorePermit,
    seat: Seat,
}

/// The subscriptions of the leases that were claimed together.
type Targets = HashMap<TargetId, Result<Arc<LiveTarget>, Unusable>>;

/// The deliveries of one event among those that were claimed together.
type OfEvent = (EventId, Vec<Ready>);

impl Worker {
    /// Starts the claimed deliveries; those that exceed a rate limit that was not known before are given back.
    pub(super) async fn dispatch(
        &self,
        leases: Vec<Lease>,
        places: Vec<OwnedSemaphorePermit>,
        tokens: &BTreeMap<TargetId, (RateLimit, u32)>,
        counts: &BTreeMap<TargetId, u32>,
    ) {
        if leases.is_empty() {
            return;
        }
        let targets = match self.live_targets(&leases).await {
            Ok(targets) => targets,
            Err(error) => {
                tracing::warn!(%error, "subscriptions could not be read; leases are given back");
                let due = self.context.now() + self.context.options.poll_interval;
                self.give_back(leases.iter().map(|lease| release(lease, due)).collect());
                return;
            }
        };
        let leases = self.within_limits(leases, &targets, tokens, counts).await;
        let now = self.context.now();
        let mut ready = Vec::with_capacity(leases.len());
        for (lease, place) in leases.into_iter().zip(places) {
            let target = match &lease.target {
                Target::Subscription(_) => targets.get(&lease.target.id()).cloned(),
                // Deliveries with the same key share limits, but each has a target of its own.
                Target::AdHoc { sealed, .. } => Some(LiveTarget::ad_hoc(&self.context, &lease, sealed).map(Arc::new)),
            };
            match target {
                // It was disabled since the claim.
                Some(Ok(target)) if target.disabled => self.give_back(vec![release(&lease, now)]),
                Some(Ok(target)) => match self.admission.take(lease.target.id(), target.max_in_flight, now) {
                    Some(seat) => {
                        self.admission.set_limit(lease.target.id(), target.rate_limit);
                        ready.push(Ready { lease, target, place, seat });
                    }
                    None => self.give_back(vec![release(&lease, now)]),
                },
                Some(Err(error)) => self.not_usable(lease, place, &error),
                None => self.give_back(vec![release(&lease, now + self.context.options.poll_interval)]),
            }
        }
        for ready in &ready {
            self.held().insert(ready.lease.delivery, ready.lease.token);
        }
        let Some(worker) = self.itself.upgrade() else { return };
        self.tasks.spawn(async move {
            let abort = worker.abort();
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                () = worker.load_and_spawn(ready) => {}
            }
        });
    }

    /// The targets of these leases at the versions that the leases name.
    async fn live_targets(&self, leases: &[Lease]) -> Result<Targets, StoreError> {
        let mut targets = HashMap::new();
        let mut missing = BTreeSet::new();
        for lease in leases {
            let Target::Subscription(subscription) = &lease.target else { continue };
            match self.targets.get(&self.context, *subscription, lease.version) {
                Some(target) => {
                    targets.insert(lease.target.id(), Ok(target));
                }
                None => {
                    missing.insert((lease.tenant.clone(), *subscription, lease.version));
                }
            }
        }
        let missing: Vec<_> = missing.into_iter().collect();
        for chunk in missing.chunks(500) {
            for shelved in self.context.shelf.records(&self.context, chunk).await {
                self.make_ready(shelved.value, shelved.read_at, &mut targets);
            }
            let rest = chunk.iter().filter(|(_, id, _)| !targets.contains_key(&TargetId::from(*id)));
            let rest: Vec<_> = rest.map(|(tenant, id, _)| (tenant.clone(), *id)).collect();
            if rest.is_empty() {
                continue;
            }
            let read_at = self.context.now();
            let records = self.context.in_time(self.context.store.subscriptions(&rest)).await?;
            self.context.shelf.keep_records(&self.context, &records, read_at);
            for record in records {
                self.make_ready(record, read_at, &mut targets);
            }
        }
        Ok(targets)
    }

    fn make_ready(&self, record: SubscriptionRecord, read_at: Timestamp, targets: &mut Targets) {
        let id: SubscriptionId = record.id;
        let target = LiveTarget::of_subscription(&self.context, record, read_at).map(Arc::new);
        if let Ok(target) = &target {
            self.targets.insert(id, Arc::clone(target));
        }
        targets.insert(id.into(), target);
    }

    /// Keeps the leases that their targets' rate limits allow now, and gives the others back for later.
    async fn within_limits(
        &self,
        leases: Vec<Lease>,
        targets: &Targets,
        tokens: &BTreeMap<TargetId, (RateLimit, u32)>,
        counts: &BTreeMap<TargetId, u32>,
    ) -> Vec<Lease> {
        let now = self.context.now();
        let mut requests = Vec::new();
        for (id, count) in counts {
            let limit = targets.get(id).and_then(|target| target.as_ref().ok()?.rate_limit);
            // Tokens of a limit that was changed meanwhile do not count.
            if let Some(limit) = limit.filter(|limit| tokens.get(id).is_none_or(|(taken, _)| taken != limit)) {
                requests.push(TokenRequest { target: *id, limit, want: *count });
            }
        }
        if requests.is_empty() {
            return leases;
        }
        let mut allowed = HashMap::new();
        for (request, grant) in requests.iter().zip(self.grants(now, &requests).await) {
            if grant.tokens < request.want {
                self.admission.dry(request.target, request.limit, grant.retry_at, now);
            }
            allowed.insert(request.target, (grant.tokens, grant.retry_at));
        }
        let (mut kept, mut released) = (Vec::with_capacity(leases.len()), Vec::new());
        for lease in leases {
            match allowed.get_mut(&lease.target.id()) {
                Some((0, retry_at)) => {
                    let jitter = Duration::from_millis(self.context.entropy.next_u64() % LIMIT_JITTER_MILLIS);
                    released.push(release(&lease, *retry_at + jitter));
                }
                Some((tokens, _)) => {
                    *tokens -= 1;
                    kept.push(lease);
                }
                None => kept.push(lease),
            }
        }
        self.give_back(released);
        kept
    }

    /// Loads the events within the payload budget, and starts the attempts.
    async fn load_and_spawn(&self, ready: Vec<Ready>) {
        // Deliveries of one event share its payload.
        let mut by_event: Vec<OfEvent> = Vec::new();
        let mut position: HashMap<EventId, usize> = HashMap::new();
        for item in ready {
            let event = item.lease.event;
            let at = *position.entry(event).or_insert_with(|| {
                by_event.push((event, Vec::new()));
                by_event.len() - 1
            });
            by_event[at].1.push(item);
        }
        let mut by_event = by_event.into_iter().peekable();
        while by_event.peek().is_some() {
            let (mut chunk, mut kib) = (Vec::new(), 0);
            while let Some((_, items)) = by_event.peek() {
                let size = items.first().map_or(0, |ready| ready.lease.payload_bytes / 1024 + 1);
                if kib + size > CHUNK_KIB.min(self.whole_budget()) && !chunk.is_empty() {
                    break;
                }
                kib += size;
                chunk.extend(by_event.next());
            }
            self.load_chunk(chunk).await;
        }
    }

    async fn load_chunk(&self, chunk: Vec<OfEvent>) {
        let sizes: Vec<_> = chunk
            .iter()
            .filter_map(|(event, items)| {
                let lease = &items.first()?.lease;
                Some(((lease.tenant.clone(), *event), (lease.payload_bytes / 1024 + 1).min(self.whole_budget())))
            })
            .collect();
        // All at once: whoever held a part while waiting for more could wait for ever.
        let kib = sizes.iter().map(|(_, kib)| *kib).sum::<u32>().min(self.whole_budget());
        let Ok(mut budget) = Arc::clone(&self.payload_budget).acquire_many_owned(kib).await else { return };
        let mut budgets: HashMap<EventId, Option<OwnedSemaphorePermit>> =
            sizes.iter().map(|((_, event), kib)| (*event, budget.split(*kib as usize))).collect();
        let ids: Vec<_> = sizes.into_iter().map(|(id, _)| id).collect();
        let events = match self.context.in_time(self.context.store.load_events(&ids)).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "events could not be read; leases are given back");
                let due = self.context.now() + self.context.options.poll_interval;
                let leases = chunk.iter().flat_map(|(_, items)| items);
                self.give_back(leases.map(|ready| release(&ready.lease, due)).collect());
                return;
            }
        };
        let mut payloads: HashMap<EventId, Arc<Payload>> = HashMap::new();
        for event in events {
            let budget = budgets.remove(&event.id).flatten();
            payloads.insert(event.id, Arc::new(Payload::new(event, budget)));
        }
        for (event, items) in chunk {
            let Some(payload) = payloads.remove(&event) else {
                tracing::error!(%event, "an event with open deliveries is not there; leases are given back");
                let due = self.context.now() + UNUSABLE_DELAY;
                self.give_back(items.iter().map(|ready| release(&ready.lease, due)).collect());
                continue;
            };
            for Ready { lease, target, place, seat } in items {
                self.spawn(lease, target, Arc::clone(&payload), (place, None), seat);
            }
        }
    }

    /// Starts one delivery's attempt in a task of its own, as soon as there is a slot for it.
    pub(super) fn spawn(
        &self,
        lease: Lease,
        target: Arc<LiveTarget>,
        payload: Arc<Payload>,
        (place, slot): (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
        seat: Seat,
    ) {
        let Some(worker) = self.itself.upgrade() else { return };
        self.held().insert(lease.delivery, lease.token);
        self.tasks.spawn(async move {
            let abort = worker.abort();
            let slot = match slot {
                Some(slot) => Ok(slot),
                None => tokio::select! {
                    biased;
                    () = abort.cancelled() => return,
                    slot = Arc::clone(&worker.slots).acquire_owned() => slot,
                },
            };
            worker.deliver(lease, &target, payload, seat, abort).await;
            // Not before the result is recorded: what a kill makes come twice is no more than there are slots.
            drop((slot, place));
        });
    }

    /// A delivery whose target cannot be read: what somebody can mend is looked at again later, anything else ends, so
    /// that it does not come back for ever.
    fn not_usable(&self, lease: Lease, place: OwnedSemaphorePermit, error: &Unusable) {
        tracing::error!(delivery = %lease.delivery, %error, "a delivery's target cannot be used");
        if error.can_be_mended() {
            return self.give_back(vec![release(&lease, self.context.now() + UNUSABLE_DELAY)]);
        }
        let Some(worker) = self.itself.upgrade() else { return };
        let step = NextStep::End(DeliveryState::Exhausted, Some(Reason::Unusable));
        let outcome = Outcome::new(lease.tenant, lease.delivery, lease.token, step);
        self.tasks.spawn(async move {
            worker.recorder.record(outcome, lease.until, &worker.abort()).await;
            drop(place);
        });
    }

    pub(super) fn whole_budget(&self) -> u32 {
        u32::try_from((self.context.options.payload_budget / 1024).max(1)).unwrap_or(u32::MAX)
    }
}

/// Payloads of one read at most, in KiB.
const CHUNK_KIB: u32 = 8 * 1024;
/// When a delivery is looked at again that somebody has to mend something for, such as a missing key.
const UNUSABLE_DELAY: Duration = Duration::from_secs(60);
/// What exceeds a rate limit waits up to so much longer than for the next token.
const LIMIT_JITTER_MILLIS: u64 = 50;
