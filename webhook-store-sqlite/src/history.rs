//! Showing what happened, and orders about deliveries.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use webhook_core::store::{
    Activity, AddedDelivery, CancelOutcome, DeliveryFilter, HistoryStore, Page, PageRequest, Position, Recoverable,
    RetryOutcome, Stats,
};
use webhook_core::{
    Attempt, Delivery, DeliveryId, DeliveryState, EventId, Reason, StoreError, SubscriptionId, TenantId, Timestamp,
};

use crate::error::Fault;
use crate::store::SqliteStore;
use crate::{bulk, rows, stats, subscription};

/// Ids are made from the clock shortly before or after `created_at` is; a range of ids this much wider finds the rows
/// of a range of times.
pub(crate) const ID_SLACK: Duration = Duration::from_secs(10);

const DELIVERY: &str = "SELECT d.*, e.event_type, s.disabled_reason IS NOT NULL AND s.deleted_at IS NULL AS disabled
    FROM webhook_delivery AS d
    LEFT JOIN webhook_event AS e ON e.id = d.event_id
    LEFT JOIN webhook_subscription AS s ON s.id = d.subscription_id
    WHERE d.tenant = ";

#[async_trait]
impl HistoryStore for SqliteStore {
    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(DELIVERY);
        query.push_bind(tenant.as_str().to_owned()).push(" AND d.id = ").push_bind(id.as_uuid());
        let found = query.build().fetch_optional(&mut *self.reader().await?).await.map_err(Fault::from)?;
        Ok(found.as_ref().map(rows::delivery).transpose()?)
    }

    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        Ok(list_deliveries(&mut *self.reader().await?, tenant, filter, page).await?)
    }

    async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        let found = sqlx::query("SELECT * FROM webhook_attempt WHERE delivery_id = ?1 AND tenant = ?2 ORDER BY number")
            .bind(delivery.as_uuid())
            .bind(tenant.as_str())
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(Fault::from)?;
        Ok(rows::all(&found, rows::attempt)?)
    }

    async fn list_attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        page: PageRequest,
    ) -> Result<Page<Attempt>, StoreError> {
        Ok(list_attempts(&mut *self.reader().await?, tenant, subscription, page).await?)
    }

    async fn retry(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let input = (tenant.clone(), id, now);
        self.writer.run(1, input, |conn, (tenant, id, now)| Box::pin(retry(conn, tenant, *id, *now))).await
    }

    async fn cancel(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<CancelOutcome, StoreError> {
        let input = (tenant.clone(), id, now);
        self.writer.run(1, input, |conn, (tenant, id, now)| Box::pin(cancel(conn, tenant, *id, *now))).await
    }

    async fn recoverable(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        since: Timestamp,
        until: Timestamp,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Recoverable>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT e.id, e.event_type, d.id AS delivery_id, d.state FROM webhook_event AS e
             LEFT JOIN webhook_delivery AS d ON d.event_id = e.id AND d.target_id = ",
        );
        query.push_bind(subscription.as_uuid());
        query.push(" WHERE e.direct = 0 AND e.tenant = ").push_bind(tenant.as_str().to_owned());
        push_since(&mut query, "e", since);
        push_until(&mut query, "e", until);
        if let Some(after) = after {
            query.push(" AND e.id > ").push_bind(after.as_uuid());
        }
        query.push(" ORDER BY e.id LIMIT ").push_bind(limit);
        let found = query.build().fetch_all(&mut *self.reader().await?).await.map_err(Fault::from)?;
        Ok(rows::all(&found, |row| {
            let delivery = match rows::id_opt(row, "delivery_id")? {
                Some(id) => Some((DeliveryId::from_uuid(id), rows::state(row.try_get("state")?)?)),
                None => None,
            };
            let event = EventId::from_uuid(rows::id(row, "id")?);
            Ok(Recoverable { event, event_type: rows::event_type(row)?, delivery })
        })?)
    }

    async fn add_deliveries(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        deliveries: &[AddedDelivery],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let input = (tenant.clone(), deliveries.to_vec());
        self.writer
            .run(deliveries.len(), input, move |conn, (tenant, added)| {
                Box::pin(add_deliveries(conn, tenant, subscription, added, now))
            })
            .await
    }

    async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, StoreError> {
        Ok(stats::stats(&mut *self.reader().await?, tenant, subscription, since).await?)
    }

    async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, StoreError> {
        Ok(stats::activity(&mut *self.reader().await?, tenant, limit).await?)
    }
}

/// Only what was created from then on, inclusive.
pub(crate) fn push_since(query: &mut QueryBuilder<Sqlite>, alias: &str, since: Timestamp) {
    query.push(format!(" AND {alias}.id >= ")).push_bind(EventId::floor(since - ID_SLACK).as_uuid());
    query.push(format!(" AND {alias}.created_at >= ")).push_bind(since.as_millis());
}

/// Only what was created before then, exclusive.
pub(crate) fn push_until(query: &mut QueryBuilder<Sqlite>, alias: &str, until: Timestamp) {
    query.push(format!(" AND {alias}.id < ")).push_bind(EventId::floor(until + ID_SLACK).as_uuid());
    query.push(format!(" AND {alias}.created_at < ")).push_bind(until.as_millis());
}

/// That page, newest first, and one row more to tell whether another follows.
pub(crate) fn push_page(query: &mut QueryBuilder<Sqlite>, alias: &str, page: PageRequest) {
    if let Position::After(id) = page.position {
        query.push(format!(" AND {alias}.id < ")).push_bind(id);
    }
    query.push(format!(" ORDER BY {alias}.id DESC LIMIT ")).push_bind(i64::from(page.limit) + 1);
    if let Position::Offset(offset) = page.position {
        query.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
    }
}

async fn list_deliveries(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, Fault> {
    let select = |select: &str| {
        let mut query = QueryBuilder::<Sqlite>::new(select);
        query.push_bind(tenant.as_str().to_owned());
        if let Some(state) = filter.state {
            query.push(" AND d.state = ").push_bind(state.code());
            if state != DeliveryState::Delivered {
                // So that the index of all other states is found fit.
                query.push(" AND d.state <> 1");
            }
        }
        if let Some(subscription) = filter.subscription {
            query.push(" AND d.subscription_id = ").push_bind(subscription.as_uuid());
        }
        if let Some(event) = filter.event {
            query.push(" AND d.event_id = ").push_bind(event.as_uuid());
        }
        if let Some(since) = filter.since {
            push_since(&mut query, "d", since);
        }
        query
    };
    let total = match page.position {
        Position::Offset(_) => {
            let mut query = select("SELECT count(*) AS total FROM webhook_delivery AS d WHERE d.tenant = ");
            Some(rows::big_count(&query.build().fetch_one(&mut *conn).await?, "total")?)
        }
        _ => None,
    };
    let mut query = select(DELIVERY);
    push_page(&mut query, "d", page);
    let found = query.build().fetch_all(conn).await?;
    Ok(Page::from_probe(rows::all(&found, rows::delivery)?, page.limit, total))
}

async fn list_attempts(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    subscription: SubscriptionId,
    page: PageRequest,
) -> Result<Page<Attempt>, Fault> {
    let select = |what: &str| {
        let mut query =
            QueryBuilder::<Sqlite>::new(format!("SELECT {what} FROM webhook_attempt AS a WHERE a.subscription_id = "));
        query.push_bind(subscription.as_uuid());
        query.push(" AND a.tenant = ").push_bind(tenant.as_str().to_owned());
        query
    };
    let total = match page.position {
        Position::Offset(_) => {
            Some(rows::big_count(&select("count(*) AS total").build().fetch_one(&mut *conn).await?, "total")?)
        }
        _ => None,
    };
    let mut query = select("a.*");
    push_page(&mut query, "a", page);
    let found = query.build().fetch_all(conn).await?;
    Ok(Page::from_probe(rows::all(&found, rows::attempt)?, page.limit, total))
}

async fn retry(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    id: DeliveryId,
    now: Timestamp,
) -> Result<RetryOutcome, Fault> {
    let found = sqlx::query(
        "SELECT d.state, d.subscription_id, d.leased AND d.next_at > ?3 AS in_flight,
           d.subscription_id IS NOT NULL AND (s.id IS NULL OR s.deleted_at IS NOT NULL) AS gone
         FROM webhook_delivery AS d LEFT JOIN webhook_subscription AS s ON s.id = d.subscription_id
         WHERE d.id = ?1 AND d.tenant = ?2",
    )
    .bind(id.as_uuid())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = found else { return Ok(RetryOutcome::Missing) };
    if row.try_get("gone")? {
        return Ok(RetryOutcome::TargetGone);
    }
    let sql = if rows::state(row.try_get("state")?)? != DeliveryState::Pending {
        "UPDATE webhook_delivery SET reopened_state = state, reopened_reason = reason, state = 0, reason = NULL,
           next_at = ?2, leased = 0, lost = 0, completed_at = NULL WHERE id = ?1"
    } else if row.try_get("in_flight")? {
        return Ok(RetryOutcome::Leased);
    } else {
        "UPDATE webhook_delivery SET next_at = min(next_at, ?2) WHERE id = ?1"
    };
    sqlx::query(sql).bind(id.as_uuid()).bind(now.as_millis()).execute(&mut *conn).await?;
    if let Some(subscription) = rows::id_opt(&row, "subscription_id")? {
        subscription::pause(conn, SubscriptionId::from_uuid(subscription), None).await?;
    }
    Ok(RetryOutcome::Done)
}

async fn cancel(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    id: DeliveryId,
    now: Timestamp,
) -> Result<CancelOutcome, Fault> {
    let cancelled = sqlx::query(
        "UPDATE webhook_delivery SET state = ?4, reason = ?5, leased = 0, next_at = ?3, completed_at = ?3,
           reopened_state = NULL, reopened_reason = NULL
         WHERE id = ?1 AND tenant = ?2 AND state = 0",
    )
    .bind(id.as_uuid())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .bind(DeliveryState::Cancelled.code())
    .bind(Reason::Requested.code())
    .execute(&mut *conn)
    .await?;
    if cancelled.rows_affected() > 0 {
        return Ok(CancelOutcome::Done);
    }
    let exists = sqlx::query("SELECT 1 FROM webhook_delivery WHERE id = ?1 AND tenant = ?2")
        .bind(id.as_uuid())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(if exists.is_some() { CancelOutcome::Finished } else { CancelOutcome::Missing })
}

async fn add_deliveries(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    subscription: SubscriptionId,
    deliveries: &[AddedDelivery],
    now: Timestamp,
) -> Result<u64, Fault> {
    let hex = |added: &AddedDelivery| (bulk::hex(added.id.as_uuid()), bulk::hex(added.event.as_uuid()));
    let added = sqlx::query(
        "INSERT INTO webhook_delivery
           (id, tenant, event_id, target_id, subscription_id, next_at, payload_bytes, created_at)
         SELECT unhex(j.value ->> 0), e.tenant, e.id, ?2, ?2, ?4, length(e.payload), ?4
         FROM json_each(?1) AS j CROSS JOIN webhook_event AS e ON e.id = unhex(j.value ->> 1) AND e.tenant = ?3
         WHERE EXISTS (SELECT 1 FROM webhook_subscription WHERE id = ?2 AND tenant = ?3 AND deleted_at IS NULL)
         ON CONFLICT DO NOTHING",
    )
    .bind(bulk::json(&deliveries.iter().map(hex).collect::<Vec<_>>())?)
    .bind(subscription.as_uuid())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .execute(conn)
    .await?;
    Ok(added.rows_affected())
}
