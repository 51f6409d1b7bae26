//! What is kept of each thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::store::{IndexEntry, LeaseToken};
use crate::{
    Attempt, AttemptId, Delivery, DeliveryId, DeliveryState, ErrorKind, Event, EventId, EventType, Generation, Reason,
    SubscriptionId, SubscriptionRecord, Target, TargetId, TenantId, Timestamp,
};

/// What belongs to one tenant. Ids grow with time, so the sets are in order of age.
#[derive(Default)]
pub(super) struct Tenant {
    pub(super) generation: Generation,
    /// The last change of each subscription, deleted ones included.
    pub(super) changes: BTreeMap<Generation, SubscriptionId>,
    pub(super) subscriptions: BTreeSet<SubscriptionId>,
    pub(super) events: BTreeSet<EventId>,
    pub(super) deliveries: BTreeSet<DeliveryId>,
    pub(super) attempts: BTreeMap<AttemptId, Arc<Attempt>>,
}

/// A subscription; a deleted one stays as a tombstone, for the changes to tell.
pub(super) struct SubscriptionRow {
    pub(super) record: SubscriptionRecord,
    pub(super) deleted: bool,
    pub(super) attempts: BTreeMap<AttemptId, Arc<Attempt>>,
}

impl SubscriptionRow {
    pub(super) fn new(record: SubscriptionRecord) -> Self {
        Self { record, deleted: false, attempts: BTreeMap::new() }
    }

    pub(super) fn takes_deliveries(&self, now: Timestamp) -> bool {
        let paused = self.record.paused_until.is_some_and(|until| until > now);
        !self.deleted && self.record.disabled.is_none() && !paused
    }

    pub(super) fn index_entry(&self) -> IndexEntry {
        let matches = !self.deleted && self.record.disabled.is_none();
        let patterns = if matches { self.record.settings.events.clone() } else { Vec::new() };
        IndexEntry { id: self.record.id, version: self.record.version, patterns }
    }
}

/// An event and the deliveries it has, sorted.
pub(super) struct EventRow {
    pub(super) event: Event,
    /// How many deliveries it was given when it was accepted.
    pub(super) given: u32,
    pub(super) deliveries: Vec<(TargetId, DeliveryId)>,
}

impl EventRow {
    pub(super) fn delivery_to(&self, target: TargetId) -> Option<DeliveryId> {
        let at = self.deliveries.partition_point(|(other, _)| *other < target);
        self.deliveries.get(at).filter(|(other, _)| *other == target).map(|(_, delivery)| *delivery)
    }
}

/// A delivery, narrow: what its event knows is not repeated.
pub(super) struct DeliveryRow {
    pub(super) tenant: TenantId,
    pub(super) event: EventId,
    pub(super) target: Target,
    pub(super) state: DeliveryState,
    pub(super) reason: Option<Reason>,
    pub(super) next_at: Timestamp,
    /// The token of the current lease, which may have run out.
    pub(super) lease: Option<LeaseToken>,
    pub(super) reopened: Option<(DeliveryState, Option<Reason>)>,
    pub(super) attempts: u32,
    pub(super) lost_leases: u32,
    pub(super) last_status_code: Option<u16>,
    pub(super) last_error: Option<ErrorKind>,
    pub(super) created_at: Timestamp,
    pub(super) last_attempt_at: Option<Timestamp>,
    pub(super) completed_at: Option<Timestamp>,
    /// Oldest first.
    pub(super) history: Vec<Arc<Attempt>>,
}

impl DeliveryRow {
    pub(super) fn new(tenant: TenantId, event: EventId, target: Target, created_at: Timestamp) -> Self {
        Self {
            tenant,
            event,
            target,
            state: DeliveryState::Pending,
            reason: None,
            next_at: created_at,
            lease: None,
            reopened: None,
            attempts: 0,
            lost_leases: 0,
            last_status_code: None,
            last_error: None,
            created_at,
            last_attempt_at: None,
            completed_at: None,
            history: Vec::new(),
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.state == DeliveryState::Pending
    }

    pub(super) fn is_leased_by(&self, token: LeaseToken) -> bool {
        self.is_pending() && self.lease == Some(token)
    }

    pub(super) fn delivery(&self, id: DeliveryId, event_type: Option<EventType>, disabled: bool) -> Delivery {
        Delivery {
            event_type,
            subscription_id: self.target.subscription(),
            state: self.state,
            reason: self.reason,
            next_at: self.next_at,
            leased: self.lease.is_some(),
            held: self.is_pending() && disabled,
            attempts: self.attempts,
            lost_leases: self.lost_leases,
            last_status_code: self.last_status_code,
            last_error: self.last_error,
            last_attempt_at: self.last_attempt_at,
            completed_at: self.completed_at,
            ..Delivery::new(id, self.tenant.clone(), self.event, self.created_at)
        }
    }
}
