//! Random courses of calls, each held against the model: see [`store_model`](crate::store_model).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Scene;
use super::model::{Model, Row, time};
use super::scene::{LEASE, key};
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, CancelOutcome, ClaimRequest, Claimed, DeliveryFilter, ItemOutcome, Lease,
    LeaseGrant, LeaseToken, NextStep, Page, PageRequest, PruneRequest, Release, RetryOutcome, Room, TargetEffect,
    Updated,
};
use crate::{
    Delivery, DeliveryId, DeliveryState, DisabledReason, Generation, Reason, Store, SubscriptionRecord, TargetId,
    Timestamp,
};

/// Expands to one `#[test]` that takes random courses of calls on a [`Store`](crate::Store) and holds it against a small
/// model after each call: what may be leased is leased, nothing else is, outcomes count with the current token only, and
/// nothing changes that should not. A course that fails is shortened before it is shown.
///
/// The first argument is that of [`store_conformance`](crate::store_conformance), the second how many courses there are;
/// `PROPTEST_CASES` overrides it.
#[macro_export]
macro_rules! store_model {
    ($factory:expr, $courses:expr) => {
        #[test]
        fn random_courses_of_calls_agree_with_the_model() {
            $crate::testing::store::take_random_courses(|| $factory(), $courses);
        }
    };
}

/// What [`store_model`](crate::store_model) calls.
#[doc(hidden)]
pub fn take_random_courses<F, G>(factory: impl Fn() -> F, courses: u32)
where
    F: Future<Output = (Arc<dyn Store>, G)>,
{
    let mut config = Config { failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = courses;
    }
    let course = proptest::collection::vec(step(), 1..120);
    let outcome = TestRunner::new(config).run(&course, |steps| {
        super::super::run_case(async {
            let (store, guard) = factory().await;
            Course::new(store).take(steps).await;
            drop(guard);
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// One call, with numbers that pick among what there is.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Subscribe,
    Switch { subscription: usize, disabled: bool, stale: bool },
    Unsubscribe { subscription: usize },
    Emit { to: Vec<usize>, key: Option<(u8, u8)>, stale: bool, leased: bool },
    Claim { limit: u32, room: u32 },
    ClaimThese(Vec<usize>),
    ClaimAll,
    Record { lease: usize, next: Next, effect: Effect },
    Release { lease: usize, later: u64 },
    Retry { delivery: usize },
    Cancel { delivery: usize },
    CancelOrphans,
    Prune { age: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Retry(u64),
    Deliver,
    Exhaust,
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    None,
    Pause(u64),
    Resume,
    DisableGone,
}

fn step() -> impl Strategy<Value = Step> {
    let any = || 0..64_usize;
    let next = prop_oneof![3 => (0..20_u64).prop_map(Next::Retry), 2 => Just(Next::Deliver), 1 => Just(Next::Exhaust)];
    let effect = prop_oneof![
        4 => Just(Effect::None),
        2 => (0..40_u64).prop_map(Effect::Pause),
        1 => Just(Effect::Resume),
        1 => Just(Effect::DisableGone),
    ];
    prop_oneof![
        4 => (0..40_u64).prop_map(Step::Wait),
        1 => Just(Step::Subscribe),
        2 => (any(), proptest::bool::ANY, proptest::bool::weighted(0.2))
            .prop_map(|(subscription, disabled, stale)| Step::Switch { subscription, disabled, stale }),
        1 => any().prop_map(|subscription| Step::Unsubscribe { subscription }),
        6 => (
            proptest::collection::vec(any(), 0..4),
            proptest::option::weighted(0.4, (0..3_u8, 0..2_u8)),
            proptest::bool::weighted(0.15),
            proptest::bool::weighted(0.3),
        )
            .prop_map(|(to, key, stale, leased)| Step::Emit { to, key, stale, leased }),
        4 => (1..6_u32, 1..3_u32).prop_map(|(limit, room)| Step::Claim { limit, room }),
        2 => proptest::collection::vec(any(), 0..5).prop_map(Step::ClaimThese),
        2 => Just(Step::ClaimAll),
        8 => (any(), next, effect).prop_map(|(lease, next, effect)| Step::Record { lease, next, effect }),
        2 => (any(), 0..20_u64).prop_map(|(lease, later)| Step::Release { lease, later }),
        3 => any().prop_map(|delivery| Step::Retry { delivery }),
        1 => any().prop_map(|delivery| Step::Cancel { delivery }),
        1 => Just(Step::CancelOrphans),
        1 => (0..200_u64).prop_map(|age| Step::Prune { age }),
    ]
}

/// A course under way.
struct Course {
    scene: Scene,
    model: Model,
    seconds: u64,
    /// All that were ever given, the newest last.
    leases: Vec<Lease>,
}

/// The newest ones come first.
fn pick<T>(from: &[T], number: usize) -> Option<&T> {
    from.iter().rev().nth(number % from.len().max(1))
}

impl Course {
    fn new(store: Arc<dyn Store>) -> Self {
        Self { scene: Scene::new(store), model: Model::default(), seconds: 0, leases: Vec::new() }
    }

    fn now(&self) -> Timestamp {
        time(self.seconds)
    }

    async fn take(mut self, steps: Vec<Step>) {
        self.subscribe().await;
        for step in steps {
            self.step(step).await;
            self.compare().await;
        }
        for (id, row) in &self.model.deliveries {
            let attempts = self.scene.store.attempts_of(&self.scene.tenant, *id).await.expect("the store works");
            let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
            assert_eq!(numbers, (1..=row.attempts).collect::<Vec<_>>(), "the attempts of {id}");
        }
        let foreign = self.list(&self.scene.stranger).await;
        assert!(foreign.items.is_empty(), "a stranger sees {foreign:?}");
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Wait(seconds) => self.seconds += seconds,
            Step::Subscribe => self.subscribe().await,
            Step::Switch { subscription, disabled, stale } => self.switch(subscription, disabled, stale).await,
            Step::Unsubscribe { subscription } => self.unsubscribe(subscription).await,
            Step::Emit { to, key, stale, leased } => self.emit(&to, key, stale, leased).await,
            Step::Claim { limit, room } => {
                self.claim(limit, room, None).await;
            }
            Step::ClaimThese(numbers) => self.claim_these(&numbers).await,
            Step::ClaimAll => self.claim_all().await,
            Step::Record { lease, next, effect } => self.record(lease, next, effect).await,
            Step::Release { lease, later } => self.release(lease, later).await,
            Step::Retry { delivery } => self.retry(delivery).await,
            Step::Cancel { delivery } => self.cancel(delivery).await,
            Step::CancelOrphans => {
                let (mut cancelled, now) = (0, self.now());
                loop {
                    let step = self.scene.store.cancel_orphans(now, 2).await.expect("the store works");
                    cancelled += step;
                    if step < 2 {
                        break;
                    }
                }
                assert_eq!(cancelled, self.model.cancel_orphans(now), "cancelled orphans");
            }
            Step::Prune { age } => self.prune(age).await,
        }
    }

    async fn subscribe(&mut self) {
        let record = self.scene.record_of(&self.scene.tenant, self.now());
        let record = self.scene.insert(record).await;
        self.model.changed(record.version);
        self.model.subscriptions.push(record);
    }

    async fn switch(&mut self, number: usize, disabled: bool, stale: bool) {
        let Some(mut record) = pick(&self.model.subscriptions, number).cloned() else { return };
        let before = record.disabled.clone();
        record.disabled = disabled.then_some(DisabledReason::Requested);
        if stale {
            record.version = Generation::new(record.version.get() - 1);
        }
        let updated = self.scene.store.update_subscription(&record).await.expect("the store works");
        if stale {
            return assert_eq!(updated, Updated::Changed, "an update of another version");
        }
        let Updated::Done(version) = updated else { panic!("an update of the stored version: {updated:?}") };
        self.model.changed(version);
        record.version = version;
        if before != record.disabled {
            record.paused_until = None;
        }
        if let Some(known) = self.model.subscription_mut(record.id) {
            *known = record;
        }
    }

    async fn unsubscribe(&mut self, number: usize) {
        let Some(record) = pick(&self.model.subscriptions, number).cloned() else { return };
        let (store, tenant, now) = (&self.scene.store, &self.scene.tenant, self.now());
        let foreign = store.delete_subscription(&self.scene.stranger, record.id, now).await.expect("the store works");
        assert!(!foreign, "a stranger deleted a subscription");
        assert!(store.delete_subscription(tenant, record.id, now).await.expect("the store works"));
        self.model.changed(self.scene.generation(&self.scene.tenant).await);
        self.model.subscriptions.retain(|other| other.id != record.id);
        self.model.deleted.push(record);
    }

    async fn emit(&mut self, to: &[usize], named: Option<(u8, u8)>, stale: bool, leased: bool) {
        let now = self.now();
        let chosen: BTreeMap<_, SubscriptionRecord> = to
            .iter()
            .filter_map(|number| pick(&self.model.subscriptions, *number))
            .map(|record| (record.id, record.clone()))
            .collect();
        let event = self.scene.event(&self.scene.tenant, now);
        let (id, until) = (event.id, now + Duration::from_secs(LEASE));
        let mut deliveries: Vec<_> = chosen.values().map(|record| self.scene.to(record, now)).collect();
        for new in deliveries.iter_mut().filter(|_| leased) {
            new.lease = Some(LeaseGrant { token: self.scene.token(), until });
        }
        let expires_at = now + Duration::from_secs(100);
        let mut item = AcceptItem::new(event, deliveries.clone());
        item.key = named.map(|(name, fingerprint)| {
            let mut key = key(&format!("key-{name}"), fingerprint);
            key.expires_at = expires_at;
            key
        });
        let generation = self.model.generation;
        let generation = if stale { Generation::new(generation.get() + 7) } else { generation };
        let unit = AcceptUnit::new(self.scene.tenant.clone(), generation, vec![item]);
        let outcome = self.scene.accept_units(now, &[unit]).await.pop();
        let known = named.and_then(|(name, _)| self.model.keys.get(&name)).filter(|(_, _, end)| *end > now).copied();
        match (outcome, named, known) {
            (Some(AcceptOutcome::Stale), ..) if stale => return,
            (Some(AcceptOutcome::Done(items)), Some((_, fingerprint)), Some((first, stands_for, _))) if !stale => {
                return match &items[..] {
                    [ItemOutcome::Duplicate(receipt)] if fingerprint == first => assert_eq!(receipt.id, stands_for),
                    [ItemOutcome::Conflict] if fingerprint != first => {}
                    _ => panic!("a key that was used before gave {items:?}"),
                };
            }
            (Some(AcceptOutcome::Done(items)), _, None) if !stale => {
                assert!(matches!(&items[..], [ItemOutcome::Created(receipt)] if receipt.id == id), "{items:?}");
            }
            (outcome, ..) => panic!("accepting gave {outcome:?}"),
        }
        if let Some((name, fingerprint)) = named {
            self.model.keys.insert(name, (fingerprint, id, expires_at));
        }
        for new in &deliveries {
            let Some(subscription) = new.target.subscription() else { continue };
            let mut row = Row::new(id, subscription, now);
            if let Some(LeaseGrant { token, until }) = new.lease {
                (row.token, row.next_at) = (Some(token), until);
                let tenant = self.scene.tenant.clone();
                self.leases.push(Lease::new(new.id, tenant, id, new.target.clone(), token, until));
            }
            self.model.deliveries.insert(new.id, row);
        }
        self.model.events.insert(id, (now, deliveries.iter().map(|new| new.id).collect()));
    }

    async fn claim(&mut self, limit: u32, room: u32, cursor: Option<TargetId>) -> Claimed {
        let (now, token, all) = (self.now(), self.scene.token(), Room::all(room));
        let request = ClaimRequest::new(now, now + Duration::from_secs(LEASE), token, limit, &all).with_cursor(cursor);
        let claimed = self.scene.claim_with(request).await;
        assert!(claimed.leases.len() <= limit as usize, "more leases than {limit}: {claimed:?}");
        let mut of_target: BTreeMap<TargetId, u32> = BTreeMap::new();
        for lease in &claimed.leases {
            *of_target.entry(lease.target.id()).or_default() += 1;
        }
        assert!(of_target.values().all(|count| *count <= room), "more leases than there is room for: {claimed:?}");
        self.follow(now, token, &claimed).await;
        claimed
    }

    /// Takes a claim over into the model. When exactly a store finds a lease lost that it gives to nobody is its own affair.
    async fn follow(&mut self, now: Timestamp, token: LeaseToken, claimed: &Claimed) {
        let leased: BTreeSet<_> = claimed.leases.iter().map(|lease| lease.delivery).collect();
        let mut found_lost = Vec::new();
        for (id, row) in &self.model.deliveries {
            if row.is_lost(now) && !leased.contains(id) && !self.scene.delivery(*id).await.leased {
                found_lost.push(*id);
            }
        }
        self.model.claimed(now, token, claimed, &found_lost);
        self.leases.extend(claimed.leases.iter().cloned());
    }

    async fn claim_these(&mut self, numbers: &[usize]) {
        let known: Vec<_> = self.model.deliveries.keys().copied().collect();
        let mut ids: Vec<DeliveryId> = numbers.iter().filter_map(|number| pick(&known, *number)).copied().collect();
        // One that nobody knows.
        ids.push(DeliveryId::from_uuid(self.scene.uuid(self.now())));
        let (now, token, room) = (self.now(), self.scene.token(), Room::all(u32::MAX));
        let claimable = |id: &&DeliveryId| {
            self.model
                .deliveries
                .get(id)
                .is_some_and(|row| self.model.is_claimable(row, now) && !row.is_at_its_last_lease())
        };
        let expected: BTreeSet<_> = ids.iter().filter(claimable).copied().collect();
        let request = ClaimRequest::new(now, now + Duration::from_secs(LEASE), token, 100, &room);
        let claimed = self.scene.store.claim_ids(request, &ids).await.expect("the store works");
        let leased: BTreeSet<_> = claimed.leases.iter().map(|lease| lease.delivery).collect();
        assert_eq!((claimed.leases.len(), leased), (expected.len(), expected), "leases of given deliveries");
        self.follow(now, token, &claimed).await;
    }

    /// Repeated claims that go on from the cursor reach everything.
    async fn claim_all(&mut self) {
        let mut cursor = None;
        for _ in 0..64 {
            let claimed = self.claim(3, u32::MAX, cursor).await;
            cursor = claimed.cursor;
            if claimed.leases.is_empty() && claimed.exhausted == 0 && cursor.is_none() {
                break;
            }
        }
        let now = self.now();
        let left: Vec<_> = self.model.deliveries.iter().filter(|(_, row)| self.model.is_claimable(row, now)).collect();
        assert!(left.is_empty(), "claims do not find {left:?}");
    }

    /// One of the current leases, or now and then one that stands no more.
    fn lease(&self, number: usize) -> Option<Lease> {
        let stands = |lease: &&Lease| {
            self.model.deliveries.get(&lease.delivery).is_some_and(|row| row.token == Some(lease.token))
        };
        let standing: Vec<_> = self.leases.iter().filter(stands).cloned().collect();
        let among = if number.is_multiple_of(4) || standing.is_empty() { &self.leases } else { &standing };
        pick(among, number / 4).cloned()
    }

    async fn record(&mut self, number: usize, next: Next, effect: Effect) {
        let Some(lease) = self.lease(number) else { return };
        let now = self.now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut outcome = match next {
            Next::Retry(seconds) => self.scene.failure(&lease, now, NextStep::RetryAt(later(seconds))),
            Next::Deliver => self.scene.success(&lease, now),
            Next::Exhaust => {
                let end = NextStep::End(DeliveryState::Exhausted, Some(Reason::AttemptsExhausted));
                self.scene.failure(&lease, now, end)
            }
        };
        outcome.effect = match effect {
            Effect::None => TargetEffect::None,
            Effect::Pause(seconds) => TargetEffect::Pause(later(seconds)),
            Effect::Resume => TargetEffect::Resume,
            Effect::DisableGone => TargetEffect::DisableGone,
        };
        let recorded = self.scene.record(now, outcome.clone()).await;
        let generation = self.scene.generation(&self.scene.tenant).await;
        let expected = self.model.record(now, &outcome, generation);
        assert_eq!(recorded, expected, "an outcome of {}", lease.delivery);
    }

    async fn release(&mut self, number: usize, later: u64) {
        let Some(lease) = self.lease(number) else { return };
        let due = self.now() + Duration::from_secs(later);
        let release = Release { delivery: lease.delivery, token: lease.token, due };
        self.scene.store.release(&[release]).await.expect("the store works");
        self.model.release(lease.delivery, lease.token, due);
    }

    async fn retry(&mut self, number: usize) {
        let known: Vec<_> = self.model.deliveries.iter().map(|(id, row)| (*id, row.subscription)).collect();
        let Some((id, subscription)) = pick(&known, number).copied() else { return };
        let (store, now) = (&self.scene.store, self.now());
        let foreign = store.retry(&self.scene.stranger, id, now).await.expect("the store works");
        assert_eq!(foreign, RetryOutcome::Missing, "a stranger retries");
        let outcome = store.retry(&self.scene.tenant, id, now).await.expect("the store works");
        let expected = match self.model.subscription(subscription).is_some() {
            false => RetryOutcome::TargetGone,
            true if self.model.retry(id, now) => RetryOutcome::Done,
            true => RetryOutcome::Leased,
        };
        assert_eq!(outcome, expected, "a retry of {id}");
    }

    async fn cancel(&mut self, number: usize) {
        let known: Vec<_> = self.model.deliveries.keys().copied().collect();
        let Some(id) = pick(&known, number).copied() else { return };
        let (store, now) = (&self.scene.store, self.now());
        let foreign = store.cancel(&self.scene.stranger, id, now).await.expect("the store works");
        assert_eq!(foreign, CancelOutcome::Missing, "a stranger cancels");
        let outcome = store.cancel(&self.scene.tenant, id, now).await.expect("the store works");
        let done = self.model.cancel(id, Reason::Requested, now);
        assert_eq!(outcome, if done { CancelOutcome::Done } else { CancelOutcome::Finished }, "cancelling {id}");
    }

    async fn prune(&mut self, age: u64) {
        let now = self.now();
        let ended_before = now - Duration::from_secs(age);
        let (mut removed, mut cursor) = (0, None);
        for _ in 0..1_000 {
            let request = PruneRequest { ended_before, now, cursor, limit: 3 };
            let step = self.scene.store.prune(request).await.expect("the store works");
            removed += step.events;
            if step.cursor.is_none() && !step.more_keys {
                break;
            }
            cursor = step.cursor.or(cursor);
        }
        assert_eq!(removed, self.model.prune(ended_before), "pruned events");
    }

    async fn list(&self, tenant: &crate::TenantId) -> Page<Delivery> {
        let (filter, page) = (DeliveryFilter::default(), PageRequest::newest(1_000));
        self.scene.store.list_deliveries(tenant, &filter, page).await.expect("the store works")
    }

    /// The store is as the model is.
    async fn compare(&self) {
        let (model, tenant) = (&self.model, &self.scene.tenant);
        let found = self.list(tenant).await.items;
        let ids: BTreeSet<_> = found.iter().map(|delivery| delivery.id).collect();
        assert!(ids.iter().eq(model.deliveries.keys()), "the deliveries there are: {ids:?}");
        for (delivery, row) in found.iter().filter_map(|delivery| Some((delivery, model.deliveries.get(&delivery.id)?)))
        {
            let held = model.subscription(row.subscription).is_some_and(|record| record.disabled.is_some());
            assert!(row.agrees_with(delivery, held), "is {delivery:?}, should be {row:?}, held {held}");
        }
        let page = PageRequest::newest(1_000);
        let found = self.scene.store.list_subscriptions(tenant, page).await.expect("the store works").items;
        let facts =
            |record: &SubscriptionRecord| (record.id, record.version, record.disabled.clone(), record.paused_until);
        let known: BTreeMap<_, _> = model.subscriptions.iter().map(|record| (record.id, facts(record))).collect();
        let found: BTreeMap<_, _> = found.iter().map(|record| (record.id, facts(record))).collect();
        assert_eq!(found, known, "subscriptions with version, state and pause");
        assert_eq!(self.scene.generation(tenant).await, model.generation, "the generation");
    }
}
