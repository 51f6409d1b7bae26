//! Random courses of calls, each held against the model: see [`store_model`](crate::store_model).

mod check;
mod result;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::step::{Leased, Step, To, step};
use super::Scene;
use super::model::{Model, Row, time};
use super::scene::{LEASE, key};
use crate::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, ClaimRequest, Claimed, DeliveryFilter, ItemOutcome, Lease, LeaseGrant,
    LeaseToken, Room, Updated,
};
use crate::{DeliveryId, DeliveryState, DisabledReason, EventId, Generation, Store, TargetId, Timestamp};

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
    // Some tenants have few subscriptions, and some so many that the deliveries of an event take more than one run of ids.
    let subscriptions = prop_oneof![4 => 1..4_usize, 3 => 4..16_usize, 1 => 60..72_usize];
    let course = (subscriptions, proptest::collection::vec(step(), 1..120));
    let outcome = TestRunner::new(config).run(&course, |(subscriptions, steps)| {
        super::super::run_case(async {
            let (store, guard) = factory().await;
            Course::new(store).take(subscriptions, steps).await;
            drop(guard);
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// A course under way.
struct Course {
    scene: Scene,
    model: Model,
    seconds: u64,
    /// All that were ever given, the newest last.
    leases: Vec<Lease>,
    /// Where the last claim stopped.
    cursor: Option<TargetId>,
    /// What was accepted without a key.
    accepted: Vec<AcceptItem>,
}

/// The newest ones come first.
fn pick<T>(from: &[T], number: usize) -> Option<&T> {
    from.iter().rev().nth(number % from.len().max(1))
}

impl Course {
    fn new(store: Arc<dyn Store>) -> Self {
        let (scene, model) = (Scene::new(store), Model::default());
        Self { scene, model, seconds: 0, leases: Vec::new(), cursor: None, accepted: Vec::new() }
    }

    fn now(&self) -> Timestamp {
        time(self.seconds)
    }

    async fn take(mut self, subscriptions: usize, steps: Vec<Step>) {
        for _ in 0..subscriptions {
            self.subscribe().await;
        }
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
        assert!(foreign.is_empty(), "a stranger sees {foreign:?}");
        self.count(None).await;
        for record in self.model.subscriptions.iter().take(5) {
            self.count(Some(record.id)).await;
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Wait(seconds) => self.seconds += seconds,
            Step::Subscribe => self.subscribe().await,
            Step::Switch { subscription, disabled, stale } => self.switch(subscription, disabled, stale).await,
            Step::Unsubscribe { subscription } => self.unsubscribe(subscription).await,
            Step::Emit { to, key, stale, leased, scattered } => {
                let item = self.item(&to, leased, scattered);
                self.emit(item, key, stale).await;
            }
            Step::EmitAgain { event, beside } => self.emit_again(event, beside).await,
            Step::Claim { limit, room, without, goes_on } => {
                let mut room = Room::all(room);
                let without = without.iter().filter_map(|number| pick(&self.model.subscriptions, *number));
                room.of.extend(without.zip([0, 0, 0, 5, 200]).map(|(record, room)| (record.id.into(), room)));
                let cursor = self.cursor.filter(|_| goes_on);
                self.cursor = self.claim(limit, &room, cursor).await.cursor;
            }
            Step::ClaimThese { deliveries, limit } => self.claim_these(&deliveries, limit).await,
            Step::ClaimAll { limit } => self.claim_all(limit).await,
            Step::Record { lease, next, effect, flaw } => self.record(lease, next, effect, flaw).await,
            Step::RecordMany(outcomes) => self.record_many(&outcomes).await,
            Step::Release { leases, later } => self.release(&leases, later).await,
            Step::Recover { subscription, limit } => self.recover(subscription, limit).await,
            Step::List { state, subscription, event, since, limit } => {
                let filter = DeliveryFilter {
                    state: state.and_then(|number| pick(DeliveryState::ALL, number)).copied(),
                    subscription: subscription
                        .and_then(|number| pick(&self.model.subscriptions, number))
                        .map(|record| record.id),
                    event: event.and_then(|number| self.event(number)),
                    since: since.map(|age| self.now() - Duration::from_secs(age)),
                };
                self.list_all(&filter, limit).await;
            }
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

    /// An event to some of the subscriptions.
    fn item(&self, to: &To, leased: Leased, scattered: bool) -> AcceptItem {
        let now = self.now();
        let (To::Some(numbers) | To::AllBut(numbers)) = to;
        let named: BTreeMap<_, _> = numbers
            .iter()
            .filter_map(|number| pick(&self.model.subscriptions, *number))
            .map(|record| (record.id, record.clone()))
            .collect();
        let mut chosen = self.model.subscriptions.clone();
        chosen.retain(|record| named.contains_key(&record.id) == matches!(to, To::Some(_)));
        let mut item = self.scene.item_to(&chosen, now);
        if scattered {
            let ids = self.scene.scattered(chosen.len(), now);
            item.deliveries.iter_mut().zip(ids).for_each(|(new, id)| new.id = id);
        }
        let (token, until) = (self.scene.token(), now + Duration::from_secs(LEASE));
        for (number, new) in item.deliveries.iter_mut().enumerate() {
            new.lease = match leased {
                Leased::Together(but) if number % (but + 1) != but => Some(LeaseGrant { token, until }),
                Leased::Alone => Some(LeaseGrant { token: self.scene.token(), until }),
                _ => None,
            };
        }
        item
    }

    async fn emit(&mut self, mut item: AcceptItem, named: Option<(u8, u8)>, stale: bool) {
        let now = self.now();
        let id = item.event.id;
        let expires_at = now + Duration::from_secs(100);
        item.key = named.map(|(name, fingerprint)| {
            let mut key = key(&format!("key-{name}"), fingerprint);
            key.expires_at = expires_at;
            key
        });
        let generation = self.model.generation;
        let generation = if stale { Generation::new(generation.get() + 7) } else { generation };
        let unit = AcceptUnit::new(self.scene.tenant.clone(), generation, vec![item.clone()]);
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
        self.know(&item);
        if named.is_none() {
            self.accepted.push(item);
        }
    }

    /// Takes an accepted event over into the model.
    fn know(&mut self, item: &AcceptItem) {
        let (id, now) = (item.event.id, item.event.created_at);
        for new in &item.deliveries {
            let Some(subscription) = new.target.subscription() else { continue };
            let mut row = Row::new(id, subscription, now);
            if let Some(LeaseGrant { token, until }) = new.lease {
                (row.token, row.next_at) = (Some(token), until);
                let tenant = self.scene.tenant.clone();
                self.leases.push(Lease::new(new.id, tenant, id, new.target.clone(), token, until));
            }
            self.model.deliveries.insert(new.id, row);
        }
        self.model.events.insert(id, (now, item.deliveries.iter().map(|new| new.id).collect()));
    }

    /// Accepts an event once more, alone or beside a new one: the first answer may have been lost.
    async fn emit_again(&mut self, number: usize, beside: bool) {
        self.accepted.retain(|item| self.model.events.contains_key(&item.event.id));
        let Some(again) = pick(&self.accepted, number).cloned() else { return };
        let new = self.item(&To::AllBut(vec![number]), Leased::None, false);
        let items = if beside { vec![again, new.clone()] } else { vec![again] };
        let unit = AcceptUnit::new(self.scene.tenant.clone(), self.model.generation, items);
        let outcome = self.scene.accept_units(self.now(), &[unit]).await.pop();
        let Some(AcceptOutcome::Done(items)) = outcome else { panic!("accepting again gave {outcome:?}") };
        assert!(items.iter().all(|item| matches!(item, ItemOutcome::Created(_))), "accepting again gave {items:?}");
        if beside {
            self.know(&new);
            self.accepted.push(new);
        }
    }

    fn event(&self, number: usize) -> Option<EventId> {
        let known: Vec<_> = self.model.events.keys().copied().collect();
        pick(&known, number).copied()
    }

    async fn claim(&mut self, limit: u32, room: &Room, cursor: Option<TargetId>) -> Claimed {
        let (now, token) = (self.now(), self.scene.token());
        let request = ClaimRequest::new(now, now + Duration::from_secs(LEASE), token, limit, room).with_cursor(cursor);
        let claimed = self.scene.claim_with(request).await;
        assert!(claimed.leases.len() <= limit as usize, "more leases than {limit}: {claimed:?}");
        let mut of_target: BTreeMap<TargetId, u32> = BTreeMap::new();
        for lease in &claimed.leases {
            *of_target.entry(lease.target.id()).or_default() += 1;
        }
        assert!(
            of_target.iter().all(|(target, count)| *count <= room.get(*target)),
            "more leases than there is room for: {claimed:?}"
        );
        self.follow(now, token, &claimed).await;
        claimed
    }

    /// Takes a claim over into the model. When exactly a store finds a lease lost that it gives to nobody is its own affair.
    async fn follow(&mut self, now: Timestamp, token: LeaseToken, claimed: &Claimed) {
        let leased: BTreeSet<_> = claimed.leases.iter().map(|lease| lease.delivery).collect();
        let rows = self.model.deliveries.iter();
        let mut found_lost: Vec<_> = rows.filter(|(_, row)| row.is_lost(now)).map(|(id, _)| *id).collect();
        found_lost.retain(|id| !leased.contains(id));
        if !found_lost.is_empty() {
            let found = self.list(&self.scene.tenant).await;
            let still: BTreeSet<_> = found.iter().filter(|found| found.leased).map(|found| found.id).collect();
            found_lost.retain(|id| !still.contains(id));
        }
        self.model.claimed(now, token, claimed, &found_lost);
        self.leases.extend(claimed.leases.iter().cloned());
    }

    async fn claim_these(&mut self, numbers: &[usize], limit: u32) {
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
        let request = ClaimRequest::new(now, now + Duration::from_secs(LEASE), token, limit, &room);
        let claimed = self.scene.store.claim_ids(request, &ids).await.expect("the store works");
        let leased: BTreeSet<_> = claimed.leases.iter().map(|lease| lease.delivery).collect();
        assert_eq!(leased.len(), expected.len().min(limit as usize), "of {expected:?}");
        assert_eq!(claimed.leases.len(), leased.len(), "one was leased twice");
        assert!(leased.is_subset(&expected), "leases of given deliveries {leased:?}, expected {expected:?}");
        self.follow(now, token, &claimed).await;
    }

    /// Repeated claims that go on from the cursor reach everything.
    async fn claim_all(&mut self, limit: u32) {
        let (mut cursor, room) = (None, Room::all(u32::MAX));
        // Large steps where much is due, so that a course does not take long.
        let limit = limit.max(u32::try_from(self.model.deliveries.len() / 20).unwrap_or(u32::MAX));
        for _ in 0..200 {
            let claimed = self.claim(limit, &room, cursor).await;
            let around = cursor.is_none() && claimed.cursor.is_none();
            cursor = claimed.cursor;
            if claimed.leases.is_empty() && claimed.exhausted == 0 && around {
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
}
