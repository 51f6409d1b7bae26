//! Captured requests: reading and removing them.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;
use webhook_core::store::{CapturePruneRequest, CapturePruneStep, Page, PageRequest, Position, ReadLimit};
use webhook_core::{CaptureFilter, CaptureId, CapturedRequest, PathId, PathKey, TenantId, Timestamp};

use crate::error::Fault;
use crate::{history, path, rows};

/// Paths that expire, or are cleared up behind, in one step at most.
const PATHS_AT_ONCE: i64 = 100;
/// Bodies of more bytes are not pruned in one step: as long as that takes, nobody else writes.
const PRUNED_AT_ONCE: u64 = 64 << 20;
/// What a search looks through at once.
const SEARCHED_AT_ONCE: ReadLimit = ReadLimit::requests(100).with_bytes(1 << 20);
/// Everything of a request but its body.
const COLUMNS: &str = "r.id, r.tenant, p.path_id, r.number, r.method, r.path, r.query, r.http_version, r.ip_address, \
    r.peer_address, r.body_size, r.body_sha256, r.body_truncated, r.response_status, r.received_at, r.headers, \
    r.trailers, length(r.body) AS body_kept";

/// The requests of the tenant's path.
fn select(what: &str, tenant: &TenantId, path_id: &PathId) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("");
    push_select(&mut query, what, tenant, path_id);
    query
}

fn push_select(query: &mut QueryBuilder<Sqlite>, what: &str, tenant: &TenantId, path_id: &PathId) {
    query.push(format!(
        "SELECT {what} FROM webhook_path AS p CROSS JOIN webhook_captured_request AS r ON r.path_key = p.key
         WHERE p.removed = 0 AND p.path_id = "
    ));
    query.push_bind(path_id.as_str().to_owned()).push(" AND p.tenant = ").push_bind(tenant.as_str().to_owned());
}

pub(crate) async fn one(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
    id: CaptureId,
) -> Result<Option<CapturedRequest>, Fault> {
    let mut query = select(&format!("{COLUMNS}, r.body"), tenant, path_id);
    query.push(" AND r.id = ").push_bind(id.as_uuid());
    let found = query.build().fetch_optional(conn).await?;
    found.as_ref().map(rows::captured).transpose()
}

pub(crate) async fn list(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
    filter: &CaptureFilter,
    page: PageRequest,
    body_limit: u32,
) -> Result<Page<CapturedRequest>, Fault> {
    let total = match page.position {
        Position::Offset(_) => {
            let mut query = select("count(*) AS total", tenant, path_id);
            push_filter(&mut query, filter);
            Some(rows::big_count(&query.build().fetch_one(&mut *conn).await?, "total")?)
        }
        _ => None,
    };
    let mut query = select(&format!("{COLUMNS}, substr(r.body, 1, {body_limit}) AS body"), tenant, path_id);
    push_filter(&mut query, filter);
    history::push_page(&mut query, "r", page);
    let found = query.build().fetch_all(conn).await?;
    Ok(Page::from_probe(rows::all(&found, rows::captured)?, page.limit, total))
}

/// A step of a search: what comes next in it, newest first, with all of the bodies.
pub(crate) async fn searched(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
    filter: &CaptureFilter,
    below: Option<Uuid>,
) -> Result<Vec<CapturedRequest>, Fault> {
    let conditions = |query: &mut QueryBuilder<Sqlite>| {
        push_filter(query, filter);
        if let Some(below) = below {
            query.push(" AND r.id < ").push_bind(below);
        }
    };
    read(conn, within(tenant, path_id, SEARCHED_AT_ONCE, NEWEST_FIRST, conditions)).await
}

/// All conditions but the text.
fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &CaptureFilter) {
    if let Some(method) = &filter.method {
        query.push(" AND r.method COLLATE NOCASE = ").push_bind(method.clone());
    }
    if let Some(since) = filter.since {
        // An id is made after its request arrived, and may be raised by any amount: this bounds ids from below only.
        query.push(" AND r.id >= ").push_bind(CaptureId::floor(since - history::ID_SLACK).as_uuid());
        query.push(" AND r.received_at >= ").push_bind(since.as_millis());
    }
    if let Some(until) = filter.until {
        query.push(" AND r.received_at < ").push_bind(until.as_millis());
    }
}

pub(crate) async fn after(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
    after: Option<CaptureId>,
    limit: ReadLimit,
) -> Result<Vec<CapturedRequest>, Fault> {
    let start = |query: &mut QueryBuilder<Sqlite>| {
        if let Some(after) = after {
            query.push(" AND r.id > ").push_bind(after.as_uuid());
        }
    };
    let query = within(tenant, path_id, limit, OLDEST_FIRST, start);
    read(conn, query).await
}

/// An order, the one that is opposed to it, and what holds for the last in it and all before.
type Order = (&'static str, &'static str, &'static str);
const OLDEST_FIRST: Order = ("ASC", "DESC", "<=");
const NEWEST_FIRST: Order = ("DESC", "ASC", ">=");

/// The requests of the tenant's path, with their bodies, that meet the conditions and come within the limit.
fn within(
    tenant: &TenantId,
    path_id: &PathId,
    limit: ReadLimit,
    (order, opposite, until): Order,
    conditions: impl Fn(&mut QueryBuilder<Sqlite>),
) -> QueryBuilder<Sqlite> {
    let mut query = select(&format!("{COLUMNS}, r.body"), tenant, path_id);
    conditions(&mut query);
    // Bodies are measured before any is read.
    query.push(format!(
        " AND r.id {until} (
           SELECT id FROM (
             SELECT id, row_number() OVER (ORDER BY id {order}) AS place,
               sum(size) OVER (ORDER BY id {order}) AS together FROM ("
    ));
    push_select(&mut query, "r.id AS id, length(r.body) AS size", tenant, path_id);
    conditions(&mut query);
    query.push(format!(" ORDER BY r.id {order} LIMIT ")).push_bind(limit.requests);
    query.push(")) WHERE place = 1 OR together <= ").push_bind(rows::number(limit.bytes));
    query.push(format!(" ORDER BY id {opposite} LIMIT 1) ORDER BY r.id {order} LIMIT ")).push_bind(limit.requests);
    query
}

async fn read(conn: &mut SqliteConnection, mut query: QueryBuilder<Sqlite>) -> Result<Vec<CapturedRequest>, Fault> {
    let found = query.build().fetch_all(conn).await?;
    rows::all(&found, rows::captured)
}

/// The tenant's newest requests, without their bodies.
pub(crate) async fn newest(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<CapturedRequest>, Fault> {
    let mut query = QueryBuilder::<Sqlite>::new(format!(
        "SELECT {COLUMNS}, x'' AS body FROM webhook_captured_request AS r
         CROSS JOIN webhook_path AS p ON p.key = r.path_key AND p.removed = 0
         WHERE r.tenant = "
    ));
    query.push_bind(tenant.as_str().to_owned());
    query.push(" AND (p.expires_at IS NULL OR p.expires_at > ").push_bind(now.as_millis());
    query.push(") ORDER BY r.id DESC LIMIT ").push_bind(limit);
    let found = query.build().fetch_all(conn).await?;
    rows::all(&found, rows::captured)
}

pub(crate) async fn remove(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
    id: CaptureId,
) -> Result<bool, Fault> {
    let mut query = select("r.path_key, length(r.body) AS body_kept", tenant, path_id);
    query.push(" AND r.id = ").push_bind(id.as_uuid());
    let Some(row) = query.build().fetch_optional(&mut *conn).await? else { return Ok(false) };
    let key = PathKey::from_uuid(rows::id(&row, "path_key")?);
    sqlx::query("DELETE FROM webhook_captured_request WHERE id = ?1").bind(id.as_uuid()).execute(&mut *conn).await?;
    path::lower_usage(conn, key, 1, rows::big_count(&row, "body_kept")?).await?;
    Ok(true)
}

pub(crate) async fn remove_through(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
    through: CaptureId,
    limit: u32,
) -> Result<u64, Fault> {
    let mut query = select("r.path_key, r.id, length(r.body) AS body_kept", tenant, path_id);
    query.push(" AND r.id <= ").push_bind(through.as_uuid());
    query.push(" ORDER BY r.id LIMIT ").push_bind(limit);
    let oldest = query.build().fetch_all(&mut *conn).await?;
    let Some(last) = oldest.last() else { return Ok(0) };
    let (key, last) = (PathKey::from_uuid(rows::id(last, "path_key")?), CaptureId::from_uuid(rows::id(last, "id")?));
    let bytes = rows::all(&oldest, |row| rows::big_count(row, "body_kept"))?.into_iter().sum();
    delete_through(conn, key, last).await?;
    path::lower_usage(conn, key, oldest.len() as u64, bytes).await?;
    Ok(oldest.len() as u64)
}

/// A path's oldest requests: id, and bytes of the body that are kept.
pub(crate) async fn oldest(
    conn: &mut SqliteConnection,
    path: PathKey,
    limit: u32,
) -> Result<Vec<(CaptureId, u64)>, Fault> {
    let found = sqlx::query(
        "SELECT id, length(body) AS body_kept FROM webhook_captured_request WHERE path_key = ?1 ORDER BY id LIMIT ?2",
    )
    .bind(path.as_uuid())
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows::all(&found, |row| Ok((CaptureId::from_uuid(rows::id(row, "id")?), rows::big_count(row, "body_kept")?)))
}

pub(crate) async fn delete_through(
    conn: &mut SqliteConnection,
    path: PathKey,
    through: CaptureId,
) -> Result<(), Fault> {
    sqlx::query("DELETE FROM webhook_captured_request WHERE path_key = ?1 AND id <= ?2")
        .bind(path.as_uuid())
        .bind(through.as_uuid())
        .execute(conn)
        .await?;
    Ok(())
}

/// A step does one kind of work alone.
pub(crate) async fn prune(
    conn: &mut SqliteConnection,
    request: CapturePruneRequest,
) -> Result<CapturePruneStep, Fault> {
    if expire(conn, request.now).await? {
        return Ok(CapturePruneStep { requests: 0, more: true });
    }
    let limit = ReadLimit::requests(request.limit.max(1)).with_bytes(PRUNED_AT_ONCE);
    match clear_up(conn, limit).await? {
        Some(requests) => Ok(CapturePruneStep { requests, more: true }),
        None => prune_old(conn, request.received_before, limit).await,
    }
}

/// Lets paths go that have expired; whether there were any.
async fn expire(conn: &mut SqliteConnection, now: Timestamp) -> Result<bool, Fault> {
    let expired = sqlx::query(
        "UPDATE webhook_path SET removed = 1 WHERE key IN (
           SELECT key FROM webhook_path WHERE removed = 0 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    )
    .bind(now.as_millis())
    .bind(PATHS_AT_ONCE)
    .execute(conn)
    .await?;
    Ok(expired.rows_affected() > 0)
}

/// Removes requests of removed paths, and behind the last one of each the path itself; how many requests there were, where
/// there was such a path.
async fn clear_up(conn: &mut SqliteConnection, limit: ReadLimit) -> Result<Option<u64>, Fault> {
    let found = sqlx::query("SELECT key FROM webhook_path WHERE removed = 1 ORDER BY key LIMIT ?1")
        .bind(PATHS_AT_ONCE)
        .fetch_all(&mut *conn)
        .await?;
    let removed = rows::all(&found, |row| Ok(PathKey::from_uuid(rows::id(row, "key")?)))?;
    let (mut requests, mut bytes) = (0_u32, 0_u64);
    for key in &removed {
        let left = limit.requests - requests;
        if left == 0 || bytes >= limit.bytes {
            break;
        }
        let held = oldest(conn, *key, left).await?;
        let room = ReadLimit::requests(left).with_bytes(limit.bytes.saturating_sub(bytes));
        let going: Vec<_> = room.of(held.iter(), |(_, kept)| *kept).collect();
        if let Some((last, _)) = going.last() {
            delete_through(conn, *key, *last).await?;
        }
        requests += u32::try_from(going.len()).unwrap_or(left);
        bytes += going.iter().map(|(_, kept)| kept).sum::<u64>();
        if going.len() < held.len() || held.len() == left as usize {
            break;
        }
        for sql in ["DELETE FROM webhook_path_usage WHERE path_key = ?1", "DELETE FROM webhook_path WHERE key = ?1"] {
            sqlx::query(sql).bind(key.as_uuid()).execute(&mut *conn).await?;
        }
    }
    Ok((!removed.is_empty()).then_some(requests.into()))
}

async fn prune_old(
    conn: &mut SqliteConnection,
    received_before: Timestamp,
    limit: ReadLimit,
) -> Result<CapturePruneStep, Fault> {
    let old = sqlx::query(
        "SELECT id, path_key, length(body) AS body_kept FROM webhook_captured_request WHERE id < ?1 ORDER BY id LIMIT ?2",
    )
    .bind(CaptureId::floor(received_before).as_uuid())
    .bind(limit.requests)
    .fetch_all(&mut *conn)
    .await?;
    let old = rows::all(&old, |row| {
        let key = PathKey::from_uuid(rows::id(row, "path_key")?);
        Ok((rows::id(row, "id")?, key, rows::big_count(row, "body_kept")?))
    })?;
    let going: Vec<_> = limit.of(old.iter(), |(_, _, kept)| *kept).collect();
    let Some((last, _, _)) = going.last() else { return Ok(CapturePruneStep::default()) };
    sqlx::query("DELETE FROM webhook_captured_request WHERE id <= ?1").bind(*last).execute(&mut *conn).await?;
    let mut by_path: HashMap<PathKey, (u64, u64)> = HashMap::new();
    for (_, key, kept) in &going {
        let (requests, bytes) = by_path.entry(*key).or_default();
        *requests += 1;
        *bytes += kept;
    }
    for (key, (requests, bytes)) in by_path {
        path::lower_usage(conn, key, requests, bytes).await?;
    }
    let more = old.len() == limit.requests as usize || going.len() < old.len();
    Ok(CapturePruneStep { requests: going.len() as u64, more })
}
