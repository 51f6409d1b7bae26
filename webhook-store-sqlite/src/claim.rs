//! Leasing due deliveries: fairly, and at a cost that does not grow with what waits.
//!
//! A claim looks at a bounded number of the oldest due deliveries. When that is not all of them, one target may own all
//! of what it saw; then it also walks from the cursor over a bounded number of targets, jumping from one to the next
//! through the index, and takes the oldest due deliveries of each. Half of the leases go to the walk, so that it gets
//! on whatever else is due.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::{Row, SqliteConnection};
use uuid::Uuid;
use webhook_core::store::{ClaimRequest, Claimed, Lease, LeaseToken, Room};
use webhook_core::{
    DeliveryId, DeliveryState, EventId, Generation, Reason, Sealed, SubscriptionId, Target, TargetId, Timestamp,
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

/// The due ones of the deliveries that `$ids` yields, oldest due first.
macro_rules! candidates {
    ($ids:literal) => {
        concat!(
            "SELECT d.id, d.tenant, d.event_id, d.target_id, d.subscription_id, d.target, d.next_at, d.leased,
               d.attempts, d.lost, d.reopened_state, d.reopened_reason, d.payload_bytes,
               coalesce(s.version, 0) AS version, s.paused_until IS NOT NULL AS paused,
               d.subscription_id IS NULL OR ",
            takes_deliveries!(),
            " AS fit FROM (",
            $ids,
            ") AS c CROSS JOIN webhook_delivery AS d ON d.id = c.id
             LEFT JOIN webhook_subscription AS s ON s.id = d.subscription_id
             WHERE d.state = 0 AND d.next_at <= ?1
             ORDER BY d.next_at, d.id"
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
     SELECT walk.target_id, s.id IS NULL OR ",
    takes_deliveries!(),
    " AS fit,
       coalesce((SELECT x.next_at FROM webhook_delivery AS x INDEXED BY webhook_delivery_target
        WHERE x.state = 0 AND x.target_id = walk.target_id ORDER BY x.next_at LIMIT 1) <= ?1, 0) AS due
     FROM walk LEFT JOIN webhook_subscription AS s ON s.id = walk.target_id"
);

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
    let query = sqlx::query(OLDEST).bind(ask.now.as_millis()).bind(look);
    let oldest = candidates(ask, query.fetch_all(&mut *conn).await?.as_slice())?;
    let walk = if (oldest.len() as i64) < look { within(ask, &oldest) } else { walk(conn, ask).await? };
    let mut choice = Choice::new(ask);
    let cursor = choice.take_walk(&walk);
    oldest.iter().for_each(|candidate| choice.offer(candidate));
    walk.targets.values().flatten().for_each(|candidate| choice.offer(candidate));
    choice.lease(conn, cursor).await
}

pub(crate) async fn claim_ids(conn: &mut SqliteConnection, ask: &Ask, ids: &[DeliveryId]) -> Result<Claimed, Fault> {
    let ids = bulk::hex_list(ids.iter().map(|id| id.as_uuid()))?;
    let query = sqlx::query(NAMED).bind(ask.now.as_millis()).bind(ids);
    let named = candidates(ask, query.fetch_all(&mut *conn).await?.as_slice())?;
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
    let visited = sqlx::query(WALK_ON).bind(ask.now.as_millis()).bind(after).bind(WALK).fetch_all(&mut *conn).await?;
    let (mut stopped, mut due) = (None, Vec::new());
    for row in &visited {
        // After the last target comes one row without any.
        let Some(target) = rows::id_opt(row, "target_id")?.map(TargetId::from_uuid) else {
            stopped = None;
            break;
        };
        if row.try_get("fit")? && row.try_get("due")? && ask.room.get(target) > 0 {
            due.push(target);
        }
        stopped = Some(target);
        if due.len() >= ask.limit as usize {
            break;
        }
    }
    let each = (ask.limit as usize / due.len().max(1)).max(1);
    let query = sqlx::query(OLDEST_OF_TARGETS)
        .bind(ask.now.as_millis())
        .bind(bulk::hex_list(due.iter().map(|target| target.as_uuid()))?)
        .bind(i64::try_from(each).unwrap_or(i64::MAX));
    let mut targets: BTreeMap<TargetId, Vec<Candidate>> = BTreeMap::new();
    if !due.is_empty() {
        for candidate in candidates(ask, query.fetch_all(conn).await?.as_slice())? {
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

fn candidates(ask: &Ask, found: &[sqlx::sqlite::SqliteRow]) -> Result<Vec<Candidate>, Fault> {
    rows::all(found, |row| {
        let target = match rows::id_opt(row, "subscription_id")? {
            Some(id) => Target::Subscription(SubscriptionId::from_uuid(id)),
            None => Target::AdHoc {
                key: TargetId::from_uuid(rows::id(row, "target_id")?),
                sealed: Sealed::from_bytes(row.try_get::<Option<Vec<u8>>, _>("target")?.unwrap_or_default()),
            },
        };
        let mut lease = Lease::new(
            DeliveryId::from_uuid(rows::id(row, "id")?),
            rows::tenant(row)?,
            EventId::from_uuid(rows::id(row, "event_id")?),
            target,
            ask.token,
            ask.lease_until,
        );
        lease.version = Generation::new(row.try_get("version")?);
        lease.attempts = rows::count(row, "attempts")?;
        lease.reopened = match row.try_get::<Option<i64>, _>("reopened_state")? {
            Some(state) => Some((rows::state(state)?, rows::reason(row.try_get("reopened_reason")?)?)),
            None => None,
        };
        lease.payload_bytes = rows::count(row, "payload_bytes")?;
        lease.paused = row.try_get("paused")?;
        Ok(Candidate {
            lease,
            due: rows::time(row, "next_at")?,
            leased: row.try_get("leased")?,
            lost: rows::count(row, "lost")?,
            fit: row.try_get("fit")?,
        })
    })
}
