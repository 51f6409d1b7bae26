//! Leases and outcomes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use webhook_core::store::{
    ClaimRequest, Claimed, DeliveryStore, Lease, NextStep, Outcome, Recorded, Release, TargetEffect,
};
use webhook_core::{
    DeliveryId, DeliveryState, DisabledReason, Generation, Reason, StoreError, SubscriptionId, TargetId, TenantId,
    Timestamp,
};

use crate::rows::{AttemptRow, DeliveryRow, SubscriptionRow};
use crate::tables::{Change, Tables};
use crate::{JournalStore, Transaction};

const MAX_LOST: u32 = 5;

#[async_trait]
impl DeliveryStore for JournalStore {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        self.write(|tx| {
            let due = due_by_target(tx.tables, request.now);
            let mut claimed = Claimed::default();
            // Whoever comes after the cursor is first; each target gives one row a round, its oldest.
            let after = |target: &&TargetId| request.cursor.is_some_and(|cursor| **target <= cursor);
            let order: Vec<TargetId> =
                due.keys().filter(|t| !after(t)).chain(due.keys().filter(after)).copied().collect();
            let rounds = due.values().map(Vec::len).max().unwrap_or(0);
            'rounds: for round in 0..rounds {
                for (served, target) in order.iter().enumerate() {
                    if claimed.leases.len() >= request.limit as usize {
                        let last = served.checked_sub(1).and_then(|last| order.get(last).copied());
                        claimed.cursor = if round == 0 { last.or(request.cursor) } else { None };
                        break 'rounds;
                    }
                    let row = due.get(target).and_then(|rows| rows.get(round));
                    if let Some(id) = row.filter(|_| round < request.room.get(*target) as usize) {
                        tx.lease(request, *id, &mut claimed);
                    }
                }
            }
            let open = tx.tables.deliveries.values().filter(|row| row.is_pending() && row.next_at > request.now);
            claimed.next_due = open.map(|row| row.next_at).min();
            claimed
        })
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        self.write(|tx| {
            let mut claimed = Claimed::default();
            for id in ids {
                let Some(row) = tx.tables.deliveries.get(id).filter(|row| is_due(tx.tables, row, request.now)) else {
                    continue;
                };
                let target = row.target_id();
                let given = claimed.leases.iter().filter(|lease| lease.target.id() == target).count();
                let full = claimed.leases.len() >= request.limit as usize;
                if !full && given < request.room.get(target) as usize {
                    tx.lease(request, *id, &mut claimed);
                }
            }
            claimed
        })
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        self.write(|tx| outcomes.iter().map(|outcome| tx.record(now, outcome)).collect())
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        self.write(|tx| {
            for release in releases {
                let row = tx.tables.deliveries.get(&release.delivery);
                if let Some(row) = row.filter(|row| row.token == Some(release.token.get())).cloned() {
                    tx.put(Change::Delivery(DeliveryRow { next_at: release.due, token: None, ..row }));
                }
            }
        })
    }
}

/// Pending, due, and nothing about the subscription speaks against it.
fn is_due(tables: &Tables, row: &DeliveryRow, now: Timestamp) -> bool {
    let takes = |row: &SubscriptionRow| row.disabled.is_none() && row.paused_until.is_none_or(|until| until <= now);
    let subscription = |id: SubscriptionId| tables.subscription(&row.tenant, id);
    row.is_pending() && row.next_at <= now && row.subscription().is_none_or(|id| subscription(id).is_some_and(takes))
}

fn due_by_target(tables: &Tables, now: Timestamp) -> BTreeMap<TargetId, Vec<DeliveryId>> {
    let mut due: Vec<_> = tables.deliveries.values().filter(|row| is_due(tables, row, now)).collect();
    due.sort_by_key(|row| (row.next_at, row.id));
    let mut by_target: BTreeMap<TargetId, Vec<DeliveryId>> = BTreeMap::new();
    for row in due {
        by_target.entry(row.target_id()).or_default().push(row.id);
    }
    by_target
}

impl Transaction<'_> {
    fn lease(&mut self, request: ClaimRequest<'_>, id: DeliveryId, claimed: &mut Claimed) {
        let Some(mut row) = self.tables.deliveries.get(&id).cloned() else { return };
        if row.token.is_some() {
            row.lost_leases += 1;
            claimed.lost += 1;
            if row.lost_leases >= MAX_LOST {
                claimed.exhausted += 1;
                let ended = row.ended(DeliveryState::Exhausted, Some(Reason::LostLeases), request.now);
                return self.put(Change::Delivery(ended));
            }
        }
        let subscription = row.subscription().and_then(|id| self.tables.subscription(&row.tenant, id));
        let mut lease = Lease::new(id, row.tenant.clone(), row.event, row.target(), request.token, request.lease_until);
        lease.version = subscription.map_or(Generation::ZERO, |row| row.version);
        lease.paused = subscription.is_some_and(|row| row.paused_until.is_some());
        lease.attempts = row.attempts;
        lease.reopened = row.reopened;
        lease.payload_bytes = self.tables.events.get(&row.event).map_or(0, |event| event.payload_bytes());
        claimed.leases.push(lease);
        (row.next_at, row.token) = (request.lease_until, Some(request.token.get()));
        self.put(Change::Delivery(row));
    }

    fn record(&mut self, now: Timestamp, outcome: &Outcome) -> Recorded {
        let row = self.tables.delivery(&outcome.tenant, outcome.delivery);
        let Some(mut row) = row.filter(|row| row.token == Some(outcome.token.get())).cloned() else {
            return Recorded::Fenced;
        };
        let subscription = row.subscription();
        if let Some(attempt) = &outcome.attempt {
            row.attempts = attempt.number;
            row.last_status_code = attempt.status_code;
            row.last_error = attempt.failure.as_ref().map(|failure| failure.kind);
            row.last_attempt_at = Some(attempt.started_at);
            self.put(Change::Attempt(AttemptRow::new(attempt)));
        }
        let row = match outcome.next {
            NextStep::RetryAt(due) => DeliveryRow { next_at: due, token: None, ..row },
            NextStep::End(state, reason) => row.ended(state, reason, now),
        };
        self.put(Change::Delivery(row));
        if let Some(subscription) = subscription {
            self.affect(&outcome.tenant, subscription, outcome.effect, now);
        }
        Recorded::Done
    }

    fn affect(&mut self, tenant: &TenantId, id: SubscriptionId, effect: TargetEffect, now: Timestamp) {
        let Some(mut row) = self.tables.subscription(tenant, id).cloned() else { return };
        match effect {
            TargetEffect::None => return,
            TargetEffect::Pause(until) => row.paused_until = row.paused_until.max(Some(until)),
            TargetEffect::Resume => row.paused_until = None,
            TargetEffect::DisableGone if row.disabled.is_some() => return,
            TargetEffect::DisableGone => {
                (row.disabled, row.paused_until, row.updated_at) = (Some(DisabledReason::Gone), None, now);
                self.change(row);
                return;
            }
        }
        self.put(Change::Subscription(row));
    }
}
