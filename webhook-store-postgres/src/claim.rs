//! Leasing due deliveries: fairly, and at a cost that does not grow with what waits.
//!
//! A claim looks at a bounded number of the oldest due deliveries. When that is not all of them, one target may own all
//! of what it saw; then it also walks from the cursor over a bounded number of targets, jumping from one to the next
//! through the index, and takes the oldest due deliveries of each. Half of the leases go to the walk, so that it gets
//! on whatever else is due.
//!
//! What it looks at it locks, and what others have locked it skips, so that many processes claim side by side.
//!
//! Rows that were leased or ended stay in the indexes until the last snapshot that may see them is gone, and a claim
//! would look at all of them again. So it begins where the oldest due delivery stood that it last saw (the *floor*),
//! and every few seconds at the very beginning.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;
use webhook_core::store::{ClaimRequest, Claimed, Lease};
use webhook_core::{
    DeliveryId, DeliveryState, EventId, Generation, Reason, Sealed, SubscriptionId, Target, TargetId, Timestamp,
};

use crate::error::Fault;
use crate::progress::Progress;
use crate::rows;
use crate::session::Conn;

/// So many more deliveries than leases are wanted are looked at, because some will not be fit.
const LOOK_FURTHER: i64 = 64;
/// A walk visits at most so many targets.
const WALK: i64 = 256;
/// A delivery ends when it has lost so many leases.
const LOST_LEASES: i32 = 5;
/// So many lost leases are taken up at once.
const RESCUED: i64 = 1000;

/// Whether the subscription `s` of a delivery `d` takes deliveries at `$1`.
macro_rules! takes_deliveries {
    () => {
        "(s.id IS NOT NULL AND s.deleted_at IS NULL AND s.disabled_reason IS NULL
          AND (s.paused_until IS NULL OR s.paused_until <= $1))"
    };
}

/// The deliveries that `$found` yields and locks, with what a lease of them needs.
macro_rules! candidates {
    ($found:literal) => {
        concat!(
            "WITH d AS MATERIALIZED (",
            $found,
            ") SELECT d.id, d.tenant, d.event_id, d.target_id, d.subscription_id, d.target, d.next_at, d.attempts,
               d.reopened_state, d.reopened_reason, d.payload_bytes, coalesce(s.version, 0) AS version,
               s.paused_until IS NOT NULL AS paused, d.subscription_id IS NULL OR ",
            takes_deliveries!(),
            " AS fit FROM d LEFT JOIN webhook.subscription AS s ON s.id = d.subscription_id"
        )
    };
}

// `next_at >= 0`: by the index that is for what is due first.
const OLDEST: &str = candidates!(
    "SELECT * FROM webhook.delivery
     WHERE state = 0 AND NOT leased AND next_at >= 0 AND next_at <= $1 AND next_at >= $3
     ORDER BY next_at, id LIMIT $2 FOR UPDATE SKIP LOCKED"
);

// `state + 0`: by the ids, and not by a partial index that the planner may think to be shorter.
const NAMED: &str = candidates!(
    "SELECT * FROM webhook.delivery
     WHERE id = ANY ($2) AND state + 0 = 0 AND NOT leased AND next_at <= $1
     ORDER BY id FOR UPDATE SKIP LOCKED"
);

const OLDEST_OF_TARGETS: &str = candidates!(
    "SELECT o.* FROM unnest($2::uuid[]) AS j (target_id) CROSS JOIN LATERAL (
       SELECT * FROM webhook.delivery AS x
       WHERE x.state = 0 AND NOT x.leased AND x.target_id = j.target_id AND x.next_at <= $1 AND x.next_at >= $4
       ORDER BY x.next_at, x.id LIMIT $3 FOR UPDATE SKIP LOCKED
     ) AS o"
);

// The first entry of each target in the index is its oldest, so one look tells the next target and when it is due.
const WALK_ON: &str = concat!(
    "WITH RECURSIVE walk (target_id, next_at, step) AS (
       (SELECT x.target_id, x.next_at, 1 FROM webhook.delivery AS x
        WHERE x.state = 0 AND NOT x.leased AND x.target_id > $2 AND x.next_at >= $4
        ORDER BY x.target_id, x.next_at LIMIT 1)
       UNION ALL
       SELECT n.target_id, n.next_at, walk.step + 1 FROM walk CROSS JOIN LATERAL (
         SELECT x.target_id, x.next_at FROM webhook.delivery AS x
         WHERE x.state = 0 AND NOT x.leased AND x.target_id > walk.target_id AND x.next_at >= $4
         ORDER BY x.target_id, x.next_at LIMIT 1
       ) AS n WHERE walk.step < $3
     )
     SELECT walk.target_id, walk.next_at <= $1 AND (s.id IS NULL OR ",
    takes_deliveries!(),
    ") AS due
     FROM walk LEFT JOIN webhook.subscription AS s ON s.id = walk.target_id
     ORDER BY walk.target_id"
);

/// A due delivery.
#[derive(Clone)]
struct Candidate {
    lease: Lease,
    due: Timestamp,
    fit: bool,
}

/// The targets that a walk came to, in its order, with their oldest due deliveries.
struct Walk {
    targets: BTreeMap<TargetId, Vec<Candidate>>,
    /// Where it stopped; none when it came to the end.
    stopped: Option<TargetId>,
}

/// Leases that were lost.
#[derive(Clone, Copy, Default)]
struct Rescued {
    lost: u32,
    exhausted: u32,
}

pub(crate) async fn claim(conn: &mut Conn<'_>, progress: &Progress, ask: &ClaimRequest<'_>) -> Result<Claimed, Fault> {
    let mut rescued = Rescued::default();
    if progress.rescue(ask.now) {
        let found = rescue(conn, ask, None).await?;
        if i64::from(found.lost) >= RESCUED {
            progress.rescue_again();
        }
        rescued = found;
    }
    let look = i64::from(ask.limit) + LOOK_FURTHER;
    let floor = progress.floor(ask.now);
    let query = sqlx::query(OLDEST).bind(ask.now.as_millis()).bind(look).bind(floor.as_millis());
    let oldest = candidates(ask, &query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?)?;
    progress.saw(oldest.first().map(|candidate| candidate.due), ask.now);
    let all = (oldest.len() as i64) < look;
    let mut choice = Choice::new(ask);
    let mut cursor = None;
    let skipped = !all && ask.cursor.is_none() && progress.skips_walk();
    if !skipped {
        let walk = if all { within(ask, &oldest) } else { walk(conn, ask, floor).await? };
        if !all && ask.cursor.is_none() && walk.stopped.is_none() {
            progress.walked(walk.targets.len());
        }
        cursor = choice.take_walk(&walk);
        oldest.iter().for_each(|candidate| choice.offer(candidate));
        walk.targets.values().flatten().for_each(|candidate| choice.offer(candidate));
    } else {
        oldest.iter().for_each(|candidate| choice.offer(candidate));
        // The oldest have no room at their target: there may be others after all.
        if choice.leased.is_empty() {
            let walk = walk(conn, ask, floor).await?;
            cursor = choice.take_walk(&walk);
            walk.targets.values().flatten().for_each(|candidate| choice.offer(candidate));
        }
    }
    let leases = choice.lease(conn).await?;
    // Who got all that was asked for asks again anyway.
    let next_due = if leases.len() < ask.limit as usize { next_due(conn, ask).await? } else { None };
    Ok(Claimed { leases, cursor, next_due, lost: rescued.lost, exhausted: rescued.exhausted })
}

pub(crate) async fn claim_ids(
    conn: &mut Conn<'_>,
    ask: &ClaimRequest<'_>,
    ids: &[DeliveryId],
) -> Result<Claimed, Fault> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let Rescued { lost, exhausted } = rescue(conn, ask, Some(&ids)).await?;
    let query = sqlx::query(NAMED).bind(ask.now.as_millis()).bind(ids);
    let named = candidates(ask, &query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?)?;
    let mut choice = Choice::new(ask);
    named.iter().for_each(|candidate| choice.offer(candidate));
    let leases = choice.lease(conn).await?;
    Ok(Claimed { leases, cursor: None, next_due: next_due(conn, ask).await?, lost, exhausted })
}

/// Counts lost leases, of these deliveries or of whatever: they are due like any other then, or have ended.
async fn rescue(conn: &mut Conn<'_>, ask: &ClaimRequest<'_>, ids: Option<&[Uuid]>) -> Result<Rescued, Fault> {
    const OVER: &str = "SELECT id FROM webhook.delivery
         WHERE state = 0 AND leased AND next_at <= $1 ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED";
    const OVER_NAMED: &str = "SELECT id FROM webhook.delivery
         WHERE state + 0 = 0 AND leased AND next_at <= $1 AND id = ANY ($2) ORDER BY id FOR UPDATE SKIP LOCKED";
    let over: Vec<Uuid> = match ids {
        None => {
            sqlx::query_scalar(OVER)
                .bind(ask.now.as_millis())
                .bind(RESCUED)
                .persistent(conn.persistent)
                .fetch_all(&mut *conn.inner)
                .await?
        }
        Some(ids) => {
            sqlx::query_scalar(OVER_NAMED)
                .bind(ask.now.as_millis())
                .bind(ids)
                .persistent(conn.persistent)
                .fetch_all(&mut *conn.inner)
                .await?
        }
    };
    let mut rescued = Rescued::default();
    if over.is_empty() {
        return Ok(rescued);
    }
    let states: Vec<i16> = sqlx::query_scalar(
        "UPDATE webhook.delivery SET lost = lost + 1, leased = false,
           state = CASE WHEN lost + 1 >= $3 THEN $4 ELSE state END,
           reason = CASE WHEN lost + 1 >= $3 THEN $5 ELSE reason END,
           next_at = CASE WHEN lost + 1 >= $3 THEN $2 ELSE next_at END,
           completed_at = CASE WHEN lost + 1 >= $3 THEN $2 END,
           reopened_state = CASE WHEN lost + 1 >= $3 THEN NULL ELSE reopened_state END,
           reopened_reason = CASE WHEN lost + 1 >= $3 THEN NULL ELSE reopened_reason END
         WHERE id = ANY ($1) RETURNING state",
    )
    .bind(over)
    .bind(ask.now.as_millis())
    .bind(LOST_LEASES)
    .bind(DeliveryState::Exhausted.code())
    .bind(Reason::LostLeases.code())
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    rescued.lost = count(states.len());
    rescued.exhausted = count(states.iter().filter(|state| **state != DeliveryState::Pending.code()).count());
    Ok(rescued)
}

/// When the next delivery is due that is not due yet, and not leased.
async fn next_due(conn: &mut Conn<'_>, ask: &ClaimRequest<'_>) -> Result<Option<Timestamp>, Fault> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT next_at FROM webhook.delivery
         WHERE state = 0 AND NOT leased AND next_at >= 0 AND next_at > $1 ORDER BY next_at LIMIT 1",
    )
    .bind(ask.now.as_millis())
    .persistent(conn.persistent)
    .fetch_optional(&mut *conn.inner)
    .await?;
    Ok(next.map(Timestamp::from_millis))
}

/// The walk over deliveries that are all that is due.
fn within(ask: &ClaimRequest<'_>, all: &[Candidate]) -> Walk {
    let mut targets: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    for candidate in all.iter().filter(|candidate| candidate.fit) {
        let target = candidate.lease.target.id();
        if ask.cursor.is_none_or(|cursor| target > cursor) {
            targets.entry(target).or_default().push(candidate.clone());
        }
    }
    Walk { targets, stopped: None }
}

async fn walk(conn: &mut Conn<'_>, ask: &ClaimRequest<'_>, floor: Timestamp) -> Result<Walk, Fault> {
    let visited = sqlx::query(WALK_ON)
        .bind(ask.now.as_millis())
        .bind(ask.cursor.map_or(Uuid::nil(), TargetId::as_uuid))
        .bind(WALK)
        .bind(floor.as_millis())
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    let visited = visited
        .iter()
        .map(|row| Ok((TargetId::from_uuid(rows::id(row, "target_id")?), row.try_get("due")?)))
        .collect::<Result<Vec<(TargetId, bool)>, Fault>>()?;
    let mut stopped = visited.last().map(|(target, _)| *target).filter(|_| visited.len() as i64 >= WALK);
    let due = |(target, due): (TargetId, bool)| (due && ask.room.get(target) > 0).then_some(target);
    let mut due: Vec<_> = visited.into_iter().filter_map(due).collect();
    if due.len() > ask.limit as usize {
        due.truncate(ask.limit as usize);
        stopped = due.last().copied();
    }
    let each = (ask.limit as usize / due.len().max(1)).max(1);
    let mut targets: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    if !due.is_empty() {
        let found = sqlx::query(OLDEST_OF_TARGETS)
            .bind(ask.now.as_millis())
            .bind(due.iter().map(|target| target.as_uuid()).collect::<Vec<_>>())
            .bind(i64::try_from(each).unwrap_or(i64::MAX))
            .bind(floor.as_millis())
            .persistent(conn.persistent)
            .fetch_all(&mut *conn.inner)
            .await?;
        for candidate in candidates(ask, &found)? {
            targets.entry(candidate.lease.target.id()).or_default().push(candidate);
        }
    }
    Ok(Walk { targets, stopped })
}

/// What is leased.
struct Choice<'a> {
    ask: &'a ClaimRequest<'a>,
    seen: HashSet<DeliveryId>,
    given: HashMap<TargetId, u32>,
    leased: Vec<Candidate>,
}

impl<'a> Choice<'a> {
    fn new(ask: &'a ClaimRequest<'a>) -> Self {
        Self { ask, seen: HashSet::new(), given: HashMap::new(), leased: Vec::new() }
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
        let given = self.given.entry(target).or_default();
        if self.leased.len() < self.ask.limit as usize && *given < self.ask.room.get(target) {
            *given += 1;
            self.seen.insert(id);
            self.leased.push(candidate.clone());
        }
    }

    async fn lease(mut self, conn: &mut Conn<'_>) -> Result<Vec<Lease>, Fault> {
        if !self.leased.is_empty() {
            sqlx::query("UPDATE webhook.delivery SET next_at = $2, token = $3, leased = true WHERE id = ANY ($1)")
                .bind(self.leased.iter().map(|candidate| candidate.lease.delivery.as_uuid()).collect::<Vec<_>>())
                .bind(self.ask.lease_until.as_millis())
                .bind(self.ask.token.get())
                .persistent(conn.persistent)
                .execute(&mut *conn.inner)
                .await?;
        }
        self.leased.sort_by_key(|candidate| (candidate.due, candidate.lease.delivery));
        Ok(self.leased.into_iter().map(|candidate| candidate.lease).collect())
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What `candidates!` gave, oldest due first.
fn candidates(ask: &ClaimRequest<'_>, found: &[PgRow]) -> Result<Vec<Candidate>, Fault> {
    let mut candidates = found.iter().map(|row| candidate(ask, row)).collect::<Result<Vec<_>, _>>()?;
    candidates.sort_by_key(|candidate| (candidate.due, candidate.lease.delivery));
    Ok(candidates)
}

fn candidate(ask: &ClaimRequest<'_>, row: &PgRow) -> Result<Candidate, Fault> {
    let target = match rows::id_opt(row, "subscription_id")? {
        Some(subscription) => Target::Subscription(SubscriptionId::from_uuid(subscription)),
        None => {
            let sealed = row.try_get::<Option<Vec<u8>>, _>("target")?.unwrap_or_default();
            Target::AdHoc { key: TargetId::from_uuid(rows::id(row, "target_id")?), sealed: Sealed::from_bytes(sealed) }
        }
    };
    let (id, event) = (DeliveryId::from_uuid(rows::id(row, "id")?), EventId::from_uuid(rows::id(row, "event_id")?));
    let mut lease = Lease::new(id, rows::tenant(row)?, event, target, ask.token, ask.lease_until);
    lease.version = Generation::new(row.try_get("version")?);
    lease.attempts = rows::count(row, "attempts")?;
    lease.reopened = match row.try_get::<Option<i16>, _>("reopened_state")? {
        Some(state) => Some((rows::state(state)?, rows::reason(row.try_get("reopened_reason")?)?)),
        None => None,
    };
    lease.payload_bytes = rows::count(row, "payload_bytes")?;
    lease.paused = row.try_get("paused")?;
    Ok(Candidate { lease, due: rows::time(row, "next_at")?, fit: row.try_get("fit")? })
}
