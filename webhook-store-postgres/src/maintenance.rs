//! Keeping the store in order.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Row;
use uuid::Uuid;
use webhook_core::store::{Backlog, MaintenanceStore, PruneRequest, PruneStep};
use webhook_core::{Clock, DeliveryState, EventId, Notifier, Reason, StoreError, Timestamp};

use crate::error::Fault;
use crate::notifier::PostgresNotifier;
use crate::session::{Begin, Conn};
use crate::store::PostgresStore;
use crate::{fan_out, history, rows};

/// Deliveries are counted up to so many of each kind.
const COUNTED: i64 = 1_000_000;
/// A step removes events with about so many deliveries at most.
const DELIVERIES: u32 = 5_000;
/// It looks at events with about so many at most.
const VISITED_DELIVERIES: i64 = 50_000;
/// Deleted subscriptions that are looked at in one transaction.
const ORPHANED: usize = 8;

#[async_trait]
impl MaintenanceStore for PostgresStore {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn notifier(&self) -> Option<Arc<dyn Notifier>> {
        let notifier = || Arc::new(PostgresNotifier::new(self.pool().clone())) as Arc<dyn Notifier>;
        self.options.notify.then(notifier)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let mut session = self.reader().await?;
        let answer = ping(&mut session.conn()).await;
        match self.end(session, answer).await? {
            true => Err(self.read_only()),
            false => Ok(()),
        }
    }

    async fn prune(&self, request: PruneRequest) -> Result<PruneStep, StoreError> {
        let mut session = self.worker_writer(Begin::Relaxed).await?;
        let step = prune(&mut session.conn(), request).await;
        self.end(session, step).await
    }

    async fn cancel_orphans(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        // Few subscriptions in one transaction: for each all shared rows of its tenant are gone through.
        let (mut cancelled, mut after) = (0, Some(Uuid::nil()));
        while let Some(last) = after
            && cancelled < u64::from(limit)
        {
            let rest = limit.saturating_sub(u32::try_from(cancelled).unwrap_or(u32::MAX));
            let mut session = self.worker_writer(Begin::Durable).await?;
            let step = cancel_orphans(&mut session.conn(), now, last, rest).await;
            let (count, next) = self.end(session, step).await?;
            cancelled += count;
            after = next;
        }
        Ok(cancelled)
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        let mut session = self.worker_reader().await?;
        let backlog = backlog(&mut session.conn(), now).await;
        self.end(session, backlog).await
    }
}

/// Whether it can only be read.
async fn ping(conn: &mut Conn<'_>) -> Result<bool, Fault> {
    let sql =
        "SELECT current_setting('transaction_read_only')::boolean, (SELECT generation FROM webhook.tenant LIMIT 1)";
    let row = sqlx::query(sql).persistent(conn.persistent).fetch_one(&mut *conn.inner).await?;
    Ok(row.try_get(0)?)
}

/// Counted as far as [`COUNTED`]: to count all of a backlog of many millions would take longer than it stays true.
async fn backlog(conn: &mut Conn<'_>, now: Timestamp) -> Result<Backlog, Fault> {
    let row = sqlx::query(
        "SELECT
           (SELECT count(*) FROM (SELECT 1 FROM webhook.delivery
              WHERE state = 0 AND NOT leased AND next_at >= 0 AND next_at <= $1 LIMIT $2) AS d) AS due,
           (SELECT count(*) FROM (SELECT 1 FROM webhook.delivery
              WHERE state = 0 AND NOT leased AND next_at >= 0 AND next_at > $1 LIMIT $2) AS d) AS later,
           (SELECT count(*) FROM (SELECT 1 FROM webhook.delivery WHERE state = 0 AND leased LIMIT $2) AS d) AS leased,
           (SELECT coalesce(sum(webhook.fan_out_count(open)), 0)::bigint FROM (SELECT open FROM webhook.fan_out
              WHERE NOT leased AND next_at >= 0 AND next_at <= $1 LIMIT $3) AS f) AS shared_due,
           (SELECT coalesce(sum(webhook.fan_out_count(open)), 0)::bigint FROM (SELECT open FROM webhook.fan_out
              WHERE NOT leased AND next_at >= 0 AND next_at > $1 LIMIT $3) AS f) AS shared_later,
           (SELECT coalesce(sum(webhook.fan_out_count(open)), 0)::bigint FROM (SELECT open FROM webhook.fan_out
              WHERE leased LIMIT $3) AS f) AS shared_leased,
           least(
             (SELECT next_at FROM webhook.delivery
                WHERE state = 0 AND NOT leased AND next_at >= 0 AND next_at <= $1 ORDER BY next_at LIMIT 1),
             (SELECT next_at FROM webhook.fan_out
                WHERE NOT leased AND next_at >= 0 AND next_at <= $1 ORDER BY next_at LIMIT 1)
           ) AS oldest_due",
    )
    .bind(now.as_millis())
    .bind(COUNTED)
    .bind(COUNTED / fan_out::MEMBERS)
    .persistent(conn.persistent)
    .fetch_one(&mut *conn.inner)
    .await?;
    let count = |column| rows::big_count(&row, column);
    let due = count("due")? + count("shared_due")?;
    let (own, shared) = (count("later")? + count("leased")?, count("shared_later")? + count("shared_leased")?);
    Ok(Backlog { pending: due + own + shared, due, oldest_due: rows::time_opt(&row, "oldest_due")? })
}

async fn prune(conn: &mut Conn<'_>, request: PruneRequest) -> Result<PruneStep, Fault> {
    // One process prunes at a time; the others have nothing to do.
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('webhook.prune', 0))")
        .persistent(conn.persistent)
        .fetch_one(&mut *conn.inner)
        .await?;
    if !alone {
        return Ok(PruneStep::default());
    }
    let PruneRequest { ended_before, now, cursor, limit } = request;
    let more_keys = prune_keys(conn, now, limit).await?;
    // An event accepted later cannot have ended before.
    let below = EventId::floor(ended_before + history::ID_SLACK);
    let visited = sqlx::query(
        "SELECT e.id, e.deliveries, e.among, e.created_at < $1 AND NOT EXISTS (
           SELECT 1 FROM webhook.delivery AS d WHERE d.event_id = e.id AND (d.state = 0 OR d.completed_at >= $1)
         ) AND NOT EXISTS (SELECT 1 FROM webhook.fan_out AS f WHERE f.event_id = e.id) AS over
         FROM (
           SELECT i.*, sum(i.deliveries) OVER (ORDER BY i.id) - i.deliveries AS before, count(*) OVER () AS among FROM (
             SELECT id, deliveries, created_at FROM webhook.event WHERE id > $2 AND id < $3 ORDER BY id LIMIT $4
           ) AS i
         ) AS e WHERE e.before < $5 ORDER BY e.id",
    )
    .bind(ended_before.as_millis())
    .bind(cursor.map_or(Uuid::nil(), EventId::as_uuid))
    .bind(below.as_uuid())
    .bind(i64::from(limit))
    .bind(VISITED_DELIVERIES)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    let (mut over, mut deliveries, mut seen, mut among, mut last) = (Vec::new(), 0, 0, 0, None);
    for row in &visited {
        let id = rows::id(row, "id")?;
        among = rows::big_count(row, "among")?;
        (last, seen) = (Some(EventId::from_uuid(id)), seen + 1);
        if row.try_get("over")? {
            over.push(id);
            deliveries += rows::count(row, "deliveries")?;
            // A transaction that takes long keeps what others delete from being cleared away.
            if deliveries >= DELIVERIES {
                break;
            }
        }
    }
    let events = delete_events(conn, over, ended_before).await?;
    let more = seen < among || among == u64::from(limit);
    Ok(PruneStep { events, cursor: last.filter(|_| more), more_keys })
}

async fn prune_keys(conn: &mut Conn<'_>, now: Timestamp, limit: u32) -> Result<bool, Fault> {
    let removed = sqlx::query(
        "DELETE FROM webhook.idempotency_key WHERE (tenant, scope, key) IN (
           SELECT tenant, scope, key FROM webhook.idempotency_key WHERE expires_at <= $1
           ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(now.as_millis())
    .bind(i64::from(limit))
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(removed.rows_affected() == u64::from(limit))
}

/// Deletes these events, but for those whose deliveries were opened again or added to meanwhile; how many went.
async fn delete_events(conn: &mut Conn<'_>, mut ids: Vec<Uuid>, ended_before: Timestamp) -> Result<u64, Fault> {
    if ids.is_empty() {
        return Ok(0);
    }
    // Whoever adds deliveries to them waits, and then finds them gone.
    sqlx::query("SELECT 1 FROM webhook.event WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
        .bind(&ids)
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    let found = sqlx::query(
        "SELECT event_id, state = 0 OR completed_at >= $2 AS alive FROM webhook.delivery
         WHERE event_id = ANY ($1) ORDER BY id FOR UPDATE",
    )
    .bind(&ids)
    .bind(ended_before.as_millis())
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    let shared: Vec<Uuid> = sqlx::query_scalar("SELECT event_id FROM webhook.fan_out WHERE event_id = ANY ($1)")
        .bind(&ids)
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    let mut alive: HashSet<Uuid> = shared.into_iter().collect();
    for row in &found {
        if row.try_get("alive")? {
            alive.insert(rows::id(row, "event_id")?);
        }
    }
    ids.retain(|id| !alive.contains(id));
    for sql in [
        "DELETE FROM webhook.attempt WHERE delivery_id IN (SELECT id FROM webhook.delivery WHERE event_id = ANY ($1))",
        "DELETE FROM webhook.delivery WHERE event_id = ANY ($1)",
        "DELETE FROM webhook.event WHERE id = ANY ($1)",
    ] {
        sqlx::query(sql).bind(&ids).persistent(conn.persistent).execute(&mut *conn.inner).await?;
    }
    Ok(ids.len() as u64)
}

/// Cancels what waits for the next few deleted subscriptions: how much, and after which subscription to go on.
async fn cancel_orphans(
    conn: &mut Conn<'_>,
    now: Timestamp,
    after: Uuid,
    limit: u32,
) -> Result<(u64, Option<Uuid>), Fault> {
    let deleted: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM webhook.subscription WHERE deleted_at IS NOT NULL AND NOT settled AND id > $1
         ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(ORPHANED as i64)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    if deleted.is_empty() {
        return Ok((0, None));
    }
    let shared = fan_out::spill_those_to(conn, &deleted, limit).await?;
    let cancelled = sqlx::query(
        "WITH waiting AS MATERIALIZED (
           SELECT d.id FROM unnest($3::uuid[]) AS s (id)
           JOIN webhook.delivery AS d ON d.target_id = s.id AND d.state = 0 AND NOT d.leased
           LIMIT $2 FOR UPDATE OF d SKIP LOCKED
         ), leased AS MATERIALIZED (
           SELECT d.id FROM webhook.delivery AS d WHERE d.state = 0 AND d.leased AND d.target_id = ANY ($3)
           LIMIT $2 FOR UPDATE OF d SKIP LOCKED
         )
         UPDATE webhook.delivery SET state = $4, reason = $5, leased = false, next_at = $1, completed_at = $1,
           reopened_state = NULL, reopened_reason = NULL
         WHERE id IN (SELECT id FROM waiting UNION ALL SELECT id FROM leased LIMIT $2)",
    )
    .bind(now.as_millis())
    .bind(i64::from(limit))
    .bind(&deleted)
    .bind(DeliveryState::Cancelled.code())
    .bind(Reason::SubscriptionDeleted.code())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?
    .rows_affected();
    if cancelled < u64::from(limit) && shared < u64::from(limit) {
        // A deleted subscription gets no new deliveries: where none is left, it need not be looked at again. A trigger
        // leaves out those for which something waits.
        sqlx::query("UPDATE webhook.subscription SET settled = true WHERE id = ANY ($1)")
            .bind(&deleted)
            .persistent(conn.persistent)
            .execute(&mut *conn.inner)
            .await?;
    }
    Ok((cancelled, deleted.last().copied().filter(|_| deleted.len() >= ORPHANED)))
}
