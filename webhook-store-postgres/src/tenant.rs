//! The locks of tenants: those who accept events share one, and who changes subscriptions has it alone.

use std::time::Duration;

use sqlx::Executor;
use tokio::time::{Instant, sleep};
use webhook_core::TenantId;

use crate::error::{Fault, is_lock_timeout};
use crate::options::LOCK_TIMEOUT;
use crate::session::Conn;

/// A change stands in line for so many milliseconds at a time: those who would accept events, of other tenants too in the
/// same batch, wait behind it.
const TURN: &str = "'100ms'";
/// Then they are let through for so long.
const ASIDE: Duration = Duration::from_millis(50);
/// A change that a caller waits for gives up after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// One that comes again by itself does after this.
pub(crate) const HASTE: Duration = Duration::from_millis(500);

/// Keeps the tenants' subscriptions as they are until the transaction ends. The locks are taken in one order, and the
/// same for each kind, so that nobody waits for somebody who waits for them.
pub(crate) async fn lock_all_shared<'a>(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &'a TenantId>,
) -> Result<(), Fault> {
    let query = sqlx::query(
        "SELECT pg_advisory_xact_lock_shared(l.key) FROM (
           SELECT DISTINCT webhook.tenant_lock(t.tenant) AS key FROM unnest($1::text[]) AS t (tenant) ORDER BY 1
         ) AS l",
    );
    let tenants: Vec<_> = tenants.map(TenantId::as_str).collect();
    query.bind(tenants).persistent(conn.persistent).execute(&mut *conn.inner).await?;
    Ok(())
}

/// Keeps the tenant's subscriptions as they are until the transaction ends.
pub(crate) async fn lock_shared(conn: &mut Conn<'_>, tenant: &TenantId) -> Result<(), Fault> {
    let sql = "SELECT pg_advisory_xact_lock_shared(webhook.tenant_lock($1))";
    sqlx::query(sql).bind(tenant.as_str()).persistent(conn.persistent).execute(&mut *conn.inner).await?;
    Ok(())
}

/// Waits until nobody accepts events of the tenants, and keeps it so until the transaction ends: what changes then is
/// seen by every event that is accepted afterwards.
///
/// A host's transaction that emitted an event may keep a change waiting for long. It waits beside the line then, and
/// stands in it only for a moment at a time.
pub(crate) async fn lock_all<'a>(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &'a TenantId>,
    patience: Duration,
) -> Result<(), Fault> {
    let deadline = Instant::now() + patience;
    let keys = "SELECT DISTINCT webhook.tenant_lock(t.tenant) AS key FROM unnest($1::text[]) AS t (tenant) ORDER BY 1";
    let tenants: Vec<_> = tenants.map(TenantId::as_str).collect();
    let keys = sqlx::query_scalar(keys).bind(tenants).persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    for key in keys {
        take(conn, key, deadline).await?;
    }
    Ok(())
}

/// [`lock_all`] for one tenant, as patient as a caller is.
pub(crate) async fn lock(conn: &mut Conn<'_>, tenant: &TenantId) -> Result<(), Fault> {
    lock_all(conn, std::iter::once(tenant), PATIENCE).await
}

async fn take(conn: &mut Conn<'_>, key: i64, deadline: Instant) -> Result<(), Fault> {
    let sql = "SELECT pg_try_advisory_xact_lock($1)";
    if sqlx::query_scalar(sql).bind(key).persistent(conn.persistent).fetch_one(&mut *conn.inner).await? {
        return Ok(());
    }
    loop {
        conn.inner.execute(sqlx::AssertSqlSafe(format!("SAVEPOINT line; SET LOCAL lock_timeout = {TURN}"))).await?;
        let sql = "SELECT pg_advisory_xact_lock($1)";
        match sqlx::query(sql).bind(key).persistent(conn.persistent).execute(&mut *conn.inner).await {
            Ok(_) => break,
            Err(error) if is_lock_timeout(&error) && Instant::now() < deadline => {
                // The limit that was set is gone with it.
                conn.inner.execute("ROLLBACK TO line").await?;
                sleep(ASIDE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    conn.inner.execute(sqlx::AssertSqlSafe(format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT}"))).await?;
    Ok(())
}
