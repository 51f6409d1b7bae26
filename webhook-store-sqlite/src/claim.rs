//! Leasing due deliveries: fairly, and at a cost that does not grow with what waits.
//!
//! A claim looks at a bounded number of the oldest due deliveries. When that is not all of them, one target may own all
//! of what it saw; then it also walks from the cursor over a bounded number of targets, jumping from one to the next
//! through the index, and takes the oldest due deliveries of each. Half of the leases go to the walk, so that it gets
//! on whatever else is due.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use sqlx::SqliteConnection;
use uuid::Uuid;
use webhook_core::store::{ClaimRequest, Claimed, Lease, LeaseToken, Room};
use webhook_core::{
    DeliveryId, DeliveryState, EventId, Generation, Reason, Sealed, SubscriptionId, Target, TargetId, TenantId,
    Timestamp,
};

use crate::error::Fault;
use crate::{bulk, rows};

/// So many more deliveries than leases are wanted are looked at, because some will not be fit.
const LOOK_FURTHER: i64 = 64;
/// A walk visits at most so many targets.
const WALK: i64 = 256;
/// A delivery ends when it has lost so many leases.
const LOST_LEASES: u32 = 5;

/// A [`ClaimRequest`] that owns what it holds.
pub(crate) struct Ask {
    now: Timestamp,
    lease_until: Timestamp,
    token: LeaseToken,
    limit: u32,
    room: Room,
    cursor: Option<TargetId>,
}

impl From<ClaimRequest<'_>> for Ask {
    fn from(request: ClaimRequest<'_>) -> Self {
        let ClaimRequest { now, lease_until, token, limit, room, cursor, .. } = request;
        Self { now, lease_until, token, limit, room: room.clone(), cursor }
    }
}

/// Whether the subscription `s` of a delivery `d` takes deliveries at `?1`.
macro_rules! takes_deliveries {
    () => {
        "(s.id IS NOT NULL AND s.deleted_at IS NULL AND s.disabled_reason IS NULL
          AND (s.paused_until IS NULL OR s.paused_until <= ?1))"
    };
}

/// The due ones of the deliveries that `$ids` yields, as a JSON array of [`Found`]: one row costs the driver as much as
/// the deliveries it holds.
macro_rules! candidates {
    ($ids:literal) => {
        concat!(
            "SELECT json_group_array(json_array(
               hex(d.id), d.tenant, hex(d.event_id), hex(d.target_id), d.subscription_id IS NOT NULL, hex(d.target),
               d.next_at, d.leased, d.attempts, d.lost, d.reopened_state, d.reopened_reason, d.payload_bytes,
               coalesce(s.version, 0), s.paused_until IS NOT NULL, d.subscription_id IS NULL OR ",
            takes_deliveries!(),
            ")) FROM (",
            $ids,
            ") AS c CROSS JOIN webhook_delivery AS d ON d.id = c.id
             LEFT JOIN webhook_subscription AS s ON s.id = d.subscription_id
             WHERE d.state = 0 AND d.next_at <= ?1"
        )
    };
}

const OLDEST: &str = candidates!(
    "SELECT id FROM webhook_delivery INDEXED BY webhook_delivery_due
     WHERE state = 0 AND next_at <= ?1 ORDER BY next_at, id LIMIT ?2"
);

const NAMED: &str = candidates!("SELECT DISTINCT unhex(value) AS id FROM json_each(?2)");

const OLDEST_OF_TARGETS: &str = candidates!(
    "SELECT o.id FROM json_each(?2) AS j CROSS JOIN webhook_delivery AS o ON o.id IN (
       SELECT x.id FROM webhook_delivery AS x INDEXED BY webhook_delivery_target
       WHERE x.state = 0 AND x.target_id = unhex(j.value) AND x.next_at <= ?1
       ORDER BY x.next_at, x.id LIMIT ?3)"
);

const WALK_ON: &str = concat!(
    "WITH RECURSIVE walk (target_id) AS (
       SELECT (SELECT x.target_id FROM webhook_delivery AS x INDEXED BY webhook_delivery_target
               WHERE x.state = 0 AND x.target_id > ?2 ORDER BY x.target_id LIMIT 1)
       UNION ALL
       SELECT (SELECT x.target_id FROM webhook_delivery AS x INDEXED BY webhook_delivery_target
               WHERE x.state = 0 AND x.target_id > walk.target_id ORDER BY x.target_id LIMIT 1)
       FROM walk WHERE walk.target_id IS NOT NULL
       LIMIT ?3
     )
     SELECT json_group_array(json_array(
       hex(walk.target_id),
       (s.id IS NULL OR ",
    takes_deliveries!(),
    ") AND (SELECT x.next_at FROM webhook_delivery AS x INDEXED BY webhook_delivery_target
               WHERE x.state = 0 AND x.target_id = walk.target_id ORDER BY x.next_at LIMIT 1) <= ?1))
     FROM walk LEFT JOIN webhook_subscription AS s ON s.id = walk.target_id
     WHERE walk.target_id IS NOT NULL"
);

/// A row of `candidates!`, in its order.
#[derive(Deserialize)]
struct Found {
    id: DeliveryId,
    tenant: TenantId,
    event: EventId,
    target: TargetId,
    to_subscription: u8,
    sealed: String,
    due: i64,
    leased: u8,
    attempts: u32,
    lost: u32,
    reopened_state: Option<i64>,
    reopened_reason: Option<i64>,
    payload_bytes: u32,
    version: Generation,
    paused: u8,
    fit: u8,
}

/// A due delivery.
#[derive(Clone)]
struct Candidate {
    lease: Lease,
    due: Timestamp,
    leased: bool,
    lost: u32,
    fit: bool,
}

/// The targets that a walk came to, in its order, with their oldest due deliveries.
struct Walk {
    targets: BTreeMap<TargetId, Vec<Candidate>>,
    /// Where it stopped; none when it came to the end.
    stopped: Option<TargetId>,
}

pub(crate) async fn claim(conn: &mut SqliteConnection, ask: &Ask) -> Result<Claimed, Fault> {
    let look = i64::from(ask.limit) + LOOK_FURTHER;
    let query = sqlx::query_scalar(OLDEST).bind(ask.now.as_millis()).bind(look);
    let oldest = candidates(ask, query.fetch_one(&mut *conn).await?)?;
    let walk = if (oldest.len() as i64) < look { within(ask, &oldest) } else { walk(conn, ask).await? };
    let mut choice = Choice::new(ask);
    let cursor = choice.take_walk(&walk);
    oldest.iter().for_each(|candidate| choice.offer(candidate));
    walk.targets.values().flatten().for_each(|candidate| choice.offer(candidate));
    choice.lease(conn, cursor).await
}

pub(crate) async fn claim_ids(conn: &mut SqliteConnection, ask: &Ask, ids: &[DeliveryId]) -> Result<Claimed, Fault> {
    let ids = bulk::hex_list(ids.iter().map(|id| id.as_uuid()))?;
    let query = sqlx::query_scalar(NAMED).bind(ask.now.as_millis()).bind(ids);
    let named = candidates(ask, query.fetch_one(&mut *conn).await?)?;
    let mut choice = Choice::new(ask);
    named.iter().for_each(|candidate| choice.offer(candidate));
    choice.lease(conn, None).await
}

/// The walk over deliveries that are all that is due.
fn within(ask: &Ask, all: &[Candidate]) -> Walk {
    let mut targets: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    for candidate in all.iter().filter(|candidate| candidate.fit) {
        let target = candidate.lease.target.id();
        if ask.cursor.is_none_or(|cursor| target > cursor) {
            targets.entry(target).or_default().push(candidate.clone());
        }
    }
    Walk { targets, stopped: None }
}

async fn walk(conn: &mut SqliteConnection, ask: &Ask) -> Result<Walk, Fault> {
    let after = ask.cursor.map_or(Vec::new(), |cursor| cursor.as_uuid().as_bytes().to_vec());
    let visited: String =
        sqlx::query_scalar(WALK_ON).bind(ask.now.as_millis()).bind(after).bind(WALK).fetch_one(&mut *conn).await?;
    let mut visited: Vec<(TargetId, u8)> = serde_json::from_str(&visited)?;
    visited.sort_unstable();
    let mut stopped = visited.last().map(|(target, _)| *target).filter(|_| visited.len() as i64 >= WALK);
    let due = |(target, due): (TargetId, u8)| (due != 0 && ask.room.get(target) > 0).then_some(target);
    let mut due: Vec<_> = visited.into_iter().filter_map(due).collect();
    if due.len() > ask.limit as usize {
        due.truncate(ask.limit as usize);
        stopped = due.last().copied();
    }
    let each = (ask.limit as usize / due.len().max(1)).max(1);
    let mut targets: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    if !due.is_empty() {
        let found = sqlx::query_scalar(OLDEST_OF_TARGETS)
            .bind(ask.now.as_millis())
            .bind(bulk::hex_list(due.iter().map(|target| target.as_uuid()))?)
            .bind(i64::try_from(each).unwrap_or(i64::MAX))
            .fetch_one(conn)
            .await?;
        for candidate in candidates(ask, found)? {
            targets.entry(candidate.lease.target.id()).or_default().push(candidate);
        }
    }
    Ok(Walk { targets, stopped })
}

/// What is leased, and what ends because it lost too many leases.
struct Choice<'a> {
    ask: &'a Ask,
    seen: HashSet<DeliveryId>,
    given: HashMap<TargetId, u32>,
    leased: Vec<Candidate>,
    ended: Vec<Uuid>,
}

impl<'a> Choice<'a> {
    fn new(ask: &'a Ask) -> Self {
        Self { ask, seen: HashSet::new(), given: HashMap::new(), leased: Vec::new(), ended: Vec::new() }
    }

    /// Takes from each target of the walk in turn, up to half of the limit; tells where the next walk begins.
    fn take_walk(&mut self, walk: &Walk) -> Option<TargetId> {
        let share = self.ask.limit.div_ceil(2) as usize;
        let each = (share / walk.targets.len().max(1)).max(1);
        let mut last = self.ask.cursor;
        for (target, candidates) in &walk.targets {
            if self.leased.len() >= share {
                return last;
            }
            let enough = (self.leased.len() + each).min(share);
            for candidate in candidates {
                if self.leased.len() < enough {
                    self.offer(candidate);
                }
            }
            last = Some(*target);
        }
        walk.stopped
    }

    fn offer(&mut self, candidate: &Candidate) {
        let (id, target) = (candidate.lease.delivery, candidate.lease.target.id());
        if !candidate.fit || self.seen.contains(&id) {
            return;
        }
        if candidate.leased && candidate.lost + 1 >= LOST_LEASES {
            self.seen.insert(id);
            self.ended.push(id.as_uuid());
            return;
        }
        let given = self.given.entry(target).or_default();
        if self.leased.len() < self.ask.limit as usize && *given < self.ask.room.get(target) {
            *given += 1;
            self.seen.insert(id);
            self.leased.push(candidate.clone());
        }
    }

    async fn lease(mut self, conn: &mut SqliteConnection, cursor: Option<TargetId>) -> Result<Claimed, Fault> {
        if !self.leased.is_empty() {
            sqlx::query(
                "UPDATE webhook_delivery SET next_at = ?2, token = ?3, lost = lost + leased, leased = 1
                 WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
            )
            .bind(bulk::hex_list(self.leased.iter().map(|candidate| candidate.lease.delivery.as_uuid()))?)
            .bind(self.ask.lease_until.as_millis())
            .bind(self.ask.token.get())
            .execute(&mut *conn)
            .await?;
        }
        let exhausted = count(self.ended.len());
        if exhausted > 0 {
            sqlx::query(
                "UPDATE webhook_delivery SET state = ?3, reason = ?4, lost = lost + 1, leased = 0, next_at = ?2,
                   completed_at = ?2, reopened_state = NULL, reopened_reason = NULL
                 WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
            )
            .bind(bulk::hex_list(std::mem::take(&mut self.ended))?)
            .bind(self.ask.now.as_millis())
            .bind(DeliveryState::Exhausted.code())
            .bind(Reason::LostLeases.code())
            .execute(&mut *conn)
            .await?;
        }
        let next_due: Option<i64> = sqlx::query_scalar(
            "SELECT next_at FROM webhook_delivery INDEXED BY webhook_delivery_due
             WHERE state = 0 AND next_at > ?1 ORDER BY next_at LIMIT 1",
        )
        .bind(self.ask.now.as_millis())
        .fetch_optional(conn)
        .await?;
        self.leased.sort_by_key(|candidate| (candidate.due, candidate.lease.delivery));
        let lost = exhausted + count(self.leased.iter().filter(|candidate| candidate.leased).count());
        let leases = self.leased.into_iter().map(|candidate| candidate.lease).collect();
        Ok(Claimed { leases, cursor, next_due: next_due.map(Timestamp::from_millis), lost, exhausted })
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What `candidates!` gave, oldest due first.
fn candidates(ask: &Ask, found: String) -> Result<Vec<Candidate>, Fault> {
    let found: Vec<Found> = serde_json::from_str(&found)?;
    let mut candidates = found.into_iter().map(|found| candidate(ask, found)).collect::<Result<Vec<_>, _>>()?;
    candidates.sort_by_key(|candidate| (candidate.due, candidate.lease.delivery));
    Ok(candidates)
}

fn candidate(ask: &Ask, found: Found) -> Result<Candidate, Fault> {
    let target = if found.to_subscription != 0 {
        Target::Subscription(SubscriptionId::from_uuid(found.target.as_uuid()))
    } else {
        let sealed = hex::decode(&found.sealed).map_err(|error| Fault::corrupt(error.to_string()))?;
        Target::AdHoc { key: found.target, sealed: Sealed::from_bytes(sealed) }
    };
    let mut lease = Lease::new(found.id, found.tenant, found.event, target, ask.token, ask.lease_until);
    lease.version = found.version;
    lease.attempts = found.attempts;
    lease.reopened = match found.reopened_state {
        Some(state) => Some((rows::state(state)?, rows::reason(found.reopened_reason)?)),
        None => None,
    };
    lease.payload_bytes = found.payload_bytes;
    lease.paused = found.paused != 0;
    Ok(Candidate {
        lease,
        due: Timestamp::from_millis(found.due),
        leased: found.leased != 0,
        lost: found.lost,
        fit: found.fit != 0,
    })
}
