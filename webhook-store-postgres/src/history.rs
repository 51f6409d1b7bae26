//! Showing what happened, and orders about deliveries.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder, Row};
use webhook_core::store::{
    Activity, AddedDelivery, CancelOutcome, DeliveryFilter, HistoryStore, Page, PageRequest, Position, Recoverable,
    RetryOutcome, Stats,
};
use webhook_core::{
    Attempt, Delivery, DeliveryId, DeliveryState, EventId, Reason, StoreError, SubscriptionId, TenantId, Timestamp,
};

use crate::error::Fault;
use crate::session::Conn;
use crate::store::PostgresStore;
use crate::{fan_out, rows, stats, subscription, tenant};

/// Ids are made from the clock shortly before or after `created_at` is; a range of ids this much wider finds the rows
/// of a range of times.
pub(crate) const ID_SLACK: Duration = Duration::from_secs(10);

/// What a delivery `d` is shown with.
const SHOWN: &str =
    "SELECT d.*, e.event_type, s.disabled_reason IS NOT NULL AND s.deleted_at IS NULL AS disabled FROM ";
const WITH: &str = " AS d LEFT JOIN webhook.event AS e ON e.id = d.event_id
    LEFT JOIN webhook.subscription AS s ON s.id = d.subscription_id";

/// Of a delivery in a row of its own, and of one that shares a row: what is shown of them.
const OWN: &str = "SELECT d.id, d.tenant, d.event_id, d.subscription_id, d.next_at, d.leased, d.created_at, d.attempts,
    d.lost, d.last_attempt_at, d.completed_at, d.state, d.reason, d.last_status, d.last_error
    FROM webhook.delivery AS d WHERE d.tenant = ";
const SHARED: &str = "SELECT m.delivery_id, f.tenant, f.event_id, m.target_id, f.next_at, f.leased, f.created_at, 0, 0,
    NULL::bigint, NULL::bigint, 0::smallint, NULL::smallint, NULL::smallint, NULL::text
    FROM (SELECT f.* FROM webhook.fan_out AS f WHERE f.payload_bytes >= 0 AND f.tenant = ";
const MEMBERS: &str = ") AS f CROSS JOIN LATERAL webhook.fan_out_members(f.id, f.open, f.targets) AS m WHERE true";

#[async_trait]
impl HistoryStore for PostgresStore {
    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let mut session = self.reader().await?;
        let done = find_delivery(&mut session.conn(), tenant, id).await;
        self.end(session, done).await
    }

    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let mut session = self.reader().await?;
        let done = list_deliveries(&mut session.conn(), tenant, filter, page).await;
        self.end(session, done).await
    }

    async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        let mut session = self.reader().await?;
        let done = attempts_of(&mut session.conn(), tenant, delivery).await;
        self.end(session, done).await
    }

    async fn list_attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        page: PageRequest,
    ) -> Result<Page<Attempt>, StoreError> {
        let mut session = self.reader().await?;
        let done = list_attempts(&mut session.conn(), tenant, subscription, page).await;
        self.end(session, done).await
    }

    async fn retry(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, StoreError> {
        let mut session = self.writer().await?;
        let done = retry(&mut session.conn(), tenant, id, now).await;
        self.end(session, done).await
    }

    async fn cancel(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<CancelOutcome, StoreError> {
        let mut session = self.writer().await?;
        let done = cancel(&mut session.conn(), tenant, id, now).await;
        self.end(session, done).await
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
        let mut session = self.reader().await?;
        let done = recoverable(&mut session.conn(), tenant, subscription, (since, until), after, limit).await;
        self.end(session, done).await
    }

    async fn add_deliveries(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        deliveries: &[AddedDelivery],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut session = self.writer().await?;
        let done = add_deliveries(&mut session.conn(), tenant, subscription, deliveries, now).await;
        self.end(session, done).await
    }

    async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, StoreError> {
        let mut session = self.reader().await?;
        let done = stats::stats(&mut session.conn(), tenant, subscription, since).await;
        self.end(session, done).await
    }

    async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, StoreError> {
        let mut session = self.reader().await?;
        let done = stats::activity(&mut session.conn(), tenant, limit).await;
        self.end(session, done).await
    }
}

/// Only what was created from then on, inclusive.
pub(crate) fn push_since(query: &mut QueryBuilder<Postgres>, alias: &str, since: Timestamp) {
    query.push(format!(" AND {alias}.id >= ")).push_bind(EventId::floor(since - ID_SLACK).as_uuid());
    query.push(format!(" AND {alias}.created_at >= ")).push_bind(since.as_millis());
}

/// Only what was created before then, exclusive.
pub(crate) fn push_until(query: &mut QueryBuilder<Postgres>, alias: &str, until: Timestamp) {
    query.push(format!(" AND {alias}.id < ")).push_bind(EventId::floor(until + ID_SLACK).as_uuid());
    query.push(format!(" AND {alias}.created_at < ")).push_bind(until.as_millis());
}

/// That page, newest first, and one row more to tell whether another follows.
pub(crate) fn push_page(query: &mut QueryBuilder<Postgres>, alias: &str, page: PageRequest) {
    if let Position::After(id) = page.position {
        query.push(format!(" AND {alias}.id < ")).push_bind(id);
    }
    query.push(format!(" ORDER BY {alias}.id DESC LIMIT ")).push_bind(i64::from(page.limit) + 1);
    if let Position::Offset(offset) = page.position {
        query.push(" OFFSET ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
    }
}

async fn find_delivery(conn: &mut Conn<'_>, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, Fault> {
    let (from, to) = fan_out::places(id.as_uuid());
    let mut query = QueryBuilder::<Postgres>::new(SHOWN);
    query.push("webhook.every_delivery").push(WITH);
    query.push(" WHERE d.tenant = ").push_bind(tenant.as_str().to_owned());
    query.push(" AND d.id = ").push_bind(id.as_uuid());
    query.push(" AND d.place >= ").push_bind(from).push(" AND d.place <= ").push_bind(to);
    let found = query.build().persistent(conn.persistent).fetch_optional(&mut *conn.inner).await?;
    found.as_ref().map(rows::delivery).transpose()
}

async fn list_deliveries(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, Fault> {
    let (offset, total) = match page.position {
        Position::Offset(offset) => (offset, Some(count_deliveries(conn, tenant, filter).await?)),
        _ => (0, None),
    };
    let (offset, limit) = (i64::try_from(offset).unwrap_or(i64::MAX), i64::from(page.limit) + 1);
    let (below, enough) = (page.position, offset.saturating_add(limit));
    let mut query = QueryBuilder::<Postgres>::new(SHOWN);
    query.push("((");
    push_own(&mut query, tenant, filter, below, enough);
    if filter.state.is_none_or(|state| state == DeliveryState::Pending) {
        query.push(") UNION ALL (");
        push_shared(&mut query, tenant, filter, below, enough);
    }
    query.push("))").push(WITH).push(" ORDER BY d.id DESC LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    Ok(Page::from_probe(rows::all(&found, rows::delivery)?, page.limit, total))
}

async fn count_deliveries(conn: &mut Conn<'_>, tenant: &TenantId, filter: &DeliveryFilter) -> Result<u64, Fault> {
    let mut query =
        QueryBuilder::<Postgres>::new("SELECT count(*) AS total FROM webhook.every_delivery AS d WHERE d.tenant = ");
    query.push_bind(tenant.as_str().to_owned());
    push_filter(&mut query, filter);
    rows::big_count(&query.build().persistent(conn.persistent).fetch_one(&mut *conn.inner).await?, "total")
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &DeliveryFilter) {
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
        push_since(query, "d", since);
    }
}

/// The newest deliveries that have rows of their own.
fn push_own(
    query: &mut QueryBuilder<Postgres>,
    tenant: &TenantId,
    filter: &DeliveryFilter,
    position: Position,
    limit: i64,
) {
    query.push(OWN).push_bind(tenant.as_str().to_owned());
    push_filter(query, filter);
    if let Position::After(id) = position {
        query.push(" AND d.id < ").push_bind(id);
    }
    query.push(" ORDER BY d.id DESC LIMIT ").push_bind(limit);
}

/// The newest deliveries that share rows. Each row that is looked at has one of them at least, but for those with ids
/// around where the page begins and ends.
fn push_shared(
    query: &mut QueryBuilder<Postgres>,
    tenant: &TenantId,
    filter: &DeliveryFilter,
    position: Position,
    limit: i64,
) {
    query.push(SHARED).push_bind(tenant.as_str().to_owned());
    if let Position::After(id) = position {
        query.push(" AND f.id < ").push_bind(id);
    }
    if let Some(event) = filter.event {
        query.push(" AND f.event_id = ").push_bind(event.as_uuid());
    }
    if let Some(since) = filter.since {
        query.push(" AND f.created_at >= ").push_bind(since.as_millis());
    }
    if let Some(subscription) = filter.subscription {
        fan_out::push_goes_to(query, subscription.as_uuid());
    }
    query.push(" ORDER BY f.id DESC LIMIT ").push_bind(limit.saturating_add(2 * fan_out::MEMBERS)).push(MEMBERS);
    if let Position::After(id) = position {
        query.push(" AND m.delivery_id < ").push_bind(id);
    }
    if let Some(subscription) = filter.subscription {
        query.push(" AND m.target_id = ").push_bind(subscription.as_uuid());
    }
    query.push(" ORDER BY m.delivery_id DESC LIMIT ").push_bind(limit);
}

async fn attempts_of(conn: &mut Conn<'_>, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, Fault> {
    let found = sqlx::query("SELECT * FROM webhook.attempt WHERE delivery_id = $1 AND tenant = $2 ORDER BY number")
        .bind(delivery.as_uuid())
        .bind(tenant.as_str())
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    rows::all(&found, rows::attempt)
}

async fn list_attempts(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: SubscriptionId,
    page: PageRequest,
) -> Result<Page<Attempt>, Fault> {
    let select = |what: &str| {
        let mut query = QueryBuilder::<Postgres>::new(format!(
            "SELECT {what} FROM webhook.attempt AS a WHERE a.subscription_id = "
        ));
        query.push_bind(subscription.as_uuid());
        query.push(" AND a.tenant = ").push_bind(tenant.as_str().to_owned());
        query
    };
    let total = match page.position {
        Position::Offset(_) => Some(rows::big_count(
            &select("count(*) AS total").build().persistent(conn.persistent).fetch_one(&mut *conn.inner).await?,
            "total",
        )?),
        _ => None,
    };
    let mut query = select("a.*");
    push_page(&mut query, "a", page);
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    Ok(Page::from_probe(rows::all(&found, rows::attempt)?, page.limit, total))
}

async fn recoverable(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: SubscriptionId,
    (since, until): (Timestamp, Timestamp),
    after: Option<EventId>,
    limit: u32,
) -> Result<Vec<Recoverable>, Fault> {
    let mut query = QueryBuilder::<Postgres>::new(
        "SELECT e.id, e.event_type, d.id AS delivery_id, d.state FROM webhook.event AS e
         LEFT JOIN LATERAL (
           SELECT d.id, d.state FROM webhook.delivery AS d WHERE d.event_id = e.id AND d.target_id = ",
    );
    query.push_bind(subscription.as_uuid());
    query.push(
        " UNION ALL
           SELECT m.delivery_id, 0::smallint FROM webhook.fan_out AS f
           CROSS JOIN LATERAL webhook.fan_out_members(f.id, f.open, f.targets) AS m
           WHERE f.event_id = e.id AND m.target_id = ",
    );
    query.push_bind(subscription.as_uuid());
    query.push(" LIMIT 1) AS d ON true WHERE NOT e.direct AND e.tenant = ").push_bind(tenant.as_str().to_owned());
    push_since(&mut query, "e", since);
    push_until(&mut query, "e", until);
    if let Some(after) = after {
        query.push(" AND e.id > ").push_bind(after.as_uuid());
    }
    query.push(" ORDER BY e.id LIMIT ").push_bind(i64::from(limit));
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    rows::all(&found, |row| {
        let delivery = match rows::id_opt(row, "delivery_id")? {
            Some(id) => Some((DeliveryId::from_uuid(id), rows::state(row.try_get("state")?)?)),
            None => None,
        };
        let event = EventId::from_uuid(rows::id(row, "id")?);
        Ok(Recoverable { event, event_type: rows::event_type(row)?, delivery })
    })
}

async fn retry(conn: &mut Conn<'_>, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, Fault> {
    // The subscription cannot be deleted, and settled, before this commits.
    tenant::lock_shared(conn, tenant).await?;
    fan_out::spill(conn, &[id.as_uuid()]).await?;
    let found = sqlx::query(
        "SELECT d.state, d.subscription_id, d.leased AND d.next_at > $3 AS in_flight,
           d.subscription_id IS NOT NULL AND (s.id IS NULL OR s.deleted_at IS NOT NULL) AS gone
         FROM webhook.delivery AS d LEFT JOIN webhook.subscription AS s ON s.id = d.subscription_id
         WHERE d.id = $1 AND d.tenant = $2 FOR UPDATE OF d",
    )
    .bind(id.as_uuid())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .persistent(conn.persistent)
    .fetch_optional(&mut *conn.inner)
    .await?;
    let Some(row) = found else { return Ok(RetryOutcome::Missing) };
    if row.try_get("gone")? {
        return Ok(RetryOutcome::TargetGone);
    }
    let sql = if rows::state(row.try_get("state")?)? != DeliveryState::Pending {
        "UPDATE webhook.delivery SET reopened_state = state, reopened_reason = reason, state = 0::smallint, reason = NULL,
           next_at = $2, leased = false, lost = 0, completed_at = NULL WHERE id = $1"
    } else if row.try_get("in_flight")? {
        return Ok(RetryOutcome::Leased);
    } else {
        "UPDATE webhook.delivery SET next_at = least(next_at, $2) WHERE id = $1"
    };
    sqlx::query(sql)
        .bind(id.as_uuid())
        .bind(now.as_millis())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    if let Some(subscription) = rows::id_opt(&row, "subscription_id")? {
        subscription::pause(conn, SubscriptionId::from_uuid(subscription), None).await?;
    }
    Ok(RetryOutcome::Done)
}

async fn cancel(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    id: DeliveryId,
    now: Timestamp,
) -> Result<CancelOutcome, Fault> {
    fan_out::spill(conn, &[id.as_uuid()]).await?;
    let cancelled = sqlx::query(
        "UPDATE webhook.delivery SET state = $4, reason = $5, leased = false, next_at = $3, completed_at = $3,
           reopened_state = NULL, reopened_reason = NULL
         WHERE id = $1 AND tenant = $2 AND state = 0",
    )
    .bind(id.as_uuid())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .bind(DeliveryState::Cancelled.code())
    .bind(Reason::Requested.code())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    if cancelled.rows_affected() > 0 {
        return Ok(CancelOutcome::Done);
    }
    let exists = sqlx::query("SELECT 1 FROM webhook.delivery WHERE id = $1 AND tenant = $2")
        .bind(id.as_uuid())
        .bind(tenant.as_str())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
    Ok(if exists.is_some() { CancelOutcome::Finished } else { CancelOutcome::Missing })
}

async fn add_deliveries(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: SubscriptionId,
    deliveries: &[AddedDelivery],
    now: Timestamp,
) -> Result<u64, Fault> {
    // The subscription cannot be deleted, nor the events pruned, before this commits.
    tenant::lock_shared(conn, tenant).await?;
    sqlx::query("SELECT 1 FROM webhook.event WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE")
        .bind(deliveries.iter().map(|added| added.event.as_uuid()).collect::<Vec<_>>())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    let added = sqlx::query(
        "INSERT INTO webhook.delivery
           (id, tenant, event_id, target_id, subscription_id, next_at, payload_bytes, created_at)
         SELECT j.id, e.tenant, e.id, s.id, s.id, $5, octet_length(e.payload), $5
         FROM unnest($1::uuid[], $2::uuid[]) AS j (id, event_id)
         JOIN webhook.event AS e ON e.id = j.event_id AND e.tenant = $4
         JOIN webhook.subscription AS s ON s.id = $3 AND s.tenant = $4 AND s.deleted_at IS NULL
         WHERE NOT EXISTS (
           SELECT 1 FROM webhook.fan_out AS f
           CROSS JOIN LATERAL webhook.fan_out_members(f.id, f.open, f.targets) AS m
           WHERE f.event_id = e.id AND m.target_id = s.id
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(deliveries.iter().map(|added| added.id.as_uuid()).collect::<Vec<_>>())
    .bind(deliveries.iter().map(|added| added.event.as_uuid()).collect::<Vec<_>>())
    .bind(subscription.as_uuid())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(added.rows_affected())
}
