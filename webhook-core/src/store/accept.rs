//! Accepting events: what is asked, what is answered, and the rules in between that no adapter should write again.

use std::collections::HashMap;

use super::LeaseToken;
use crate::{DeliveryId, Event, EventReceipt, Generation, Sealed, Target, TenantId, Timestamp};

/// An idempotency key and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdempotencyKey {
    /// Which route or purpose it counts for.
    pub scope: &'static str,
    /// The caller's text.
    pub key: String,
    /// SHA-256 of what was asked: the same key with another fingerprint is a conflict.
    pub fingerprint: [u8; 32],
    /// Until when it is remembered.
    pub expires_at: Timestamp,
}

impl IdempotencyKey {
    /// The key `key` in `scope`, remembered until `expires_at`.
    pub fn new(scope: &'static str, key: String, fingerprint: [u8; 32], expires_at: Timestamp) -> Self {
        Self { scope, key, fingerprint, expires_at }
    }
}

/// An idempotency key with the answer to remember, sealed by core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedAnswer {
    /// The key.
    pub key: IdempotencyKey,
    /// The answer.
    pub answer: Sealed,
}

/// An idempotency key as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Whose key this is.
    pub tenant: TenantId,
    /// Which route or purpose it counts for.
    pub scope: String,
    /// The caller's text.
    pub key: String,
    /// What was asked.
    pub fingerprint: [u8; 32],
    /// What was answered: for accepted events a JSON array of receipts.
    pub answer: Vec<u8>,
    /// Until when it is remembered.
    pub expires_at: Timestamp,
}

/// The right to attempt a delivery that is given when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// The lease's token.
    pub token: LeaseToken,
    /// The lease's end.
    pub until: Timestamp,
}

/// A delivery to create.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// What it goes to.
    pub target: Target,
    /// Leased from the start to the local worker, which has room for it.
    pub lease: Option<LeaseGrant>,
}

impl NewDelivery {
    /// A delivery to `target`, due at once.
    pub fn new(id: DeliveryId, target: Target) -> Self {
        Self { id, target, lease: None }
    }
}

/// An event to accept with its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptItem {
    /// The event.
    pub event: Event,
    /// Its deliveries: what matched, or the one direct target.
    pub deliveries: Vec<NewDelivery>,
    /// The caller's own key for this event.
    pub key: Option<IdempotencyKey>,
}

impl AcceptItem {
    /// `event` with its deliveries and no key.
    pub fn new(event: Event, deliveries: Vec<NewDelivery>) -> Self {
        Self { event, deliveries, key: None }
    }
}

/// One call of one tenant: one or more events that are accepted together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptUnit {
    /// Whose events these are.
    pub tenant: TenantId,
    /// The generation of the tenant's subscriptions that the deliveries were matched at.
    pub generation: Generation,
    /// The key of the call as a whole.
    pub key: Option<IdempotencyKey>,
    /// The events.
    pub items: Vec<AcceptItem>,
}

impl AcceptUnit {
    /// These events of `tenant`, matched at `generation`, without a key.
    pub fn new(tenant: TenantId, generation: Generation, items: Vec<AcceptItem>) -> Self {
        Self { tenant, generation, key: None, items }
    }
}

/// How accepting a unit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptOutcome {
    /// Decided for each item, in order.
    Done(Vec<ItemOutcome>),
    /// The subscriptions changed since they were matched; nothing was stored: match again.
    Stale,
    /// The unit's key was used before with another body; nothing was stored.
    Conflict,
}

/// How accepting an event ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It is stored with its deliveries.
    Created(EventReceipt),
    /// The key was used before with the same body: this was the answer; nothing was stored.
    Duplicate(EventReceipt),
    /// The key was used before with another body; nothing was stored.
    Conflict,
}

/// What a transaction that accepts units has to write, decided from what it has read.
///
/// An adapter reads the tenants' generations and the keys named by [`AcceptPlan::keys_of`], calls
/// [`AcceptPlan::resolve`], writes [`AcceptPlan::events`] and [`AcceptPlan::keys`], commits, and answers
/// [`AcceptPlan::outcomes`].
#[derive(Debug)]
pub struct AcceptPlan<'a> {
    /// The events to insert with their deliveries.
    pub events: Vec<&'a AcceptItem>,
    /// The keys to remember; one of the same name that has expired is replaced.
    pub keys: Vec<StoredKey>,
    /// The answers, one for each unit.
    pub outcomes: Vec<AcceptOutcome>,
}

impl<'a> AcceptPlan<'a> {
    /// The keys that the units name, with their tenants.
    pub fn keys_of(units: &'a [AcceptUnit]) -> impl Iterator<Item = (&'a TenantId, &'a IdempotencyKey)> {
        units.iter().flat_map(|unit| {
            let items = unit.items.iter().filter_map(|item| item.key.as_ref());
            unit.key.iter().chain(items).map(|key| (&unit.tenant, key))
        })
    }

    /// Decides what happens to each unit, as if they came one after the other.
    ///
    /// `generations` are the tenants' current ones (an absent tenant has none yet: zero), `stored` the keys found
    /// under the names asked for, expired ones included.
    pub fn resolve(
        units: &'a [AcceptUnit],
        now: Timestamp,
        generations: &HashMap<TenantId, Generation>,
        stored: Vec<StoredKey>,
    ) -> Self {
        let mut seen: HashMap<(TenantId, String, String), StoredKey> = HashMap::new();
        for key in stored.into_iter().filter(|key| key.expires_at > now) {
            seen.insert((key.tenant.clone(), key.scope.clone(), key.key.clone()), key);
        }
        let mut plan = Self { events: Vec::new(), keys: Vec::new(), outcomes: Vec::with_capacity(units.len()) };
        for unit in units {
            let outcome = plan.resolve_unit(unit, generations, &mut seen);
            plan.outcomes.push(outcome);
        }
        plan
    }

    fn resolve_unit(
        &mut self,
        unit: &'a AcceptUnit,
        generations: &HashMap<TenantId, Generation>,
        seen: &mut HashMap<(TenantId, String, String), StoredKey>,
    ) -> AcceptOutcome {
        match look_up(seen, &unit.tenant, unit.key.as_ref()) {
            Seen::Never => {}
            Seen::Conflict => return AcceptOutcome::Conflict,
            Seen::Before(receipts) => {
                let outcomes = receipts.into_iter().map(|receipt| match receipt {
                    Some(receipt) => ItemOutcome::Duplicate(receipt),
                    None => ItemOutcome::Conflict,
                });
                return AcceptOutcome::Done(outcomes.collect());
            }
        }
        if generations.get(&unit.tenant).copied().unwrap_or_default() != unit.generation {
            return AcceptOutcome::Stale;
        }
        let mut outcomes = Vec::with_capacity(unit.items.len());
        for item in &unit.items {
            let outcome = match look_up(seen, &unit.tenant, item.key.as_ref()) {
                Seen::Never => {
                    let receipt = EventReceipt::of(&item.event, &item.deliveries);
                    self.remember(seen, &unit.tenant, item.key.as_ref(), &[Some(&receipt)]);
                    self.events.push(item);
                    ItemOutcome::Created(receipt)
                }
                Seen::Conflict => ItemOutcome::Conflict,
                Seen::Before(receipts) => match receipts.into_iter().next().flatten() {
                    Some(receipt) => ItemOutcome::Duplicate(receipt),
                    None => ItemOutcome::Conflict,
                },
            };
            outcomes.push(outcome);
        }
        let receipts: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                ItemOutcome::Created(receipt) | ItemOutcome::Duplicate(receipt) => Some(receipt),
                ItemOutcome::Conflict => None,
            })
            .collect();
        self.remember(seen, &unit.tenant, unit.key.as_ref(), &receipts);
        AcceptOutcome::Done(outcomes)
    }

    fn remember(
        &mut self,
        seen: &mut HashMap<(TenantId, String, String), StoredKey>,
        tenant: &TenantId,
        key: Option<&IdempotencyKey>,
        receipts: &[Option<&EventReceipt>],
    ) {
        let Some(key) = key else { return };
        let stored = StoredKey {
            tenant: tenant.clone(),
            scope: key.scope.to_owned(),
            key: key.key.clone(),
            fingerprint: key.fingerprint,
            answer: serde_json::to_vec(receipts).unwrap_or_default(),
            expires_at: key.expires_at,
        };
        seen.insert((tenant.clone(), stored.scope.clone(), stored.key.clone()), stored.clone());
        self.keys.push(stored);
    }
}

enum Seen {
    Never,
    Before(Vec<Option<EventReceipt>>),
    Conflict,
}

fn look_up(
    seen: &HashMap<(TenantId, String, String), StoredKey>,
    tenant: &TenantId,
    key: Option<&IdempotencyKey>,
) -> Seen {
    let Some(key) = key else { return Seen::Never };
    match seen.get(&(tenant.clone(), key.scope.to_owned(), key.key.clone())) {
        None => Seen::Never,
        Some(stored) if stored.fingerprint == key.fingerprint => match serde_json::from_slice(&stored.answer) {
            Ok(receipts) => Seen::Before(receipts),
            Err(_) => Seen::Conflict,
        },
        Some(_) => Seen::Conflict,
    }
}
