//! The locks of tenants: those who accept events share one, and who changes subscriptions has it alone.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use sqlx::Executor;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};
use webhook_core::{StoreError, TenantId};

use crate::error::{Fault, is_lock_timeout};
use crate::options::LOCK_TIMEOUT;
use crate::session::Conn;

/// Who changes something stands in line for so long at a time: those who would accept events, of other tenants too in the
/// same batch, wait behind it.
const TURN: &str = "'50ms'";
/// Then they are let through for so long.
const ASIDE: Duration = Duration::from_millis(150);
/// A change gives up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes stand in line with no more than this part of the connections for callers.
const PART: u32 = 10;
const HEADS: usize = 64;

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

/// Waits a moment until nobody accepts events of the tenants, and keeps it so until the transaction ends: what changes
/// then is seen by every event that is accepted afterwards.
pub(crate) async fn lock_all<'a>(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &'a TenantId>,
) -> Result<(), Fault> {
    let query = sqlx::query(
        "SELECT pg_advisory_xact_lock(l.key) FROM (
           SELECT DISTINCT webhook.tenant_lock(t.tenant) AS key FROM unnest($1::text[]) AS t (tenant) ORDER BY 1
         ) AS l",
    );
    let tenants: Vec<_> = tenants.map(TenantId::as_str).collect();
    conn.inner.execute(sqlx::AssertSqlSafe(format!("SET LOCAL lock_timeout = {TURN}"))).await?;
    query.bind(tenants).persistent(conn.persistent).execute(&mut *conn.inner).await?;
    conn.inner.execute(sqlx::AssertSqlSafe(format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT}"))).await?;
    Ok(())
}

/// The same for one tenant, as far as it is the change's turn; false when it is not, and the transaction is of no more use.
pub(crate) async fn lock(conn: &mut Conn<'_>, tenant: &TenantId, turn: Turn) -> Result<bool, Fault> {
    match turn {
        Turn::AtOnce => {
            let sql = "SELECT pg_try_advisory_xact_lock(webhook.tenant_lock($1))";
            let query = sqlx::query_scalar(sql).bind(tenant.as_str()).persistent(conn.persistent);
            Ok(query.fetch_one(&mut *conn.inner).await?)
        }
        Turn::InLine => match lock_all(conn, std::iter::once(tenant)).await {
            Ok(()) => Ok(true),
            Err(Fault::Sql(error)) if is_lock_timeout(&error) => Ok(false),
            Err(fault) => Err(fault),
        },
    }
}

/// How a change waits for its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    /// Not at all.
    AtOnce,
    /// In line, for a moment.
    InLine,
}

/// Who stands in line, of the changes of this process: one of a tenant at a time, and few in all.
#[derive(Debug)]
pub(crate) struct Line {
    /// A tenant's is found by its hash. Two tenants may share one, which costs them nothing but time.
    heads: [Semaphore; HEADS],
    places: Semaphore,
    hasher: RandomState,
}

impl Line {
    /// Beside so many connections.
    pub(crate) fn new(connections: u32) -> Self {
        let places = Semaphore::new((connections / PART).max(1) as usize);
        Self { heads: std::array::from_fn(|_| Semaphore::new(1)), places, hasher: RandomState::new() }
    }

    pub(crate) fn turns(&self, tenant: &TenantId) -> Turns<'_> {
        let head = &self.heads[(self.hasher.hash_one(tenant) % HEADS as u64) as usize];
        Turns { line: self, head, deadline: Instant::now() + PATIENCE, begun: false, first: None, place: None }
    }
}

/// The turns of one change. A host's transaction that emitted an event may keep it waiting for long: then it waits without
/// a connection, and beside the line of those who wait for the lock.
#[derive(Debug)]
pub(crate) struct Turns<'a> {
    line: &'a Line,
    head: &'a Semaphore,
    deadline: Instant,
    begun: bool,
    /// It is the first of its tenant.
    first: Option<SemaphorePermit<'a>>,
    place: Option<SemaphorePermit<'a>>,
}

impl Turns<'_> {
    /// The next one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when there was none in time.
    pub(crate) async fn next(&mut self) -> Result<Turn, StoreError> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(Turn::AtOnce);
        }
        let place = async {
            match self.place.take() {
                Some(place) => {
                    drop(place);
                    sleep(ASIDE).await;
                }
                None => self.first = self.head.acquire().await.ok(),
            }
            self.line.places.acquire().await.ok()
        };
        match timeout_at(self.deadline, place).await {
            Ok(Some(place)) => {
                self.place = Some(place);
                Ok(Turn::InLine)
            }
            _ => Err(StoreError::Unavailable(
                "others have been working with the tenant's subscriptions for too long".into(),
            )),
        }
    }
}
