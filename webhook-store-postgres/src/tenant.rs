//! The locks of tenants: those who accept events share one, and who changes subscriptions has it alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Executor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};
use webhook_core::{StoreError, TenantId};

use crate::error::{Fault, is_lock_timeout};
use crate::options::LOCK_TIMEOUT;
use crate::session::Conn;

/// Who changes something stands in line for so long at a time: those who would accept events, of other tenants too in the
/// same batch, wait behind it.
const FIRST_TURN: Duration = Duration::from_millis(50);
/// Each turn that was too short for those in front to end makes the next twice as long, this often: where hosts'
/// transactions follow each other without a gap, one that is longer than each of them gets the lock.
const DOUBLED: u32 = 5;
/// Between its turns others are let through for so many times as long as the next one.
const ASIDE: u32 = 2;
/// A change gives up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes stand in line with no more than this part of the connections for callers.
const PART: u32 = 10;
/// Heads that nobody holds are forgotten when there are so many.
const CROWD: usize = 1024;

/// Takes a lock for each tenant's key.
macro_rules! keys_in_order {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            $lock,
            " FROM (
               SELECT DISTINCT webhook.tenant_lock(t.tenant) AS key FROM unnest($1::text[]) AS t (tenant) ORDER BY 1
             ) AS l"
        )
    };
}

/// Keeps the tenants' subscriptions as they are until the transaction ends. The locks are taken in one order, and the
/// same for each kind, so that nobody waits for somebody who waits for them.
pub(crate) async fn lock_all_shared<'a>(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &'a TenantId>,
) -> Result<(), Fault> {
    take(conn, keys_in_order!("pg_advisory_xact_lock_shared(l.key)"), tenants).await
}

/// Keeps the tenant's subscriptions as they are until the transaction ends.
pub(crate) async fn lock_shared(conn: &mut Conn<'_>, tenant: &TenantId) -> Result<(), Fault> {
    let sql = "SELECT pg_advisory_xact_lock_shared(webhook.tenant_lock($1))";
    sqlx::query(sql).bind(tenant.as_str()).persistent(conn.persistent).execute(&mut *conn.inner).await?;
    Ok(())
}

/// Waits until nobody accepts events of the tenants, and keeps it so until the transaction ends: what changes then is seen
/// by every event that is accepted afterwards. It waits no longer than their turn is.
pub(crate) async fn lock_all<'a>(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &'a TenantId> + Clone,
    line: &Line,
) -> Result<(), Fault> {
    let heads: Vec<_> = tenants.clone().map(|tenant| line.head(tenant)).collect();
    let turn = heads.iter().map(|head| head.turn()).max().unwrap_or(FIRST_TURN);
    let locked = stand(conn, tenants, turn).await;
    match &locked {
        Ok(()) => heads.iter().for_each(|head| head.had()),
        Err(fault) if is_over(fault) => heads.iter().for_each(|head| head.missed()),
        Err(_) => {}
    }
    locked
}

/// The same for one tenant, as far as it is the change's turn; false when it is not, and the transaction is of no more use.
pub(crate) async fn lock(conn: &mut Conn<'_>, tenant: &TenantId, turn: Turn) -> Result<bool, Fault> {
    match turn {
        Turn::AtOnce(head) => {
            let sql = "SELECT pg_try_advisory_xact_lock(webhook.tenant_lock($1))";
            let query = sqlx::query_scalar(sql).bind(tenant.as_str()).persistent(conn.persistent);
            let locked = query.fetch_one(&mut *conn.inner).await?;
            if locked {
                head.had();
            }
            Ok(locked)
        }
        Turn::InLine(head) => match stand(conn, std::iter::once(tenant), head.turn()).await {
            Ok(()) => {
                head.had();
                Ok(true)
            }
            Err(fault) if is_over(&fault) => {
                head.missed();
                Ok(false)
            }
            Err(fault) => Err(fault),
        },
    }
}

async fn stand<'a>(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &'a TenantId>,
    turn: Duration,
) -> Result<(), Fault> {
    let limit = format!("SET LOCAL lock_timeout = {}", turn.as_millis());
    conn.inner.execute(sqlx::AssertSqlSafe(limit)).await?;
    take(conn, keys_in_order!("pg_advisory_xact_lock(l.key)"), tenants).await?;
    conn.inner.execute(sqlx::AssertSqlSafe(format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT}"))).await?;
    Ok(())
}

async fn take<'a>(
    conn: &mut Conn<'_>,
    sql: &'static str,
    tenants: impl Iterator<Item = &'a TenantId>,
) -> Result<(), Fault> {
    let tenants: Vec<_> = tenants.map(TenantId::as_str).collect();
    sqlx::query(sql).bind(tenants).persistent(conn.persistent).execute(&mut *conn.inner).await?;
    Ok(())
}

fn is_over(fault: &Fault) -> bool {
    matches!(fault, Fault::Sql(error) if is_lock_timeout(error))
}

/// How a change waits for its lock.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// Not at all.
    AtOnce(Arc<Head>),
    /// In line, for a moment.
    InLine(Arc<Head>),
}

/// Who stands in line, of the changes of this process: one of a tenant at a time, and few in all.
#[derive(Debug)]
pub(crate) struct Line {
    heads: Mutex<HashMap<TenantId, Arc<Head>>>,
    places: Semaphore,
}

/// Where the first of a tenant's changes stands.
#[derive(Debug)]
pub(crate) struct Head {
    first: Arc<Semaphore>,
    /// Turns without the lock since the last one with it.
    missed: AtomicU32,
}

impl Head {
    fn turn(&self) -> Duration {
        FIRST_TURN * 2_u32.pow(self.missed.load(Ordering::Relaxed).min(DOUBLED))
    }

    fn had(&self) {
        self.missed.store(0, Ordering::Relaxed);
    }

    fn missed(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Line {
    /// Beside so many connections.
    pub(crate) fn new(connections: u32) -> Self {
        Self { heads: Mutex::default(), places: Semaphore::new((connections / PART).max(1) as usize) }
    }

    pub(crate) fn turns(&self, tenant: &TenantId) -> Turns<'_> {
        let deadline = Instant::now() + PATIENCE;
        Turns { line: self, head: self.head(tenant), deadline, begun: false, first: None, place: None }
    }

    fn head(&self, tenant: &TenantId) -> Arc<Head> {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() >= CROWD {
            heads.retain(|_, head| Arc::strong_count(head) > 1);
        }
        let new = || Arc::new(Head { first: Arc::new(Semaphore::new(1)), missed: AtomicU32::new(0) });
        Arc::clone(heads.entry(tenant.clone()).or_insert_with(new))
    }
}

/// The turns of one change. A host's transaction that emitted an event may keep it waiting for long: then it waits without
/// a connection, and beside the line of those who wait for the lock.
#[derive(Debug)]
pub(crate) struct Turns<'a> {
    line: &'a Line,
    head: Arc<Head>,
    deadline: Instant,
    begun: bool,
    /// It is the first of its tenant.
    first: Option<OwnedSemaphorePermit>,
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
            return Ok(Turn::AtOnce(Arc::clone(&self.head)));
        }
        let place = async {
            match self.place.take() {
                Some(place) => {
                    drop(place);
                    sleep(self.head.turn() * ASIDE).await;
                }
                None => self.first = Arc::clone(&self.head.first).acquire_owned().await.ok(),
            }
            self.line.places.acquire().await.ok()
        };
        match timeout_at(self.deadline, place).await {
            Ok(Some(place)) => {
                self.place = Some(place);
                Ok(Turn::InLine(Arc::clone(&self.head)))
            }
            _ => Err(StoreError::Unavailable(
                "others have been working with the tenant's subscriptions for too long".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_grow_until_one_has_the_lock_and_tenants_do_not_wait_for_each_other() {
        let line = Line::new(20);
        let (busy, other): (TenantId, TenantId) = ("busy".parse().expect("a name"), "other".parse().expect("a name"));
        let mut turns = line.turns(&busy);
        assert!(matches!(turns.next().await, Ok(Turn::AtOnce(_))));
        let Ok(Turn::InLine(head)) = turns.next().await else { panic!("it is the first in line") };
        let lengths: Vec<_> = (0..8)
            .map(|_| {
                let turn = head.turn().as_millis();
                head.missed();
                turn
            })
            .collect();
        assert_eq!(lengths, [50, 100, 200, 400, 800, 1600, 1600, 1600]);
        let mut others = line.turns(&other);
        assert!(matches!(others.next().await, Ok(Turn::AtOnce(_))));
        let Ok(Turn::InLine(others)) = others.next().await else { panic!("nobody of its tenant is in line") };
        assert_eq!((others.turn(), line.head(&busy).turn()), (FIRST_TURN, head.turn()));
        head.had();
        assert_eq!(line.head(&busy).turn(), FIRST_TURN);
    }
}
