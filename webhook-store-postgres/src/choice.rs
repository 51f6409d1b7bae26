//! Choosing what a claim leases, among what it looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;
use webhook_core::store::{ClaimRequest, Lease};
use webhook_core::{DeliveryId, Generation, SubscriptionId, Target, TargetId, Timestamp};

use crate::error::Fault;
use crate::fan_out::{self, FanOut, Taken};
use crate::rows;
use crate::session::Conn;

/// Whether the subscription `s` of a delivery `d` takes deliveries at `$1`.
macro_rules! takes_deliveries {
    () => {
        "(s.id IS NOT NULL AND s.deleted_at IS NULL AND s.disabled_reason IS NULL
          AND (s.paused_until IS NULL OR s.paused_until <= $1))"
    };
}

pub(crate) use takes_deliveries;

/// What a lease needs to know of subscriptions.
const TERMS: &str = concat!(
    "SELECT s.id, s.version, s.paused_until IS NOT NULL AS paused, ",
    takes_deliveries!(),
    " AS fit FROM webhook.subscription AS s WHERE s.id = ANY ($2)"
);

/// A due delivery.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) lease: Lease,
    pub(crate) due: Timestamp,
    pub(crate) fit: bool,
    /// The row it shares with others, if it does.
    pub(crate) fan_out: Option<Uuid>,
}

/// The targets and lines that a walk came to, in its order, with their oldest due deliveries.
pub(crate) struct Walk {
    pub(crate) stops: BTreeMap<TargetId, Vec<Candidate>>,
    /// Where it stopped; none when it came to the end.
    pub(crate) stopped: Option<TargetId>,
}

/// A shared row that a claim looked at.
struct Shared {
    row: FanOut,
    /// Which of its deliveries are fit.
    fit: u64,
    /// Which of them stay whatever happens.
    keep: u64,
}

/// What is leased.
pub(crate) struct Choice<'a> {
    pub(crate) ask: &'a ClaimRequest<'a>,
    seen: HashSet<DeliveryId>,
    given: HashMap<TargetId, u32>,
    pub(crate) leased: Vec<Candidate>,
    fan_outs: BTreeMap<Uuid, Shared>,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(ask: &'a ClaimRequest<'a>) -> Self {
        let (seen, given) = (HashSet::new(), HashMap::new());
        Self { ask, seen, given, leased: Vec::new(), fan_outs: BTreeMap::new() }
    }

    /// Looks at rows that deliveries share; the deliveries, but for those seen before.
    pub(crate) async fn share(&mut self, conn: &mut Conn<'_>, found: &[PgRow]) -> Result<Vec<Candidate>, Fault> {
        let found = rows::all(found, FanOut::decode)?;
        let new: Vec<_> = found.into_iter().filter(|row| !self.fan_outs.contains_key(&row.id)).collect();
        let targets: BTreeSet<Uuid> = new.iter().flat_map(|row| row.members().map(|(_, target)| target)).collect();
        let mut terms: HashMap<Uuid, (Generation, bool, bool)> = HashMap::with_capacity(targets.len());
        if !targets.is_empty() {
            let query = sqlx::query(TERMS).bind(self.ask.now.as_millis()).bind(targets.into_iter().collect::<Vec<_>>());
            for row in &query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await? {
                let of = (Generation::new(row.try_get("version")?), row.try_get("paused")?, row.try_get("fit")?);
                terms.insert(rows::id(row, "id")?, of);
            }
        }
        let mut candidates = Vec::new();
        for row in new {
            let mut mask = 0;
            for (delivery, target) in row.members() {
                let (version, paused, fit) = terms.get(&target).copied().unwrap_or((Generation::ZERO, false, false));
                let target = Target::Subscription(SubscriptionId::from_uuid(target));
                let (token, until) = (self.ask.token, self.ask.lease_until);
                let mut lease = Lease::new(delivery, row.tenant.clone(), row.event, target, token, until);
                (lease.version, lease.paused, lease.payload_bytes) = (version, paused, row.payload_bytes);
                mask |= u64::from(fit) << fan_out::bit(delivery.as_uuid());
                candidates.push(Candidate { lease, due: row.due, fit, fan_out: Some(row.id) });
            }
            self.fan_outs.insert(row.id, Shared { row, fit: mask, keep: 0 });
        }
        sort(&mut candidates);
        Ok(candidates)
    }

    /// What is not named stays where it is, fit or not.
    pub(crate) fn only(&mut self, named: &HashSet<DeliveryId>) {
        for shared in self.fan_outs.values_mut() {
            for (delivery, _) in shared.row.members().filter(|(delivery, _)| !named.contains(delivery)) {
                shared.keep |= 1 << fan_out::bit(delivery.as_uuid());
            }
        }
    }

    /// Where a walk finds a delivery: at its line, or at its target.
    pub(crate) fn stop(&self, candidate: &Candidate) -> TargetId {
        let line = candidate.fan_out.and_then(|id| self.fan_outs.get(&id)).map(|shared| shared.row.line);
        line.unwrap_or(candidate.lease.target.id())
    }

    /// The walk over deliveries that are all that is due.
    pub(crate) fn within(&self, all: &[Candidate]) -> Walk {
        let mut stops: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
        for candidate in all.iter().filter(|candidate| candidate.fit) {
            let stop = self.stop(candidate);
            if self.ask.cursor.is_none_or(|cursor| stop > cursor) {
                stops.entry(stop).or_default().push(candidate.clone());
            }
        }
        Walk { stops, stopped: None }
    }

    /// Of the leases that are asked for, so many go to what the walk finds.
    pub(crate) fn walks_share(&self) -> u32 {
        self.ask.limit.div_ceil(2)
    }

    /// So many of these could be leased if there were no others, and no limit.
    pub(crate) fn could_take(&self, candidates: &[Candidate]) -> u32 {
        let mut taken = HashMap::<TargetId, u32>::new();
        for candidate in candidates.iter().filter(|candidate| candidate.fit) {
            let target = candidate.lease.target.id();
            let of_target = taken.entry(target).or_default();
            *of_target = (*of_target + 1).min(self.room(target));
        }
        taken.values().sum()
    }

    /// Takes from each stop of the walk in turn, up to half of the limit; tells where the next walk begins.
    ///
    /// A target may be in several lines, and have rows of its own: whatever brings its turn, its oldest goes first.
    pub(crate) fn take_walk(&mut self, walk: &Walk, oldest: &[Candidate]) -> Option<TargetId> {
        let share = self.walks_share() as usize;
        let each = (share / walk.stops.len().max(1)).max(1);
        let mut queues: HashMap<TargetId, VecDeque<&Candidate>> = HashMap::new();
        if !self.fan_outs.is_empty() {
            let mut all: Vec<_> = oldest.iter().chain(walk.stops.values().flatten()).collect();
            all.sort_by_key(|candidate| (candidate.due, candidate.lease.delivery));
            for candidate in all.into_iter().filter(|candidate| candidate.fit) {
                queues.entry(candidate.lease.target.id()).or_default().push_back(candidate);
            }
        }
        let mut last = self.ask.cursor;
        for (stop, candidates) in &walk.stops {
            if self.leased.len() >= share {
                return last;
            }
            // A row that is shared is not taken apart for the sake of evenness.
            let first = candidates.first().and_then(|candidate| candidate.fan_out);
            let together = candidates.iter().take_while(|candidate| first.is_some() && candidate.fan_out == first);
            let enough = (self.leased.len() + each.max(together.count())).min(share);
            for candidate in candidates {
                if self.leased.len() < enough {
                    let queue = queues.get_mut(&candidate.lease.target.id());
                    let unseen = queue.and_then(|queue| {
                        while queue.front().is_some_and(|first| self.seen.contains(&first.lease.delivery)) {
                            queue.pop_front();
                        }
                        queue.front().copied()
                    });
                    self.offer(unseen.unwrap_or(candidate));
                }
            }
            last = Some(*stop);
        }
        walk.stopped
    }

    fn room(&self, target: TargetId) -> u32 {
        self.ask.room.get(target).saturating_sub(self.given.get(&target).copied().unwrap_or(0))
    }

    pub(crate) fn offer(&mut self, candidate: &Candidate) {
        let (id, target) = (candidate.lease.delivery, candidate.lease.target.id());
        if !candidate.fit || self.seen.contains(&id) {
            return;
        }
        if self.leased.len() < self.ask.limit as usize && self.room(target) > 0 {
            *self.given.entry(target).or_default() += 1;
            self.seen.insert(id);
            self.leased.push(candidate.clone());
        }
    }

    pub(crate) async fn lease(mut self, conn: &mut Conn<'_>) -> Result<Vec<Lease>, Fault> {
        let (mut alone, mut shared) = (Vec::new(), BTreeMap::<Uuid, u64>::new());
        for candidate in &self.leased {
            let id = candidate.lease.delivery.as_uuid();
            match candidate.fan_out {
                Some(row) => *shared.entry(row).or_default() |= 1 << fan_out::bit(id),
                None => alone.push(id),
            }
        }
        if !alone.is_empty() {
            sqlx::query("UPDATE webhook.delivery SET next_at = $2, token = $3, leased = true WHERE id = ANY ($1)")
                .bind(alone)
                .bind(self.ask.lease_until.as_millis())
                .bind(self.ask.token.get())
                .persistent(conn.persistent)
                .execute(&mut *conn.inner)
                .await?;
        }
        let mut taken = Taken::default();
        for (id, leased) in shared {
            if let Some(of) = self.fan_outs.get(&id) {
                taken.push(&of.row, leased, self.spilled(of, leased));
            }
        }
        taken.write(conn, self.ask.token, self.ask.lease_until).await?;
        sort(&mut self.leased);
        Ok(self.leased.into_iter().map(|candidate| candidate.lease).collect())
    }

    /// Those of a row that have to wait for their own sake.
    fn spilled(&self, of: &Shared, leased: u64) -> u64 {
        let mut spilled = 0;
        for (delivery, target) in of.row.members() {
            let bit = 1 << fan_out::bit(delivery.as_uuid());
            let waits = of.fit & bit == 0 || self.room(TargetId::from_uuid(target)) == 0;
            if leased & bit == 0 && of.keep & bit == 0 && waits {
                spilled |= bit;
            }
        }
        spilled
    }
}

/// Oldest due first.
pub(crate) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| (candidate.due, candidate.lease.delivery));
}
