//! The store's witness: it sees every call in the order it took effect, and knows what each of them may do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use webhook_core::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, Activity, AddedDelivery, CancelOutcome, ClaimRequest, Claimed,
    DeliveryFilter, DeliveryStore, EventFilter, EventStore, HistoryStore, ItemOutcome, LeaseToken, NextStep, Outcome,
    Page, PageRequest, Recorded, Recoverable, Release, RetryOutcome, Stats, SubscriptionStore,
};
use webhook_core::{
    Attempt, Delivery, DeliveryId, DeliveryState, Event, EventId, EventSummary, MAX_RETRY_AFTER, Reason, StoreError,
    SubscriptionId, SubscriptionRecord, TenantId, Timestamp, parse_retry_after,
};

use crate::plan::Plan;
use crate::planted::PlantedStore;
use crate::world::World;

/// What must be true of a delivery, whatever the store says.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) tenant: TenantId,
    pub(crate) event: EventId,
    pub(crate) index: u32,
    /// Not to be leased before then.
    pub(crate) due: Timestamp,
    pub(crate) lease: Option<(LeaseToken, Timestamp)>,
    /// A lease that was made void: until its end, whoever holds it may still begin the attempt.
    void_until: Timestamp,
    pub(crate) ended: bool,
    pub(crate) cancelled: bool,
    pub(crate) attempts: u32,
    pub(crate) lost: u32,
    /// How often it was opened again: each time allows one attempt more.
    pub(crate) reopened: u32,
    open_again: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) deliveries: BTreeMap<DeliveryId, Book>,
    pub(crate) of: BTreeMap<(EventId, u32), DeliveryId>,
    pub(crate) events: BTreeMap<EventId, Event>,
    pub(crate) index: BTreeMap<SubscriptionId, u32>,
    pub(crate) fenced: u64,
}

/// The store, watched.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) inner: PlantedStore,
    world: Arc<World>,
    books: Mutex<Books>,
}

/// The number of the subscription that a URL belongs to.
pub(crate) fn index_of(url: &str) -> u32 {
    url.rsplit('/').next().unwrap().parse().unwrap()
}

impl Audit {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        let inner = PlantedStore::new(world.plant);
        Arc::new(Self { inner, world: Arc::clone(world), books: Mutex::default() })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    async fn around<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let answer = call.await;
        if method == "cancel_orphans" {
            self.end_orphans().await;
        }
        answer
    }

    /// Ends the books of deliveries whose subscription was deleted.
    async fn end_orphans(&self) {
        let open = |(id, book): (&DeliveryId, &Book)| (!book.ended).then(|| (*id, book.tenant.clone()));
        let open: Vec<_> = self.books().deliveries.iter().filter_map(open).collect();
        for (id, tenant) in open {
            let Some(delivery) = self.inner.delivery(&tenant, id).await.unwrap() else { continue };
            if delivery.reason == Some(Reason::SubscriptionDeleted)
                && let Some(book) = self.books().deliveries.get_mut(&id)
            {
                book.call_off();
            }
        }
    }

    /// Whether somebody may begin an attempt of this delivery.
    pub(crate) fn is_leased(&self, event: EventId, index: u32, now: Timestamp) -> bool {
        let books = self.books();
        let book = books.of.get(&(event, index)).and_then(|id| books.deliveries.get(id));
        let until = |book: &Book| book.lease.map_or(book.void_until, |(_, until)| until.max(book.void_until));
        book.is_some_and(|book| until(book) > now)
    }

    /// All subscriptions of the tenant.
    pub(crate) async fn subscriptions_of(&self, tenant: &TenantId) -> Vec<SubscriptionRecord> {
        let page = self.inner.list_subscriptions(tenant, PageRequest::newest(1000)).await.unwrap();
        for record in &page.items {
            self.books().index.insert(record.id, index_of(&record.settings.target_url));
        }
        page.items
    }

    /// C3: an event goes to what matches at the moment of its commit, and to nothing else.
    fn accepted(&self, unit: &AcceptUnit, item: &AcceptItem, now: Timestamp, subscriptions: &[SubscriptionRecord]) {
        let event = &item.event;
        self.world.log(format_args!("  accepted {} with {}", event.id, item.deliveries.len()));
        let mut given: Vec<_> = item.deliveries.iter().filter_map(|new| new.target.subscription()).collect();
        given.sort_unstable();
        if !event.direct {
            let wants = |record: &&SubscriptionRecord| {
                let mut patterns = record.settings.events.iter();
                record.disabled.is_none() && patterns.any(|pattern| pattern.matches(event.event_type.as_ref()))
            };
            let mut expected: Vec<_> = subscriptions.iter().filter(wants).map(|record| record.id).collect();
            expected.sort_unstable();
            if expected != given {
                self.world.wrong(format!("C3 {}: goes to {given:?} instead of {expected:?}", event.id));
            }
        }
        let mut books = self.books();
        for new in &item.deliveries {
            let Some(subscription) = new.target.subscription() else { continue };
            let lease = new.lease.map(|grant| (grant.token, grant.until));
            books.open(new.id, &unit.tenant, event.id, subscription, now.min(event.created_at), lease);
        }
        books.events.insert(event.id, event.clone());
    }

    async fn claimed(&self, request: ClaimRequest<'_>, claimed: &Claimed) {
        for lease in &claimed.leases {
            let id = lease.delivery;
            let subscription = lease.target.subscription().unwrap();
            let found = self.inner.subscriptions(&[(lease.tenant.clone(), subscription)]).await.unwrap();
            let takes = |record: &SubscriptionRecord| {
                record.disabled.is_none() && record.paused_until.is_none_or(|until| until <= request.now)
            };
            if !found.first().is_some_and(takes) {
                self.world.wrong(format!("C17 {id}: leased though its subscription takes nothing"));
            }
            let mut books = self.books();
            let Some(book) = books.deliveries.get_mut(&id) else {
                self.world.wrong(format!("C2 {id}: leased, and never accepted"));
                continue;
            };
            match book.lease.replace((lease.token, lease.until)) {
                Some((_, until)) if until > request.now => {
                    self.world.wrong(format!("C6 {id}: leased while another lease stands"));
                }
                Some(_) => book.lost += 1,
                None if book.due > request.now => self.world.wrong(format!("C10 {id}: leased before it is due")),
                None => {}
            }
            if book.ended {
                self.world.wrong(format!("C4 {id}: leased after its end"));
            }
            if lease.tenant != book.tenant || lease.event != book.event {
                self.world.wrong(format!("C13 {id}: leased as something else"));
            }
        }
        if claimed.exhausted > 0 {
            self.end_lost(request.now).await;
        }
    }

    /// Ends the books of deliveries that were given up for their lost leases.
    async fn end_lost(&self, now: Timestamp) {
        let expired = |(id, book): (&DeliveryId, &Book)| {
            let (_, until) = book.lease?;
            (until <= now && !book.ended).then(|| (*id, book.tenant.clone()))
        };
        let suspects: Vec<_> = self.books().deliveries.iter().filter_map(expired).collect();
        for (id, tenant) in suspects {
            let Some(delivery) = self.inner.delivery(&tenant, id).await.unwrap() else { continue };
            if let Some(book) = self.books().deliveries.get_mut(&id)
                && delivery.state != DeliveryState::Pending
            {
                book.lost += 1;
                book.end();
            }
        }
    }

    fn recorded(&self, outcome: &Outcome, recorded: Recorded) {
        let id = outcome.delivery;
        let mut books = self.books();
        let Some(book) = books.deliveries.get_mut(&id) else { return };
        let current = book.lease.is_some_and(|(token, _)| token == outcome.token);
        match (recorded, current) {
            (Recorded::Done, true) => {}
            (Recorded::Fenced, false) => {
                books.fenced += 1;
                return;
            }
            (Recorded::Done, false) => {
                return self.world.wrong(format!("C7 {id}: an outcome counted whose lease was gone"));
            }
            (Recorded::Fenced, true) => {
                return self.world.wrong(format!("C7 {id}: an outcome did not count whose lease stands"));
            }
        }
        book.lease = None;
        let plan = self.world.plan(book.index);
        if let Some(attempt) = &outcome.attempt {
            book.attempts += 1;
            if attempt.number != book.attempts {
                self.world.wrong(format!("C5 {id}: attempt {} is numbered {}", book.attempts, attempt.number));
            }
            if attempt.number > plan.attempts() + book.reopened {
                self.world.wrong(format!("C5 {id}: attempt {} is one too many", attempt.number));
            }
        }
        match outcome.next {
            NextStep::RetryAt(due) => {
                if book.open_again {
                    self.world.wrong(format!("C5 {id}: opened again for one attempt, and gets another"));
                }
                book.due = due;
                if let Some(attempt) = &outcome.attempt {
                    let earliest = earliest(&plan, attempt);
                    if due < earliest {
                        self.world.wrong(format!("C10 {id}: due again {:?} too early", earliest.since(due)));
                    }
                }
            }
            NextStep::End(..) => book.end(),
        }
    }
}

/// When the attempt after this failed one may come, by the policy and by what the endpoint asked for.
fn earliest(plan: &Plan, attempt: &Attempt) -> Timestamp {
    let ended = attempt.started_at + attempt.duration;
    let step = plan.delays.get(attempt.number as usize - 1).copied().unwrap_or(Duration::ZERO);
    let asked = attempt.response_headers.iter().find(|(name, _)| name == "retry-after");
    let asked = asked.and_then(|(_, value)| parse_retry_after(&value.parse().unwrap(), ended));
    ended + asked.map_or(step / 2, |asked| step.max(asked.min(MAX_RETRY_AFTER)))
}

impl Book {
    /// Ends it from outside: its lease is void.
    fn call_off(&mut self) {
        self.void_until = self.lease.map_or(self.void_until, |(_, until)| until.max(self.void_until));
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.open_again = false;
        self.lease = None;
    }
}

impl Books {
    fn open(
        &mut self,
        id: DeliveryId,
        tenant: &TenantId,
        event: EventId,
        subscription: SubscriptionId,
        due: Timestamp,
        lease: Option<(LeaseToken, Timestamp)>,
    ) {
        let index = self.index.get(&subscription).copied().unwrap_or(u32::MAX);
        self.of.insert((event, index), id);
        let book = Book {
            tenant: tenant.clone(),
            event,
            index,
            due,
            lease,
            void_until: Timestamp::EPOCH,
            ended: false,
            cancelled: false,
            attempts: 0,
            lost: 0,
            reopened: 0,
            open_again: false,
        };
        self.deliveries.insert(id, book);
    }
}

webhook_core::wrap_store!(Audit: SubscriptionStore, MaintenanceStore, CaptureStore, ReceiptStore);

#[async_trait::async_trait]
impl EventStore for Audit {
    async fn accept(&self, now: Timestamp, units: &[AcceptUnit]) -> Result<Vec<AcceptOutcome>, StoreError> {
        let mut subscriptions = BTreeMap::new();
        for unit in units {
            subscriptions.insert(unit.tenant.clone(), self.subscriptions_of(&unit.tenant).await);
        }
        let outcomes = self.inner.accept(now, units).await?;
        for (unit, outcome) in units.iter().zip(&outcomes) {
            let AcceptOutcome::Done(items) = outcome else { continue };
            for (item, outcome) in unit.items.iter().zip(items) {
                if let ItemOutcome::Created(_) = outcome {
                    let subscriptions = subscriptions.get(&unit.tenant).map_or(&[][..], Vec::as_slice);
                    self.accepted(unit, item, now, subscriptions);
                }
            }
        }
        Ok(outcomes)
    }

    async fn event(&self, tenant: &TenantId, id: EventId) -> Result<Option<(Event, u32)>, StoreError> {
        self.inner.event(tenant, id).await
    }

    async fn list_events(
        &self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: PageRequest,
    ) -> Result<Page<EventSummary>, StoreError> {
        self.inner.list_events(tenant, filter, page).await
    }

    async fn load_events(&self, ids: &[(TenantId, EventId)]) -> Result<Vec<Event>, StoreError> {
        self.inner.load_events(ids).await
    }
}

#[async_trait::async_trait]
impl DeliveryStore for Audit {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        let claimed = self.inner.claim(request).await?;
        self.claimed(request, &claimed).await;
        Ok(claimed)
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        let claimed = self.inner.claim_ids(request, ids).await?;
        self.claimed(request, &claimed).await;
        Ok(claimed)
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let recorded = self.inner.record(now, outcomes).await?;
        for (outcome, recorded) in outcomes.iter().zip(&recorded) {
            self.world.log(format_args!("  {} {:?} {recorded:?}", outcome.delivery, outcome.next));
            self.recorded(outcome, *recorded);
        }
        Ok(recorded)
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        self.inner.release(releases).await?;
        let mut books = self.books();
        for release in releases {
            let Some(book) = books.deliveries.get_mut(&release.delivery) else { continue };
            if book.lease.is_some_and(|(token, _)| token == release.token) {
                book.lease = None;
                book.due = release.due;
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl HistoryStore for Audit {
    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.inner.delivery(tenant, id).await
    }

    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        self.inner.list_deliveries(tenant, filter, page).await
    }

    async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        self.inner.attempts_of(tenant, delivery).await
    }

    async fn list_attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        page: PageRequest,
    ) -> Result<Page<Attempt>, StoreError> {
        self.inner.list_attempts(tenant, subscription, page).await
    }

    async fn retry(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let before = self.inner.delivery(tenant, id).await?;
        let outcome = self.inner.retry(tenant, id, now).await?;
        let mut books = self.books();
        let Some(book) = books.deliveries.get_mut(&id).filter(|_| outcome == RetryOutcome::Done) else {
            return Ok(outcome);
        };
        if book.lease.is_some_and(|(_, until)| until > now) {
            self.world.wrong(format!("C6 {id}: retried while a lease stands"));
        }
        if before.is_some_and(|before| before.state != DeliveryState::Pending) {
            book.ended = false;
            book.open_again = true;
            book.reopened += 1;
            book.lease = None;
            book.due = now;
        }
        book.due = book.due.min(now);
        Ok(outcome)
    }

    async fn cancel(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<CancelOutcome, StoreError> {
        let outcome = self.inner.cancel(tenant, id, now).await?;
        if let (CancelOutcome::Done, Some(book)) = (outcome, self.books().deliveries.get_mut(&id)) {
            book.cancelled = true;
            book.call_off();
        }
        Ok(outcome)
    }

    async fn recoverable(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        since: Timestamp,
        until: Timestamp,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Recoverable>, StoreError> {
        self.inner.recoverable(tenant, subscription, since, until, after, limit).await
    }

    async fn add_deliveries(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        deliveries: &[AddedDelivery],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.subscriptions_of(tenant).await;
        let added = self.inner.add_deliveries(tenant, subscription, deliveries, now).await?;
        for new in deliveries {
            if self.inner.delivery(tenant, new.id).await?.is_some() {
                self.books().open(new.id, tenant, new.event, subscription, now, None);
            }
        }
        Ok(added)
    }

    async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, StoreError> {
        self.inner.stats(tenant, subscription, since).await
    }

    async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, StoreError> {
        self.inner.activity(tenant, limit).await
    }
}
