//! Keeping the store in order.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use webhook_core::store::{Backlog, MaintenanceStore, PruneRequest, PruneStep};
use webhook_core::{Clock, DeliveryState, EventId, Notifier, Reason, StoreError, SystemClock, Timestamp};

use crate::error::Fault;
use crate::store::SqliteStore;
use crate::{bulk, history, rows};

#[async_trait]
impl MaintenanceStore for SqliteStore {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn notifier(&self) -> Option<Arc<dyn Notifier>> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let query = sqlx::query("SELECT generation FROM webhook_tenant LIMIT 1");
        query.fetch_optional(&mut *self.reader().await?).await.map_err(Fault::from)?;
        Ok(())
    }

    async fn prune(&self, request: PruneRequest) -> Result<PruneStep, StoreError> {
        let weight = 2 * request.limit as usize;
        self.writer.run(weight, request, |conn, request| Box::pin(prune(conn, *request))).await
    }

    async fn cancel_orphans(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let input = (now, limit);
        self.writer.run(limit as usize, input, |conn, (now, limit)| Box::pin(cancel_orphans(conn, *now, *limit))).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) AS pending, count(*) FILTER (WHERE next_at <= ?1 AND leased = 0) AS due,
               min(next_at) FILTER (WHERE next_at <= ?1 AND leased = 0) AS oldest_due
             FROM webhook_delivery INDEXED BY webhook_delivery_due WHERE state = 0",
        )
        .bind(now.as_millis())
        .fetch_one(&mut *self.reader().await?)
        .await
        .map_err(Fault::from)?;
        Ok(Backlog {
            pending: rows::big_count(&row, "pending")?,
            due: rows::big_count(&row, "due")?,
            oldest_due: rows::time_opt(&row, "oldest_due")?,
        })
    }
}

/// A step removes events with about so many deliveries at most.
const DELIVERIES: u32 = 5_000;

async fn prune(conn: &mut SqliteConnection, request: PruneRequest) -> Result<PruneStep, Fault> {
    let PruneRequest { ended_before, now, cursor, limit } = request;
    let more_keys = prune_keys(conn, now, limit).await?;
    let after = cursor.map_or(Vec::new(), |cursor| cursor.as_uuid().as_bytes().to_vec());
    // An event accepted later cannot have ended before.
    let below = EventId::floor(ended_before + history::ID_SLACK);
    let visited = sqlx::query(
        "SELECT e.id, e.deliveries, e.created_at < ?1 AND NOT EXISTS (
           SELECT 1 FROM webhook_delivery AS d WHERE d.event_id = e.id AND (d.state = 0 OR d.completed_at >= ?1)
         ) AS over
         FROM webhook_event AS e WHERE e.id > ?2 AND e.id < ?3 ORDER BY e.id LIMIT ?4",
    )
    .bind(ended_before.as_millis())
    .bind(after)
    .bind(below.as_uuid())
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    let (mut over, mut deliveries, mut seen, mut last) = (Vec::new(), 0, 0, None);
    for row in &visited {
        let id = rows::id(row, "id")?;
        (last, seen) = (Some(EventId::from_uuid(id)), seen + 1);
        if row.try_get("over")? {
            over.push(id);
            deliveries += rows::count(row, "deliveries")?;
            // Other writers wait for this step.
            if deliveries >= DELIVERIES {
                break;
            }
        }
    }
    let events = over.len() as u64;
    if events > 0 {
        delete_events(conn, bulk::hex_list(over)?).await?;
    }
    let more = seen < visited.len() || visited.len() == limit as usize;
    Ok(PruneStep { events, cursor: last.filter(|_| more), more_keys })
}

async fn prune_keys(conn: &mut SqliteConnection, now: Timestamp, limit: u32) -> Result<bool, Fault> {
    let removed = sqlx::query(
        "DELETE FROM webhook_idempotency_key WHERE (tenant, scope, key) IN (
           SELECT tenant, scope, key FROM webhook_idempotency_key WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    )
    .bind(now.as_millis())
    .bind(limit)
    .execute(conn)
    .await?;
    Ok(removed.rows_affected() == u64::from(limit))
}

async fn delete_events(conn: &mut SqliteConnection, ids: String) -> Result<(), Fault> {
    for sql in [
        "DELETE FROM webhook_attempt WHERE delivery_id IN (
           SELECT d.id FROM json_each(?1) AS j CROSS JOIN webhook_delivery AS d ON d.event_id = unhex(j.value))",
        "DELETE FROM webhook_delivery WHERE event_id IN (SELECT unhex(value) FROM json_each(?1))",
        "DELETE FROM webhook_event WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
    ] {
        sqlx::query(sql).bind(ids.clone()).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn cancel_orphans(conn: &mut SqliteConnection, now: Timestamp, limit: u32) -> Result<u64, Fault> {
    let cancelled = sqlx::query(
        "UPDATE webhook_delivery SET state = ?3, reason = ?4, leased = 0, next_at = ?1, completed_at = ?1,
           reopened_state = NULL, reopened_reason = NULL
         WHERE id IN (
           SELECT d.id FROM webhook_subscription AS s INDEXED BY webhook_subscription_deleted
           CROSS JOIN webhook_delivery AS d INDEXED BY webhook_delivery_target ON d.target_id = s.id AND d.state = 0
           WHERE s.deleted_at IS NOT NULL AND s.settled = 0 LIMIT ?2)",
    )
    .bind(now.as_millis())
    .bind(limit)
    .bind(DeliveryState::Cancelled.code())
    .bind(Reason::SubscriptionDeleted.code())
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if cancelled < u64::from(limit) {
        // None are left, and a deleted subscription gets no new ones: they need not be looked at again.
        sqlx::query("UPDATE webhook_subscription SET settled = 1 WHERE deleted_at IS NOT NULL AND settled = 0")
            .execute(conn)
            .await?;
    }
    Ok(cancelled)
}
