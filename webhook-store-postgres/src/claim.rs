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

use std::collections::{BTreeMap, HashSet};

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;
use webhook_core::store::{ClaimRequest, Claimed, Lease};
use webhook_core::{
    DeliveryId, DeliveryState, EventId, Generation, Reason, Sealed, SubscriptionId, Target, TargetId, Timestamp,
};

use crate::choice::{Candidate, Choice, Walk, sort, takes_deliveries};
use crate::error::Fault;
use crate::fan_out::{self, rows_between};
use crate::progress::Progress;
use crate::rows;
use crate::session::Conn;

/// So many more deliveries than leases are wanted are looked at, because some will not be fit.
const LOOK_FURTHER: i64 = 64;
/// A walk looks at shared rows with about so many times the deliveries that are wanted of it.
const LINES_FURTHER: i64 = 4;
/// A walk visits at most so many targets.
const WALK: usize = 256;
/// A delivery ends when it has lost so many leases.
const LOST_LEASES: i32 = 5;
/// So many lost leases are taken up at once.
const RESCUED: i64 = 1000;

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

// The first entry of each target in the index is its oldest, so one look tells the next target and whether it is due.
const WALK_ON: &str = concat!(
    "WITH RECURSIVE walk (target_id, due, step, found) AS (
       SELECT $2::uuid, false, 0, 0
       UNION ALL
       SELECT n.target_id, n.due, walk.step + 1, walk.found + n.due::int FROM walk CROSS JOIN LATERAL (
         SELECT o.target_id, o.next_at <= $1 AND (s.id IS NULL OR ",
    takes_deliveries!(),
    ") AS due FROM (
           SELECT x.target_id, x.next_at FROM webhook.delivery AS x
           WHERE x.state = 0 AND NOT x.leased AND x.target_id > walk.target_id AND x.next_at >= $5
           ORDER BY x.target_id, x.next_at LIMIT 1
         ) AS o LEFT JOIN webhook.subscription AS s ON s.id = o.target_id
       ) AS n WHERE walk.step < $3 AND walk.found < $4
     )
     SELECT target_id, due FROM walk WHERE step > 0 ORDER BY target_id"
);

const OLDEST_FAN_OUTS: &str = "SELECT * FROM webhook.fan_out
     WHERE NOT leased AND next_at >= 0 AND next_at <= $1 AND next_at >= $3
     ORDER BY next_at, id LIMIT $2 FOR UPDATE SKIP LOCKED";

const NAMED_FAN_OUTS: &str = concat!(
    "SELECT f.* FROM unnest($2::uuid[], $3::uuid[]) AS i (a, b) ",
    rows_between!("i.a", "i.b", "x.leased::int = 0 AND x.next_at <= $1", "FOR UPDATE SKIP LOCKED")
);

const OLDEST_OF_LINES: &str = "SELECT o.* FROM unnest($2::uuid[]) AS j (line) CROSS JOIN LATERAL (
       SELECT * FROM webhook.fan_out AS x
       WHERE NOT x.leased AND x.line = j.line AND x.next_at <= $1 AND x.next_at >= $3
       ORDER BY x.next_at, x.id LIMIT $4 FOR UPDATE SKIP LOCKED
     ) AS o";

const WALK_ON_LINES: &str = "WITH RECURSIVE walk (line, due, step, found) AS (
       SELECT $2::uuid, false, 0, 0
       UNION ALL
       SELECT n.line, n.next_at <= $1, walk.step + 1, walk.found + (n.next_at <= $1)::int
       FROM walk CROSS JOIN LATERAL (
         SELECT x.line, x.next_at FROM webhook.fan_out AS x
         WHERE NOT x.leased AND x.line > walk.line AND x.next_at >= $5
         ORDER BY x.line, x.next_at LIMIT 1
       ) AS n WHERE walk.step < $3 AND walk.found < $4
     )
     SELECT line, due FROM walk WHERE step > 0 ORDER BY line";

/// Leases that were lost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rescued {
    lost: u32,
    exhausted: u32,
    /// There may be more of them.
    pub(crate) more: bool,
}

/// What was claimed, and what was rescued where lost leases were looked for.
pub(crate) async fn claim(
    conn: &mut Conn<'_>,
    progress: &Progress,
    ask: &ClaimRequest<'_>,
) -> Result<(Claimed, Option<Rescued>), Fault> {
    let rescued = match progress.rescue(ask.now) {
        Some(floor) => Some(rescue(conn, ask, Over::Since(floor)).await?),
        None => None,
    };
    let mut floor = progress.floor(ask.now);
    let mut choice = Choice::new(ask);
    let (mut oldest, mut all) = oldest_from(conn, progress, &mut choice, floor).await?;
    if oldest.is_empty() && progress.may_hide(floor) {
        floor = Timestamp::EPOCH;
        (oldest, all) = oldest_from(conn, progress, &mut choice, floor).await?;
    }
    progress.saw(oldest.first().map(|candidate| candidate.due), ask.now);
    let mut cursor = None;
    let skipped = !all && ask.cursor.is_none() && progress.skips_walk();
    if !skipped {
        // Where the oldest give the rest, more than the walk's share would be locked for nothing.
        let wanted = if choice.could_take(&oldest) >= ask.limit { choice.walks_share() } else { ask.limit };
        let walk = if all { choice.within(&oldest) } else { walk(conn, progress, &mut choice, floor, wanted).await? };
        if !all && ask.cursor.is_none() && walk.stopped.is_none() {
            progress.walked(walk.stops.len());
        }
        cursor = choice.take_walk(&walk, &oldest);
        oldest.iter().for_each(|candidate| choice.offer(candidate));
        walk.stops.values().flatten().for_each(|candidate| choice.offer(candidate));
    } else {
        oldest.iter().for_each(|candidate| choice.offer(candidate));
        // The oldest have no room at their target: there may be others after all.
        if choice.leased.is_empty() {
            let walk = walk(conn, progress, &mut choice, floor, ask.limit).await?;
            cursor = choice.take_walk(&walk, &oldest);
            walk.stops.values().flatten().for_each(|candidate| choice.offer(candidate));
        }
    }
    let leases = choice.lease(conn).await?;
    // Who got all that was asked for asks again anyway.
    let next_due = if leases.len() < ask.limit as usize { next_due(conn, ask).await? } else { None };
    let Rescued { lost, exhausted, .. } = rescued.unwrap_or_default();
    Ok((Claimed { leases, cursor, next_due, lost, exhausted }, rescued))
}

/// What is due first from the floor on, and whether that is all there is.
async fn oldest_from(
    conn: &mut Conn<'_>,
    progress: &Progress,
    choice: &mut Choice<'_>,
    floor: Timestamp,
) -> Result<(Vec<Candidate>, bool), Fault> {
    let ask = choice.ask;
    let look = i64::from(ask.limit) + LOOK_FURTHER;
    let query = sqlx::query(OLDEST).bind(ask.now.as_millis()).bind(look).bind(floor.as_millis());
    let mut oldest = candidates(ask, &query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?)?;
    let mut all = (oldest.len() as i64) < look;
    let rows = progress.fan_outs(look);
    let query = sqlx::query(OLDEST_FAN_OUTS).bind(ask.now.as_millis()).bind(rows).bind(floor.as_millis());
    let found = query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    if !found.is_empty() {
        all &= (found.len() as i64) < rows;
        let shared = choice.share(conn, &found).await?;
        progress.saw_fan_outs(found.len(), shared.len());
        oldest.extend(shared);
        sort(&mut oldest);
    }
    Ok((oldest, all))
}

pub(crate) async fn claim_ids(
    conn: &mut Conn<'_>,
    ask: &ClaimRequest<'_>,
    ids: &[DeliveryId],
) -> Result<Claimed, Fault> {
    let named: HashSet<DeliveryId> = ids.iter().copied().collect();
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let Rescued { lost, exhausted, .. } = rescue(conn, ask, Over::Among(&ids)).await?;
    let mut choice = Choice::new(ask);
    let (from, to) = fan_out::all_places(&ids);
    let query = sqlx::query(NAMED).bind(ask.now.as_millis()).bind(ids);
    let mut found = candidates(ask, &query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?)?;
    let query = sqlx::query(NAMED_FAN_OUTS).bind(ask.now.as_millis()).bind(from).bind(to);
    let rows = query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    if !rows.is_empty() {
        let shared = choice.share(conn, &rows).await?;
        found.extend(shared.into_iter().filter(|candidate| named.contains(&candidate.lease.delivery)));
        choice.only(&named);
        sort(&mut found);
    }
    found.iter().for_each(|candidate| choice.offer(candidate));
    let leases = choice.lease(conn).await?;
    Ok(Claimed { leases, cursor: None, next_due: next_due(conn, ask).await?, lost, exhausted })
}

/// Which leases are looked at.
#[derive(Clone, Copy)]
pub(crate) enum Over<'a> {
    /// Those of these deliveries.
    Among(&'a [Uuid]),
    /// Those that were over since then. While somebody holds an old snapshot, to look from the very beginning is to step
    /// over all that were ever taken in its time.
    Since(Timestamp),
}

/// Counts lost leases: their deliveries are due like any other then, or have ended.
async fn rescue(conn: &mut Conn<'_>, ask: &ClaimRequest<'_>, which: Over<'_>) -> Result<Rescued, Fault> {
    const OVER: &str = "SELECT id FROM webhook.delivery
         WHERE state = 0 AND leased AND next_at <= $1 AND next_at >= $3 ORDER BY next_at LIMIT $2
         FOR UPDATE SKIP LOCKED";
    const OVER_NAMED: &str = "SELECT id FROM webhook.delivery
         WHERE state + 0 = 0 AND leased AND next_at <= $1 AND id = ANY ($2) ORDER BY id FOR UPDATE SKIP LOCKED";
    let over: Vec<Uuid> = match which {
        Over::Since(floor) => {
            sqlx::query_scalar(OVER)
                .bind(ask.now.as_millis())
                .bind(RESCUED)
                .bind(floor.as_millis())
                .persistent(conn.persistent)
                .fetch_all(&mut *conn.inner)
                .await?
        }
        Over::Among(ids) => {
            sqlx::query_scalar(OVER_NAMED)
                .bind(ask.now.as_millis())
                .bind(ids)
                .persistent(conn.persistent)
                .fetch_all(&mut *conn.inner)
                .await?
        }
    };
    let (lost, more) = fan_out::rescue(conn, ask.now, which, RESCUED).await?;
    let mut rescued = Rescued { lost, exhausted: 0, more: more || over.len() as i64 >= RESCUED };
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
    rescued.lost += count(states.len());
    rescued.exhausted = count(states.iter().filter(|state| **state != DeliveryState::Pending.code()).count());
    Ok(rescued)
}

/// When the next delivery is due that is not due yet, and not leased.
async fn next_due(conn: &mut Conn<'_>, ask: &ClaimRequest<'_>) -> Result<Option<Timestamp>, Fault> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT least(
           (SELECT next_at FROM webhook.delivery
            WHERE state = 0 AND NOT leased AND next_at >= 0 AND next_at > $1 ORDER BY next_at LIMIT 1),
           (SELECT next_at FROM webhook.fan_out
            WHERE NOT leased AND next_at >= 0 AND next_at > $1 ORDER BY next_at LIMIT 1)
         )",
    )
    .bind(ask.now.as_millis())
    .persistent(conn.persistent)
    .fetch_one(&mut *conn.inner)
    .await?;
    Ok(next.map(Timestamp::from_millis))
}

/// Walks on over the targets, and over the lines of fan-outs, which are in the same order, for `wanted` deliveries.
async fn walk(
    conn: &mut Conn<'_>,
    progress: &Progress,
    choice: &mut Choice<'_>,
    floor: Timestamp,
    wanted: u32,
) -> Result<Walk, Fault> {
    let mut walk = walk_targets(conn, choice.ask, floor, wanted).await?;
    let lines = walk_lines(conn, progress, choice, floor, wanted).await?;
    walk.stopped = match (walk.stopped, lines.stopped) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    walk.stops.extend(lines.stops);
    if let Some(stopped) = walk.stopped {
        walk.stops.retain(|stop, _| *stop <= stopped);
    }
    Ok(walk)
}

/// Where something is due from the cursor on, as far as it `fits`, in `wanted` places at most, and where the walk stopped
/// if there may be more: it goes no further than it has to for these.
async fn visit(
    conn: &mut Conn<'_>,
    walk: &'static str,
    ask: &ClaimRequest<'_>,
    floor: Timestamp,
    wanted: usize,
    fits: impl Fn(Uuid) -> bool,
) -> Result<(Vec<Uuid>, Option<Uuid>), Fault> {
    let full = ask.room.of.values().filter(|room| **room == 0).count();
    // Where targets have no room unless something else is said of them, most of those that are due may have none.
    let enough = if ask.room.default == 0 { WALK } else { wanted.saturating_add(full).min(WALK) };
    let visited: Vec<(Uuid, bool)> = sqlx::query_as(walk)
        .bind(ask.now.as_millis())
        .bind(ask.cursor.map_or(Uuid::nil(), TargetId::as_uuid))
        .bind(WALK as i64)
        .bind(enough as i64)
        .bind(floor.as_millis())
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    let (steps, last) = (visited.len(), visited.last().map(|(stop, _)| *stop));
    let mut due: Vec<_> = visited.into_iter().filter_map(|(stop, due)| due.then_some(stop)).collect();
    let mut stopped = last.filter(|_| steps >= WALK || due.len() >= enough);
    due.retain(|stop| fits(*stop));
    if due.len() > wanted {
        due.truncate(wanted);
        stopped = due.last().copied();
    }
    Ok((due, stopped))
}

async fn walk_targets(
    conn: &mut Conn<'_>,
    ask: &ClaimRequest<'_>,
    floor: Timestamp,
    wanted: u32,
) -> Result<Walk, Fault> {
    let has_room = |target| ask.room.get(TargetId::from_uuid(target)) > 0;
    let (due, stopped) = visit(conn, WALK_ON, ask, floor, wanted as usize, has_room).await?;
    let each = (ask.limit as usize / due.len().max(1)).max(1);
    let mut stops: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    if !due.is_empty() {
        let found = sqlx::query(OLDEST_OF_TARGETS)
            .bind(ask.now.as_millis())
            .bind(due)
            .bind(i64::try_from(each).unwrap_or(i64::MAX))
            .bind(floor.as_millis())
            .persistent(conn.persistent)
            .fetch_all(&mut *conn.inner)
            .await?;
        for candidate in candidates(ask, &found)? {
            stops.entry(candidate.lease.target.id()).or_default().push(candidate);
        }
    }
    Ok(Walk { stops, stopped: stopped.map(TargetId::from_uuid) })
}

async fn walk_lines(
    conn: &mut Conn<'_>,
    progress: &Progress,
    choice: &mut Choice<'_>,
    floor: Timestamp,
    wanted: u32,
) -> Result<Walk, Fault> {
    let ask = choice.ask;
    // A row has many deliveries, of which some will not be fit or have no room.
    let rows = progress.fan_outs(i64::from(wanted) * LINES_FURTHER).min(i64::from(wanted));
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let (due, stopped) = visit(conn, WALK_ON_LINES, ask, floor, rows, |_| true).await?;
    let each = i64::from(ask.limit) / i64::try_from(due.len().max(1)).unwrap_or(i64::MAX);
    let mut stops: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    if !due.is_empty() {
        let found = sqlx::query(OLDEST_OF_LINES)
            .bind(ask.now.as_millis())
            .bind(due)
            .bind(floor.as_millis())
            .bind(progress.fan_outs(each).max(1))
            .persistent(conn.persistent)
            .fetch_all(&mut *conn.inner)
            .await?;
        for candidate in choice.share(conn, &found).await? {
            stops.entry(choice.stop(&candidate)).or_default().push(candidate);
        }
    }
    Ok(Walk { stops, stopped: stopped.map(TargetId::from_uuid) })
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What `candidates!` gave, oldest due first.
fn candidates(ask: &ClaimRequest<'_>, found: &[PgRow]) -> Result<Vec<Candidate>, Fault> {
    let mut candidates = found.iter().map(|row| candidate(ask, row)).collect::<Result<Vec<_>, _>>()?;
    sort(&mut candidates);
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
    Ok(Candidate { lease, due: rows::time(row, "next_at")?, fit: row.try_get("fit")?, fan_out: None })
}
