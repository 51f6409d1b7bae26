//! A small model of a store: what deliveries, subscriptions and keys must be like after any course of calls.

use std::collections::BTreeMap;

use super::scene::{LEASE, at};
use crate::store::{Backlog, Claimed, DeliveryFilter, LeaseToken, NextStep, Outcome, Recorded, TargetEffect};
use crate::{
    Delivery, DeliveryId, DeliveryState, DisabledReason, EventId, Generation, Reason, SubscriptionId,
    SubscriptionRecord, Timestamp,
};

/// How many lost leases end a delivery.
const MAX_LOST: u32 = 5;

/// A delivery as it must be.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) event: EventId,
    pub(super) subscription: SubscriptionId,
    pub(super) created_at: Timestamp,
    pub(super) state: DeliveryState,
    pub(super) reason: Option<Reason>,
    pub(super) next_at: Timestamp,
    pub(super) token: Option<LeaseToken>,
    pub(super) lost: u32,
    pub(super) attempts: u32,
    pub(super) reopened: Option<(DeliveryState, Option<Reason>)>,
    pub(super) ended_at: Option<Timestamp>,
}

/// The state that a store must be in.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) generation: Generation,
    pub(super) subscriptions: Vec<SubscriptionRecord>,
    pub(super) deleted: Vec<SubscriptionRecord>,
    pub(super) deliveries: BTreeMap<DeliveryId, Row>,
    /// When each event was accepted, and its deliveries.
    pub(super) events: BTreeMap<EventId, (Timestamp, Vec<DeliveryId>)>,
    /// What each key stands for: a fingerprint and an event, until a time.
    pub(super) keys: BTreeMap<u8, (u8, EventId, Timestamp)>,
}

impl Row {
    pub(super) fn new(event: EventId, subscription: SubscriptionId, created_at: Timestamp) -> Self {
        Self {
            event,
            subscription,
            created_at,
            state: DeliveryState::Pending,
            reason: None,
            next_at: created_at,
            token: None,
            lost: 0,
            attempts: 0,
            reopened: None,
            ended_at: None,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.state == DeliveryState::Pending
    }

    fn end(&mut self, state: DeliveryState, reason: Option<Reason>, now: Timestamp) {
        (self.state, self.reason, self.ended_at) = (state, reason, Some(now));
        (self.token, self.reopened) = (None, None);
    }

    /// Whether its lease has run out.
    pub(super) fn is_lost(&self, now: Timestamp) -> bool {
        self.is_pending() && self.token.is_some() && self.next_at <= now
    }

    /// The claim that finds it next gives it up.
    pub(super) fn is_at_its_last_lease(&self) -> bool {
        self.token.is_some() && self.lost + 1 >= MAX_LOST
    }

    /// Whether the store says the same of it.
    pub(super) fn agrees_with(&self, found: &Delivery, held: bool) -> bool {
        (found.state, found.reason, found.completed_at) == (self.state, self.reason, self.ended_at)
            && (found.attempts, found.lost_leases) == (self.attempts, self.lost)
            && (found.leased, found.held) == (self.token.is_some(), held && self.is_pending())
            && (found.event_id, found.subscription_id) == (self.event, Some(self.subscription))
            && found.created_at == self.created_at
            && (!self.is_pending() || found.next_at == self.next_at)
    }
}

impl Model {
    pub(super) fn subscription(&self, id: SubscriptionId) -> Option<&SubscriptionRecord> {
        self.subscriptions.iter().find(|record| record.id == id)
    }

    pub(super) fn subscription_mut(&mut self, id: SubscriptionId) -> Option<&mut SubscriptionRecord> {
        self.subscriptions.iter_mut().find(|record| record.id == id)
    }

    /// Something changed, and has this generation now.
    pub(super) fn changed(&mut self, generation: Generation) {
        assert!(generation > self.generation, "{generation:?} after {:?}", self.generation);
        self.generation = generation;
    }

    /// Whether a claim may lease it, or give it up.
    pub(super) fn is_claimable(&self, row: &Row, now: Timestamp) -> bool {
        let takes = |record: &SubscriptionRecord| {
            record.disabled.is_none() && record.paused_until.is_none_or(|until| until <= now)
        };
        row.is_pending() && row.next_at <= now && self.subscription(row.subscription).is_some_and(takes)
    }

    /// What must follow from a claim that gave these leases, and that found those leases lost without giving new ones.
    pub(super) fn claimed(&mut self, now: Timestamp, token: LeaseToken, claimed: &Claimed, found_lost: &[DeliveryId]) {
        let until = now + std::time::Duration::from_secs(LEASE);
        let (mut lost, mut given_up) = (0, 0);
        for lease in &claimed.leases {
            let id = lease.delivery;
            let row = self.deliveries.get(&id).unwrap_or_else(|| panic!("{id} was leased, and is not there"));
            assert!(self.is_claimable(row, now), "{id} was leased, and must not be: {row:?}");
            assert!(!row.is_at_its_last_lease(), "{id} was leased for the sixth time: {row:?}");
            let version = self.subscription(row.subscription).map(|record| record.version);
            assert_eq!((lease.token, lease.until), (token, until), "the lease of {id}");
            assert_eq!((lease.event, lease.target.subscription()), (row.event, Some(row.subscription)), "of {id}");
            assert_eq!((lease.attempts, lease.reopened), (row.attempts, row.reopened), "the lease of {id}");
            assert_eq!(Some(lease.version), version, "the version that the lease of {id} names");
            let Some(row) = self.deliveries.get_mut(&id) else { continue };
            let before = row.token.replace(token);
            row.lost += u32::from(before.is_some());
            lost += u32::from(before.is_some());
            row.next_at = until;
        }
        for id in found_lost {
            let Some(row) = self.deliveries.get_mut(id) else { continue };
            row.lost += 1;
            row.token = None;
            lost += 1;
            if row.lost >= MAX_LOST {
                row.end(DeliveryState::Exhausted, Some(Reason::LostLeases), now);
                given_up += 1;
            }
        }
        assert_eq!((claimed.lost, claimed.exhausted), (lost, given_up), "lost leases, and given up for them");
    }

    /// What becomes of an outcome.
    /// With the tenant's generation as it is after that.
    pub(super) fn record(&mut self, now: Timestamp, outcome: &Outcome, generation: Generation) -> Recorded {
        let row = self.deliveries.get_mut(&outcome.delivery);
        let Some(row) = row.filter(|row| row.is_pending() && row.token == Some(outcome.token)) else {
            return Recorded::Fenced;
        };
        row.token = None;
        row.attempts = outcome.attempt.as_ref().map_or(row.attempts, |attempt| attempt.number);
        match outcome.next {
            NextStep::RetryAt(due) => row.next_at = due,
            NextStep::End(state, reason) => row.end(state, reason, now),
        }
        let subscription = row.subscription;
        let Some(record) = self.subscription_mut(subscription) else { return Recorded::Done };
        match outcome.effect {
            TargetEffect::None => {}
            TargetEffect::Pause(until) => record.paused_until = record.paused_until.max(Some(until)),
            TargetEffect::Resume => record.paused_until = None,
            TargetEffect::DisableGone if record.disabled.is_none() => {
                (record.disabled, record.paused_until) = (Some(DisabledReason::Gone), None);
                record.version = generation;
                self.changed(generation);
            }
            TargetEffect::DisableGone => {}
        }
        Recorded::Done
    }

    pub(super) fn release(&mut self, id: DeliveryId, token: LeaseToken, due: Timestamp) {
        if let Some(row) = self.deliveries.get_mut(&id).filter(|row| row.token == Some(token)) {
            (row.token, row.next_at) = (None, due);
        }
    }

    /// Opens a delivery again, or makes it due; whether that may be while its subscription is there.
    pub(super) fn retry(&mut self, id: DeliveryId, now: Timestamp) -> bool {
        let Some(row) = self.deliveries.get_mut(&id) else { return false };
        if row.is_pending() {
            if row.token.is_some() && row.next_at > now {
                return false;
            }
            row.next_at = row.next_at.min(now);
        } else {
            row.reopened = Some((row.state, row.reason));
            (row.state, row.reason, row.ended_at) = (DeliveryState::Pending, None, None);
            (row.next_at, row.lost) = (now, 0);
        }
        let subscription = row.subscription;
        if let Some(record) = self.subscription_mut(subscription) {
            record.paused_until = None;
        }
        true
    }

    pub(super) fn cancel(&mut self, id: DeliveryId, reason: Reason, now: Timestamp) -> bool {
        let Some(row) = self.deliveries.get_mut(&id).filter(|row| row.is_pending()) else { return false };
        row.end(DeliveryState::Cancelled, Some(reason), now);
        true
    }

    /// Cancels what deleted subscriptions left behind; how many there were.
    pub(super) fn cancel_orphans(&mut self, now: Timestamp) -> u64 {
        let orphaned = |(id, row): (&DeliveryId, &Row)| {
            (row.is_pending() && self.subscription(row.subscription).is_none()).then_some(*id)
        };
        let orphans: Vec<_> = self.deliveries.iter().filter_map(orphaned).collect();
        orphans.iter().filter(|id| self.cancel(**id, Reason::SubscriptionDeleted, now)).count() as u64
    }

    /// How many deliveries are open, and how many of those are due, from when on.
    pub(super) fn backlog(&self, now: Timestamp) -> Backlog {
        let open = self.deliveries.values().filter(|row| row.is_pending());
        let due = open.clone().filter(|row| row.token.is_none() && row.next_at <= now);
        Backlog {
            pending: open.count() as u64,
            due: due.clone().count() as u64,
            oldest_due: due.map(|row| row.next_at).min(),
        }
    }

    /// What a filter finds, newest first.
    pub(super) fn find(&self, filter: &DeliveryFilter) -> Vec<DeliveryId> {
        let found = self.deliveries.iter().rev().filter(|(_, row)| {
            filter.state.is_none_or(|state| row.state == state)
                && filter.subscription.is_none_or(|subscription| row.subscription == subscription)
                && filter.event.is_none_or(|event| row.event == event)
                && filter.since.is_none_or(|since| row.created_at >= since)
        });
        found.map(|(id, _)| *id).collect()
    }

    /// An event's delivery to a subscription.
    pub(super) fn delivery_to(
        &self,
        event: EventId,
        subscription: SubscriptionId,
    ) -> Option<(DeliveryId, DeliveryState)> {
        let (_, deliveries) = self.events.get(&event)?;
        let mut rows = deliveries.iter().filter_map(|id| Some((*id, self.deliveries.get(id)?)));
        rows.find(|(_, row)| row.subscription == subscription).map(|(id, row)| (id, row.state))
    }

    /// Removes the events that ended before a time; how many there were.
    pub(super) fn prune(&mut self, ended_before: Timestamp) -> u64 {
        let ended = |created: Timestamp, deliveries: &[DeliveryId]| {
            deliveries.iter().try_fold(created, |last, id| Some(last.max(self.deliveries.get(id)?.ended_at?)))
        };
        let old = |(id, (created, deliveries)): (&EventId, &(Timestamp, Vec<DeliveryId>))| {
            ended(*created, deliveries).is_some_and(|ended| ended < ended_before).then_some(*id)
        };
        let old: Vec<_> = self.events.iter().filter_map(old).collect();
        for id in &old {
            for delivery in self.events.remove(id).map(|(_, deliveries)| deliveries).unwrap_or_default() {
                self.deliveries.remove(&delivery);
            }
        }
        old.len() as u64
    }
}

/// The time after so many seconds of a course.
pub(super) fn time(seconds: u64) -> Timestamp {
    at(seconds)
}
