//! How a claim chooses.

use std::collections::HashMap;

use super::state::State;
use crate::store::{ClaimRequest, Claimed, Lease};
use crate::{DeliveryId, DeliveryState, Generation, Reason, Target, TargetId};

/// How many targets one call looks at: what bounds its cost when many wait for later.
const WALK: usize = 256;

/// How many leases may be lost before a delivery is given up.
const MAX_LOST: u32 = 5;

/// A claim in the making.
pub(super) struct Claim<'a> {
    state: &'a mut State,
    request: ClaimRequest<'a>,
    given: HashMap<TargetId, u32>,
    claimed: Claimed,
}

impl<'a> Claim<'a> {
    pub(super) fn new(state: &'a mut State, request: ClaimRequest<'a>) -> Self {
        Self { state, request, given: HashMap::new(), claimed: Claimed::default() }
    }

    /// Leases what is due.
    ///
    /// Half of the leases go to the oldest rows of all, so that a few due rows among 100,000 targets are found at
    /// once. The rest goes to the targets after the cursor, so that one that owns the backlog makes nobody wait. What
    /// is left after that goes to whoever has more.
    pub(super) fn due(mut self) -> Claimed {
        let limit = self.request.limit as usize;
        self.oldest(limit / 2);
        let visited = self.walk(limit.div_ceil(8));
        self.oldest(limit);
        for target in visited {
            self.fill(target, limit);
        }
        self.claimed.next_due = self.state.open.next_after(self.request.now);
        self.claimed
    }

    /// Leases those of `ids` that are due.
    pub(super) fn ids(mut self, ids: &[DeliveryId]) -> Claimed {
        for id in ids {
            if self.is_full() {
                break;
            }
            self.take(*id);
        }
        self.claimed
    }

    fn is_full(&self) -> bool {
        self.claimed.leases.len() >= self.request.limit as usize
    }

    fn room(&self, target: TargetId) -> u32 {
        self.request.room.get(target).saturating_sub(self.given.get(&target).copied().unwrap_or(0))
    }

    /// Leases from the oldest rows until there are `limit` leases.
    fn oldest(&mut self, limit: usize) {
        let look = limit.saturating_mul(2);
        let oldest: Vec<_> = self.state.open.due(self.request.now).take(look).collect();
        for (_, id, slot) in oldest {
            if self.claimed.leases.len() >= limit {
                break;
            }
            if self.room(slot.target) > 0 {
                self.take(id);
            }
        }
    }

    /// Leases up to `share` rows of each target after the cursor; the targets that got some.
    fn walk(&mut self, share: usize) -> Vec<TargetId> {
        let ahead: Vec<_> = self.state.open.targets(self.request.cursor, self.request.now).take(WALK + 1).collect();
        let mut visited = Vec::new();
        self.claimed.cursor = self.request.cursor;
        for (target, due) in ahead.iter().take(WALK) {
            if self.is_full() {
                return visited;
            }
            if *due && self.fill(*target, share) > 0 {
                visited.push(*target);
            }
            self.claimed.cursor = Some(*target);
        }
        if ahead.len() <= WALK {
            self.claimed.cursor = None;
        }
        visited
    }

    /// Leases up to `share` rows of a target; how many.
    fn fill(&mut self, target: TargetId, share: usize) -> usize {
        let before = self.claimed.leases.len();
        let left = (self.request.limit as usize).saturating_sub(before);
        let share = share.min(left).min(self.room(target) as usize);
        let rows: Vec<_> = self.state.open.due_of(target, self.request.now).take(share).collect();
        for id in rows {
            self.take(id);
        }
        self.claimed.leases.len() - before
    }

    /// Leases the delivery if it may be.
    fn take(&mut self, id: DeliveryId) {
        let request = self.request;
        let Some(row) = self.state.deliveries.get_mut(&id) else { return };
        let target = row.target.id();
        let used = self.given.get(&target).copied().unwrap_or(0);
        if !row.is_pending() || row.next_at > request.now || used >= request.room.get(target) {
            return;
        }
        let (mut version, mut paused) = (Generation::ZERO, false);
        if let Target::Subscription(subscription) = row.target {
            let Some(subscription) = self.state.subscriptions.get(&subscription) else { return };
            if !subscription.takes_deliveries(request.now) {
                return;
            }
            version = subscription.record.version;
            paused = subscription.record.paused_until.is_some();
        }
        if row.lease.is_some() {
            row.lost_leases += 1;
            self.claimed.lost += 1;
            if row.lost_leases >= MAX_LOST {
                self.claimed.exhausted += 1;
                self.state.end(id, DeliveryState::Exhausted, Some(Reason::LostLeases), request.now);
                return;
            }
        }
        let payload = self.state.events.get(&row.event).map_or(0, |row| row.event.payload.len());
        let mut lease =
            Lease::new(id, row.tenant.clone(), row.event, row.target.clone(), request.token, request.lease_until);
        lease.version = version;
        lease.attempts = row.attempts;
        lease.reopened = row.reopened;
        lease.payload_bytes = u32::try_from(payload).unwrap_or(u32::MAX);
        lease.paused = paused;
        self.claimed.leases.push(lease);
        *self.given.entry(target).or_default() += 1;
        self.state.schedule(id, request.lease_until, Some(request.token));
    }
}
