//! Fan-outs: deliveries of one event that nothing has happened to yet, up to 64 in one row.
//!
//! A row is leased as a whole. Whoever claims it takes those that are fit and have room; what nobody has room for, or
//! is not fit, gets a row of its own in `webhook.delivery` and waits there for its own sake; what a claim has no slots
//! for stays together in another row. A delivery gets its own row too with its first attempt, or when it is given back,
//! cancelled, retried or its lease is lost.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row};
use uuid::Uuid;
use webhook_core::store::{AcceptItem, LeaseGrant, LeaseToken};
use webhook_core::{DeliveryId, EventId, Target, TargetId, TenantId, Timestamp};

use crate::claim::Over;
use crate::error::Fault;
use crate::rows;
use crate::session::Conn;

/// The rows with ids from `$from` to `$to`, of which `$such` holds, in the order of their ids; `$then` may lock them.
///
/// The limit is none, as there are no more. For a join by a range the planner thinks any index as good as that of the ids,
/// and goes through all of it for each range; so `$such` says `leased::int`, as other indexes are partial by `leased`.
macro_rules! rows_between {
    ($from:literal, $to:literal, $such:literal, $then:literal) => {
        concat!(
            "CROSS JOIN LATERAL (SELECT * FROM webhook.fan_out AS x WHERE x.id >= ",
            $from,
            " AND x.id <= ",
            $to,
            " AND ",
            $such,
            " ORDER BY x.id LIMIT 64 ",
            $then,
            ") AS f"
        )
    };
}

pub(crate) use rows_between;

/// Fewer deliveries than this are not worth a row beside their own.
pub(crate) const LEAST: usize = 2;
/// Deliveries in one row at most.
pub(crate) const MEMBERS: i64 = 64;
/// The last bits of an id: where in its row a delivery is.
const PLACE: u128 = 63;

/// The ids that the row with this delivery may have, if it is in one.
pub(crate) fn places(id: Uuid) -> (Uuid, Uuid) {
    (Uuid::from_u128(id.as_u128() & !PLACE), Uuid::from_u128(id.as_u128() | PLACE))
}

/// The same of several, each once, in order.
pub(crate) fn all_places(ids: &[Uuid]) -> (Vec<Uuid>, Vec<Uuid>) {
    ids.iter().map(|id| places(*id)).collect::<BTreeSet<_>>().into_iter().unzip()
}

/// Which of its row a delivery is.
pub(crate) fn bit(id: Uuid) -> u32 {
    (id.as_u128() & PLACE) as u32
}

/// Deliveries that may share a row: the first id there may be, and their lease.
type Group = (Uuid, Option<(i64, i64)>);

/// Rows of new deliveries, column by column.
#[derive(Debug, Default)]
pub(crate) struct FanOuts<'a> {
    pub(crate) units: Vec<i32>,
    pub(crate) ids: Vec<Uuid>,
    pub(crate) tenants: Vec<&'a str>,
    pub(crate) events: Vec<Uuid>,
    pub(crate) opens: Vec<i64>,
    pub(crate) targets: Vec<Vec<u8>>,
    pub(crate) next_ats: Vec<i64>,
    pub(crate) tokens: Vec<Option<i64>>,
    pub(crate) payload_sizes: Vec<i32>,
    pub(crate) created: Vec<i64>,
}

impl<'a> FanOuts<'a> {
    /// Takes the deliveries of an item, as far as they are worth it; those that are left, by their positions.
    pub(crate) fn take(&mut self, unit: i32, item: &'a AcceptItem) -> Vec<usize> {
        if item.deliveries.len() < LEAST {
            return (0..item.deliveries.len()).collect();
        }
        let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
        for (position, delivery) in item.deliveries.iter().enumerate() {
            let lease = delivery.lease.map(|LeaseGrant { token, until }| (token.get(), until.as_millis()));
            groups.entry((places(delivery.id.as_uuid()).0, lease)).or_default().push(position);
        }
        let mut left = Vec::new();
        for ((first, lease), positions) in groups {
            match members(item, &positions) {
                Some(members) => self.push(unit, item, first, lease, &members),
                None => left.extend(positions),
            }
        }
        left
    }

    fn push(
        &mut self,
        unit: i32,
        item: &'a AcceptItem,
        first: Uuid,
        lease: Option<(i64, i64)>,
        members: &BTreeMap<u32, Uuid>,
    ) {
        let (Some((low, _)), Some((high, _))) = (members.first_key_value(), members.last_key_value()) else { return };
        let mut targets = Vec::with_capacity(16 * (high - low + 1) as usize);
        for bit in *low..=*high {
            targets.extend_from_slice(members.get(&bit).unwrap_or(&Uuid::nil()).as_bytes());
        }
        self.units.push(unit);
        self.ids.push(Uuid::from_u128(first.as_u128() | u128::from(*low)));
        self.tenants.push(item.event.tenant.as_str());
        self.events.push(item.event.id.as_uuid());
        self.opens.push(members.keys().fold(0, |open, bit| open | 1_u64 << bit).cast_signed());
        self.targets.push(targets);
        self.next_ats.push(lease.map_or(item.event.created_at.as_millis(), |(_, until)| until));
        self.tokens.push(lease.map(|(token, _)| token));
        self.payload_sizes.push(i32::try_from(item.event.payload.len()).unwrap_or(i32::MAX));
        self.created.push(item.event.created_at.as_millis());
    }
}

/// The targets of these deliveries by their bits; none when they cannot be in one row, or are too few.
fn members(item: &AcceptItem, positions: &[usize]) -> Option<BTreeMap<u32, Uuid>> {
    let mut members = BTreeMap::new();
    for delivery in positions.iter().filter_map(|position| item.deliveries.get(*position)) {
        let Target::Subscription(target) = &delivery.target else { return None };
        members.insert(bit(delivery.id.as_uuid()), target.as_uuid());
    }
    (members.len() >= LEAST && members.len() == positions.len()).then_some(members)
}

/// A row that a claim looks at and holds locked.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) id: Uuid,
    pub(crate) tenant: TenantId,
    pub(crate) event: EventId,
    pub(crate) line: TargetId,
    pub(crate) due: Timestamp,
    pub(crate) payload_bytes: u32,
    open: u64,
    targets: Vec<u8>,
}

impl FanOut {
    pub(crate) fn decode(row: &PgRow) -> Result<Self, Fault> {
        Ok(Self {
            id: rows::id(row, "id")?,
            tenant: rows::tenant(row)?,
            event: EventId::from_uuid(rows::id(row, "event_id")?),
            line: TargetId::from_uuid(rows::id(row, "line")?),
            due: rows::time(row, "next_at")?,
            payload_bytes: rows::count(row, "payload_bytes")?,
            open: row.try_get::<i64, _>("open")?.cast_unsigned(),
            targets: row.try_get("targets")?,
        })
    }

    /// Its deliveries with their targets, in the order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = (DeliveryId, Uuid)> {
        let (first, low) = (places(self.id).0.as_u128(), bit(self.id));
        let targets = self.targets.chunks_exact(16).zip(low..64).filter(|(_, bit)| self.open >> bit & 1 == 1);
        targets.filter_map(move |(target, bit)| {
            let id = Uuid::from_u128(first | u128::from(bit));
            Some((DeliveryId::from_uuid(id), Uuid::from_slice(target).ok()?))
        })
    }
}

/// What a claim makes of the rows it looked at.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    ids: Vec<Uuid>,
    leased: Vec<i64>,
    spilled: Vec<i64>,
    rest: Vec<i64>,
    /// What is leased leaves the row, and the rest stays.
    leaves: Vec<bool>,
    /// Of what leaves the row: the first id, and how many bytes of the targets are before its own.
    new_ids: Vec<Uuid>,
    skips: Vec<i32>,
}

impl Taken {
    /// Leases some of a row's deliveries, gives others rows of their own, and leaves the rest together.
    pub(crate) fn push(&mut self, row: &FanOut, leased: u64, spilled: u64) {
        let rest = row.open & !leased & !spilled;
        // Whoever has the id of the row stays in it.
        let leaves = rest >> bit(row.id) & 1 == 1;
        let first = if leaves { leased } else { rest }.trailing_zeros();
        self.ids.push(row.id);
        self.leased.push(leased.cast_signed());
        self.spilled.push(spilled.cast_signed());
        self.rest.push(rest.cast_signed());
        self.leaves.push(leaves);
        self.new_ids.push(Uuid::from_u128(places(row.id).0.as_u128() | (u128::from(first) & PLACE)));
        self.skips.push(i32::try_from(16 * first.saturating_sub(bit(row.id))).unwrap_or(0));
    }

    pub(crate) async fn write(self, conn: &mut Conn<'_>, token: LeaseToken, until: Timestamp) -> Result<(), Fault> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let whole = self.spilled.iter().chain(&self.rest).all(|mask| *mask == 0);
        let query = if whole {
            sqlx::query("UPDATE webhook.fan_out SET leased = true, next_at = $2, token = $3 WHERE id = ANY ($1)")
                .bind(self.ids)
                .bind(until.as_millis())
                .bind(token.get())
        } else {
            sqlx::query(
                "WITH i AS (
                   SELECT * FROM unnest($1::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bool[], $8::uuid[],
                     $9::int[]) AS i (id, leased, spilled, rest, leaves, new_id, skip)
                 ), spilled AS (
                   INSERT INTO webhook.delivery
                     (id, tenant, event_id, target_id, subscription_id, next_at, payload_bytes, created_at)
                   SELECT m.delivery_id, f.tenant, f.event_id, m.target_id, m.target_id, f.next_at, f.payload_bytes,
                     f.created_at
                   FROM i JOIN webhook.fan_out AS f ON f.id = i.id
                   CROSS JOIN LATERAL webhook.fan_out_members(f.id, i.spilled, f.targets) AS m
                   WHERE i.spilled <> 0
                   ON CONFLICT DO NOTHING
                 ), new AS (
                   INSERT INTO webhook.fan_out
                     (id, event_id, line, open, next_at, token, leased, created_at, payload_bytes, tenant, targets)
                   SELECT i.new_id, f.event_id, webhook.fan_out_line(i.new_id, t.open, t.targets), t.open,
                     CASE WHEN i.leaves THEN $2 ELSE f.next_at END, CASE WHEN i.leaves THEN $3 ELSE 0 END, i.leaves,
                     f.created_at, f.payload_bytes, f.tenant, t.targets
                   FROM i JOIN webhook.fan_out AS f ON f.id = i.id
                   CROSS JOIN LATERAL (
                     SELECT substr(f.targets, 1 + i.skip) AS targets, CASE WHEN i.leaves THEN i.leased ELSE i.rest END AS open
                   ) AS t
                   WHERE i.rest <> 0
                 )
                 UPDATE webhook.fan_out AS f SET
                   leased = NOT i.leaves,
                   open = CASE WHEN i.leaves THEN i.rest ELSE i.leased END,
                   next_at = CASE WHEN i.leaves THEN f.next_at ELSE $2 END,
                   token = CASE WHEN i.leaves THEN f.token ELSE $3 END,
                   line = CASE WHEN i.leaves THEN webhook.fan_out_line(f.id, i.rest, f.targets) ELSE f.line END
                 FROM i WHERE f.id = i.id",
            )
            .bind(self.ids)
            .bind(until.as_millis())
            .bind(token.get())
            .bind(self.leased)
            .bind(self.spilled)
            .bind(self.rest)
            .bind(self.leaves)
            .bind(self.new_ids)
            .bind(self.skips)
        };
        query.persistent(conn.persistent).execute(&mut *conn.inner).await?;
        Ok(())
    }
}

/// Only those rows `f` of which a delivery goes to this subscription. What `position` finds may be two halves.
pub(crate) fn push_goes_to(query: &mut QueryBuilder<Postgres>, subscription: Uuid) {
    query.push(" AND position(uuid_send(").push_bind(subscription).push(
        ") IN f.targets) > 0 AND EXISTS (
        SELECT 1 FROM webhook.fan_out_members(f.id, f.open, f.targets) AS g WHERE g.target_id = ",
    );
    query.push_bind(subscription).push(")");
}

/// Gives these deliveries rows of their own, as they are: leased or not.
pub(crate) async fn spill(conn: &mut Conn<'_>, ids: &[Uuid]) -> Result<(), Fault> {
    let mut masks: BTreeMap<(Uuid, Uuid), i64> = BTreeMap::new();
    for id in ids {
        *masks.entry(places(*id)).or_default() |= (1_u64 << bit(*id)).cast_signed();
    }
    let wanted: i64 = masks.values().map(|mask| i64::from(mask.count_ones())).sum();
    let (places, masks): (Vec<_>, Vec<_>) = masks.into_iter().unzip();
    let (from, to): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    // A claim that was waited for may have put some in a new row, which the statement that waited does not see.
    while spill_seen(conn, &from, &to, &masks).await? < wanted && are_shared(conn, &from, &to, &masks).await? {}
    Ok(())
}

/// Does so with those that it sees in a shared row; how many these are.
async fn spill_seen(conn: &mut Conn<'_>, from: &[Uuid], to: &[Uuid], masks: &[i64]) -> Result<i64, Fault> {
    let spilled = sqlx::query_scalar(concat!(
        "WITH held AS MATERIALIZED (
           SELECT f.*, f.open & i.mask AS gone
           FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS i (a, b, mask) ORDER BY a) AS i ",
        rows_between!("i.a", "i.b", "x.open & i.mask <> 0", "FOR UPDATE"),
        "), spilled AS (
           INSERT INTO webhook.delivery
             (id, tenant, event_id, target_id, subscription_id, next_at, token, leased, payload_bytes, created_at)
           SELECT m.delivery_id, h.tenant, h.event_id, m.target_id, m.target_id, h.next_at, h.token, h.leased,
             h.payload_bytes, h.created_at
           FROM held AS h CROSS JOIN LATERAL webhook.fan_out_members(h.id, h.gone, h.targets) AS m
           ON CONFLICT DO NOTHING
         ), emptied AS (
           DELETE FROM webhook.fan_out AS f USING held AS h WHERE f.id = h.id AND h.open = h.gone
         ), left_over AS (
           UPDATE webhook.fan_out AS f SET
             open = h.open & ~h.gone,
             -- It has other targets than its line now, and would stand before those that it has no part in.
             line = CASE WHEN h.leased THEN h.line ELSE webhook.fan_out_line(h.id, h.open & ~h.gone, h.targets) END
           FROM held AS h WHERE f.id = h.id AND h.open <> h.gone
         )
         SELECT coalesce(sum(webhook.fan_out_count(gone)), 0)::bigint FROM held"
    ));
    Ok(spilled.bind(from).bind(to).bind(masks).persistent(conn.persistent).fetch_one(&mut *conn.inner).await?)
}

/// Whether some of these share a row.
async fn are_shared(conn: &mut Conn<'_>, from: &[Uuid], to: &[Uuid], masks: &[i64]) -> Result<bool, Fault> {
    let shared = sqlx::query_scalar(concat!(
        "SELECT EXISTS (SELECT 1 FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS i (a, b, mask) ",
        rows_between!("i.a", "i.b", "x.open & i.mask <> 0", ""),
        ")"
    ));
    Ok(shared.bind(from).bind(to).bind(masks).persistent(conn.persistent).fetch_one(&mut *conn.inner).await?)
}

/// Gives all deliveries rows of their own that share one with some to these subscriptions; so many rows were shared.
pub(crate) async fn spill_those_to(conn: &mut Conn<'_>, subscriptions: &[Uuid], limit: u32) -> Result<u64, Fault> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT f.id, f.open FROM webhook.fan_out AS f WHERE f.id IN (
           SELECT f.id FROM webhook.subscription AS s JOIN webhook.fan_out AS f ON f.tenant = s.tenant
           WHERE s.id = ANY ($1) AND f.payload_bytes >= 0 AND position(uuid_send(s.id) IN f.targets) > 0 LIMIT $2
         ) FOR UPDATE OF f SKIP LOCKED",
    )
    .bind(subscriptions)
    .bind(i64::from(limit))
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    let all = |(id, open): &(Uuid, i64)| {
        let (first, open) = (places(*id).0.as_u128(), open.cast_unsigned());
        (0..64).filter(move |bit| open >> bit & 1 == 1).map(move |bit| Uuid::from_u128(first | bit))
    };
    spill(conn, &rows.iter().flat_map(all).collect::<Vec<_>>()).await?;
    Ok(rows.len() as u64)
}

/// Gives deliveries rows of their own whose leases were lost, of these or up to about `limit`: how many, and whether there may
/// be more.
pub(crate) async fn rescue(
    conn: &mut Conn<'_>,
    now: Timestamp,
    which: Over<'_>,
    limit: i64,
) -> Result<(u32, bool), Fault> {
    const OVER: &str = "SELECT id FROM webhook.fan_out WHERE leased AND next_at <= $1 AND next_at >= $3
         ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED";
    const OVER_NAMED: &str = concat!(
        "SELECT f.id FROM unnest($2::uuid[], $3::uuid[]) AS i (a, b) ",
        rows_between!("i.a", "i.b", "x.leased::int = 1 AND x.next_at <= $1", "FOR UPDATE SKIP LOCKED"),
    );
    let (now, limit) = (now.as_millis(), limit / MEMBERS);
    let query = match which {
        Over::Since(floor) => sqlx::query_scalar(OVER).bind(now).bind(limit).bind(floor.as_millis()),
        Over::Among(ids) => {
            let (from, to) = all_places(ids);
            sqlx::query_scalar(OVER_NAMED).bind(now).bind(from).bind(to)
        }
    };
    let over: Vec<Uuid> = query.persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    if over.is_empty() {
        return Ok((0, false));
    }
    let more = over.len() as i64 >= limit;
    let lost = sqlx::query(
        "WITH gone AS (DELETE FROM webhook.fan_out WHERE id = ANY ($1) RETURNING *)
         INSERT INTO webhook.delivery
           (id, tenant, event_id, target_id, subscription_id, next_at, token, lost, payload_bytes, created_at)
         SELECT m.delivery_id, g.tenant, g.event_id, m.target_id, m.target_id, g.next_at, g.token, 1, g.payload_bytes,
           g.created_at
         FROM gone AS g CROSS JOIN LATERAL webhook.fan_out_members(g.id, g.open, g.targets) AS m
         ON CONFLICT DO NOTHING",
    )
    .bind(over)
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok((u32::try_from(lost.rows_affected()).unwrap_or(u32::MAX), more))
}
