//! Figures and the newest activities.

use sqlx::Row;
use webhook_core::store::{Activity, ActivityKind, Stats};
use webhook_core::{DeliveryId, DeliveryState, EventId, SubscriptionId, TenantId, Timestamp};

use crate::error::Fault;
use crate::rows;
use crate::session::Conn;

pub(crate) async fn stats(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: Option<SubscriptionId>,
    since: Timestamp,
) -> Result<Stats, Fault> {
    let mut stats = Stats::default();
    count_subscriptions(conn, tenant, subscription, &mut stats).await?;
    stats.events = count_events(conn, tenant, subscription, since).await?;
    count_deliveries(conn, tenant, subscription, since, &mut stats).await?;
    count_attempts(conn, tenant, subscription, since, &mut stats).await?;
    Ok(stats)
}

/// The first id that a row created at `since` may have.
fn floor(since: Timestamp) -> uuid::Uuid {
    EventId::floor(since - crate::history::ID_SLACK).as_uuid()
}

async fn count_subscriptions(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: Option<SubscriptionId>,
    stats: &mut Stats,
) -> Result<(), Fault> {
    let row = sqlx::query(
        "SELECT count(*) AS present, count(*) FILTER (WHERE disabled_reason IS NULL) AS enabled
         FROM webhook.subscription WHERE tenant = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id = $2)",
    )
    .bind(tenant.as_str())
    .bind(subscription.map(SubscriptionId::as_uuid))
    .persistent(conn.persistent)
    .fetch_one(&mut *conn.inner)
    .await?;
    stats.subscriptions = rows::big_count(&row, "present")?;
    stats.enabled_subscriptions = rows::big_count(&row, "enabled")?;
    Ok(())
}

async fn count_events(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: Option<SubscriptionId>,
    since: Timestamp,
) -> Result<u64, Fault> {
    let sql = match subscription {
        None => {
            "SELECT count(*) AS events FROM webhook.event
             WHERE tenant = $1 AND id >= $2 AND created_at >= $3 AND $4::uuid IS NULL"
        }
        // A delivery is not older than its event.
        Some(_) => {
            "SELECT count(*) AS events FROM webhook.every_delivery AS d JOIN webhook.event AS e ON e.id = d.event_id
             WHERE d.tenant = $1 AND d.subscription_id = $4 AND d.id >= $2 AND e.created_at >= $3"
        }
    };
    let row = sqlx::query(sql)
        .bind(tenant.as_str())
        .bind(floor(since))
        .bind(since.as_millis())
        .bind(subscription.map(SubscriptionId::as_uuid))
        .persistent(conn.persistent)
        .fetch_one(&mut *conn.inner)
        .await?;
    rows::big_count(&row, "events")
}

async fn count_deliveries(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: Option<SubscriptionId>,
    since: Timestamp,
    stats: &mut Stats,
) -> Result<(), Fault> {
    let sql = match subscription {
        None => {
            "SELECT state, count(*) AS deliveries FROM webhook.every_delivery
             WHERE tenant = $1 AND id >= $2 AND created_at >= $3 AND $4::uuid IS NULL GROUP BY state"
        }
        Some(_) => {
            "SELECT state, count(*) AS deliveries FROM webhook.every_delivery
             WHERE tenant = $1 AND subscription_id = $4 AND id >= $2 AND created_at >= $3 GROUP BY state"
        }
    };
    let found = sqlx::query(sql)
        .bind(tenant.as_str())
        .bind(floor(since))
        .bind(since.as_millis())
        .bind(subscription.map(SubscriptionId::as_uuid))
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    stats.deliveries = DeliveryState::ALL.iter().map(|state| (state.as_str(), 0)).collect();
    for row in &found {
        let state = rows::state(row.try_get("state")?)?;
        stats.deliveries.insert(state.as_str(), rows::big_count(row, "deliveries")?);
    }
    Ok(())
}

async fn count_attempts(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    subscription: Option<SubscriptionId>,
    since: Timestamp,
    stats: &mut Stats,
) -> Result<(), Fault> {
    // The indexes hold all that is asked for here, so the attempts themselves are not read.
    let sql = match subscription {
        None => {
            "SELECT duration_ms, count(*) AS attempts, count(error) AS failures FROM webhook.attempt
             WHERE tenant = $1 AND id >= $2 AND started_at >= $3 AND $4::uuid IS NULL
             GROUP BY duration_ms ORDER BY duration_ms"
        }
        Some(_) => {
            "SELECT duration_ms, count(*) AS attempts, count(error) AS failures FROM webhook.attempt
             WHERE subscription_id = $4 AND id >= $2 AND started_at >= $3
               AND EXISTS (SELECT 1 FROM webhook.subscription WHERE id = $4 AND tenant = $1)
             GROUP BY duration_ms ORDER BY duration_ms"
        }
    };
    let found = sqlx::query(sql)
        .bind(tenant.as_str())
        .bind(floor(since))
        .bind(since.as_millis())
        .bind(subscription.map(SubscriptionId::as_uuid))
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    let mut durations = Vec::with_capacity(found.len());
    for row in &found {
        let (attempts, failures) = (rows::big_count(row, "attempts")?, rows::big_count(row, "failures")?);
        stats.failures += failures;
        stats.successes += attempts - failures;
        durations.push((rows::big_count(row, "duration_ms")?, attempts));
    }
    stats.set_percentiles(&durations);
    Ok(())
}

pub(crate) async fn activity(conn: &mut Conn<'_>, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, Fault> {
    let found = sqlx::query(
        "(SELECT 'event' AS what, id, created_at AS at, NULL::uuid AS subscription_id, id AS event_id,
            NULL::uuid AS delivery_id, NULL::smallint AS status_code, false AS failed
          FROM webhook.event WHERE tenant = $1 ORDER BY id DESC LIMIT $2)
         UNION ALL
         (SELECT 'attempt', id, started_at, subscription_id, event_id, delivery_id, status_code, error IS NOT NULL
          FROM webhook.attempt WHERE tenant = $1 ORDER BY id DESC LIMIT $2)
         UNION ALL
         (SELECT 'subscription', id, created_at, id, NULL, NULL, NULL, false
          FROM webhook.subscription WHERE tenant = $1 AND deleted_at IS NULL ORDER BY id DESC LIMIT $2)
         ORDER BY at DESC, id DESC LIMIT $2",
    )
    .bind(tenant.as_str())
    .bind(i64::from(limit))
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    rows::all(&found, |row| {
        let kind = match row.try_get("what")? {
            "event" => ActivityKind::EventAccepted,
            "subscription" => ActivityKind::SubscriptionCreated,
            _ if row.try_get("failed")? => ActivityKind::AttemptFailed,
            _ => ActivityKind::AttemptSucceeded,
        };
        let mut activity = Activity::new(kind, rows::time(row, "at")?);
        activity.subscription_id = rows::id_opt(row, "subscription_id")?.map(SubscriptionId::from_uuid);
        activity.event_id = rows::id_opt(row, "event_id")?.map(EventId::from_uuid);
        activity.delivery_id = rows::id_opt(row, "delivery_id")?.map(DeliveryId::from_uuid);
        activity.status_code = rows::status(row, "status_code")?;
        Ok(activity)
    })
}
