//! Captured requests: reading and removing them.

use std::collections::BTreeMap;

use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use webhook_core::store::{CapturePruneRequest, CapturePruneStep, Page, PageRequest, Position, ReadLimit};
use webhook_core::{CaptureFilter, CaptureId, CapturedRequest, PathId, PathKey, TenantId, Timestamp};

use crate::error::Fault;
use crate::session::Conn;
use crate::{history, path, rows};

/// Paths that expire, or are cleared up behind, in one step at most.
const PATHS_AT_ONCE: i64 = 100;
/// Bodies of more bytes are not pruned in one step: as long as that takes, their paths keep no requests.
const PRUNED_AT_ONCE: u64 = 64 << 20;
/// What a search looks through at once.
const SEARCHED_AT_ONCE: ReadLimit = ReadLimit::requests(100).with_bytes(1 << 20);
/// Everything of a request but its body.
const COLUMNS: &str = "r.id, r.tenant, p.path_id, r.number, r.method, r.path, r.query, r.http_version, r.ip_address, \
    r.peer_address, r.body_size, r.body_sha256, r.body_truncated, r.response_status, r.received_at, r.headers, \
    r.trailers, octet_length(r.body)::bigint AS body_kept";

/// The requests of the tenant's path.
fn select(what: &str, tenant: &TenantId, path_id: &PathId) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("");
    push_select(&mut query, what, tenant, path_id);
    query
}

fn push_select(query: &mut QueryBuilder<Postgres>, what: &str, tenant: &TenantId, path_id: &PathId) {
    query.push(format!(
        "SELECT {what} FROM webhook.path AS p JOIN webhook.captured_request AS r ON r.path_key = p.key
         WHERE NOT p.removed AND p.path_id = "
    ));
    query.push_bind(path_id.as_str().to_owned()).push(" AND p.tenant = ").push_bind(tenant.as_str().to_owned());
}

pub(crate) async fn one(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
    id: CaptureId,
) -> Result<Option<CapturedRequest>, Fault> {
    let mut query = select(&format!("{COLUMNS}, r.body"), tenant, path_id);
    query.push(" AND r.id = ").push_bind(id.as_uuid());
    let found = query.build().persistent(conn.persistent).fetch_optional(&mut *conn.inner).await?;
    found.as_ref().map(rows::captured).transpose()
}

pub(crate) async fn list(
    conn: &mut Conn<'_>,
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
            Some(rows::big_count(
                &query.build().persistent(conn.persistent).fetch_one(&mut *conn.inner).await?,
                "total",
            )?)
        }
        _ => None,
    };
    let kept = i32::try_from(body_limit).unwrap_or(i32::MAX);
    let mut query = select(&format!("{COLUMNS}, substring(r.body FROM 1 FOR {kept}) AS body"), tenant, path_id);
    push_filter(&mut query, filter);
    history::push_page(&mut query, "r", page);
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    Ok(Page::from_probe(rows::all(&found, rows::captured)?, page.limit, total))
}

/// A step of a search: what comes next in it, newest first, with all of the bodies.
///
/// PostgreSQL has no way to look for bytes in any ASCII case, so requests are read and looked through here, few at a time.
pub(crate) async fn searched(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
    filter: &CaptureFilter,
    below: Option<Uuid>,
) -> Result<Vec<CapturedRequest>, Fault> {
    let conditions = |query: &mut QueryBuilder<Postgres>| {
        push_filter(query, filter);
        if let Some(below) = below {
            query.push(" AND r.id < ").push_bind(below);
        }
    };
    read(conn, within(tenant, path_id, SEARCHED_AT_ONCE, NEWEST_FIRST, conditions)).await
}

/// All conditions but the text.
fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &CaptureFilter) {
    if filter.method.as_ref().is_some_and(|method| method.contains('\0')) {
        // No text of PostgreSQL has this, so no method has.
        query.push(" AND false");
    } else if let Some(method) = &filter.method {
        query.push(" AND lower(r.method COLLATE \"C\") = ").push_bind(method.to_ascii_lowercase());
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
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
    after: Option<CaptureId>,
    limit: ReadLimit,
) -> Result<Vec<CapturedRequest>, Fault> {
    let start = |query: &mut QueryBuilder<Postgres>| {
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
    conditions: impl Fn(&mut QueryBuilder<Postgres>),
) -> QueryBuilder<Postgres> {
    let mut query = select(&format!("{COLUMNS}, r.body"), tenant, path_id);
    conditions(&mut query);
    // Bodies are measured before any is read.
    query.push(format!(
        " AND r.id {until} (
           SELECT id FROM (
             SELECT id, row_number() OVER (ORDER BY id {order}) AS place,
               sum(size) OVER (ORDER BY id {order}) AS together FROM ("
    ));
    push_select(&mut query, "r.id, octet_length(r.body) AS size", tenant, path_id);
    conditions(&mut query);
    query.push(format!(" ORDER BY r.id {order} LIMIT ")).push_bind(i64::from(limit.requests));
    query.push(") AS sized) AS summed WHERE place = 1 OR together <= ").push_bind(rows::number(limit.bytes));
    query.push(format!(" ORDER BY id {opposite} LIMIT 1) ORDER BY r.id {order} LIMIT "));
    query.push_bind(i64::from(limit.requests));
    query
}

async fn read(conn: &mut Conn<'_>, mut query: QueryBuilder<Postgres>) -> Result<Vec<CapturedRequest>, Fault> {
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    rows::all(&found, rows::captured)
}

/// The tenant's newest requests, without their bodies.
pub(crate) async fn newest(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<CapturedRequest>, Fault> {
    let mut query = QueryBuilder::<Postgres>::new(format!(
        "SELECT {COLUMNS}, ''::bytea AS body FROM webhook.captured_request AS r
         JOIN webhook.path AS p ON p.key = r.path_key AND NOT p.removed
         WHERE r.tenant = "
    ));
    query.push_bind(tenant.as_str().to_owned());
    query.push(" AND (p.expires_at IS NULL OR p.expires_at > ").push_bind(now.as_millis());
    query.push(") ORDER BY r.id DESC LIMIT ").push_bind(i64::from(limit));
    let found = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    rows::all(&found, rows::captured)
}

pub(crate) async fn remove(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
    id: CaptureId,
) -> Result<bool, Fault> {
    let mut query = select("r.path_key, octet_length(r.body)::bigint AS body_kept", tenant, path_id);
    query.push(" AND r.id = ").push_bind(id.as_uuid());
    let Some(row) = query.build().persistent(conn.persistent).fetch_optional(&mut *conn.inner).await? else {
        return Ok(false);
    };
    let key = PathKey::from_uuid(rows::id(&row, "path_key")?);
    path::lock(conn, &[key]).await?;
    let removed = sqlx::query("DELETE FROM webhook.captured_request WHERE id = $1").bind(id.as_uuid());
    if removed.persistent(conn.persistent).execute(&mut *conn.inner).await?.rows_affected() == 0 {
        return Ok(false);
    }
    path::lower_usage(conn, key, 1, rows::big_count(&row, "body_kept")?).await?;
    Ok(true)
}

pub(crate) async fn remove_through(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
    through: CaptureId,
    limit: u32,
) -> Result<u64, Fault> {
    let Some(record) = path::find(conn, path_id).await?.filter(|record| record.tenant == *tenant) else { return Ok(0) };
    path::lock(conn, &[record.key]).await?;
    let mut query = select("r.path_key, r.id, octet_length(r.body)::bigint AS body_kept", tenant, path_id);
    query.push(" AND r.id <= ").push_bind(through.as_uuid());
    query.push(" ORDER BY r.id LIMIT ").push_bind(i64::from(limit));
    let oldest = query.build().persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    let Some(last) = oldest.last() else { return Ok(0) };
    let (key, last) = (PathKey::from_uuid(rows::id(last, "path_key")?), CaptureId::from_uuid(rows::id(last, "id")?));
    let bytes = rows::all(&oldest, |row| rows::big_count(row, "body_kept"))?.into_iter().sum();
    delete_through(conn, key, last).await?;
    path::lower_usage(conn, key, oldest.len() as u64, bytes).await?;
    Ok(oldest.len() as u64)
}

/// A path's oldest requests: id, and bytes of the body that are kept.
pub(crate) async fn oldest(conn: &mut Conn<'_>, path: PathKey, limit: u32) -> Result<Vec<(CaptureId, u64)>, Fault> {
    let found = sqlx::query(
        "SELECT id, octet_length(body)::bigint AS body_kept FROM webhook.captured_request WHERE path_key = $1 ORDER BY id LIMIT $2",
    )
    .bind(path.as_uuid())
    .bind(i64::from(limit))
    .persistent(conn.persistent).fetch_all(&mut *conn.inner)
    .await?;
    rows::all(&found, |row| Ok((CaptureId::from_uuid(rows::id(row, "id")?), rows::big_count(row, "body_kept")?)))
}

pub(crate) async fn delete_through(conn: &mut Conn<'_>, path: PathKey, through: CaptureId) -> Result<(), Fault> {
    sqlx::query("DELETE FROM webhook.captured_request WHERE path_key = $1 AND id <= $2")
        .bind(path.as_uuid())
        .bind(through.as_uuid())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    Ok(())
}

/// Whoever keeps requests locks paths in the order of their keys: a step does one kind of work alone, so that it locks no
/// further path while it holds one.
pub(crate) async fn prune(conn: &mut Conn<'_>, request: CapturePruneRequest) -> Result<CapturePruneStep, Fault> {
    // One process at a time; the others have nothing to do.
    let alone: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('webhook.prune_captured', 0))")
            .persistent(conn.persistent)
            .fetch_one(&mut *conn.inner)
            .await?;
    if !alone {
        return Ok(CapturePruneStep::default());
    }
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
async fn expire(conn: &mut Conn<'_>, now: Timestamp) -> Result<bool, Fault> {
    let over: Vec<PathKey> = sqlx::query_scalar(
        "SELECT key FROM webhook.path WHERE NOT removed AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
    )
    .bind(now.as_millis())
    .bind(PATHS_AT_ONCE)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?
    .into_iter()
    .map(PathKey::from_uuid)
    .collect();
    if over.is_empty() {
        return Ok(false);
    }
    path::lock(conn, &over).await?;
    // What was given a later end meanwhile stays.
    sqlx::query("UPDATE webhook.path SET removed = true WHERE key = ANY ($1) AND NOT removed AND expires_at <= $2")
        .bind(over.iter().map(|key| key.as_uuid()).collect::<Vec<_>>())
        .bind(now.as_millis())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    Ok(true)
}

/// Removes requests of removed paths, and behind the last one of each the path itself; how many requests there were, where
/// there was such a path.
async fn clear_up(conn: &mut Conn<'_>, limit: ReadLimit) -> Result<Option<u64>, Fault> {
    let removed: Vec<PathKey> = sqlx::query_scalar("SELECT key FROM webhook.path WHERE removed ORDER BY key LIMIT $1")
        .bind(PATHS_AT_ONCE)
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?
        .into_iter()
        .map(PathKey::from_uuid)
        .collect();
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
        for sql in ["DELETE FROM webhook.path_usage WHERE path_key = $1", "DELETE FROM webhook.path WHERE key = $1"] {
            sqlx::query(sql).bind(key.as_uuid()).persistent(conn.persistent).execute(&mut *conn.inner).await?;
        }
    }
    Ok((!removed.is_empty()).then_some(requests.into()))
}

async fn prune_old(
    conn: &mut Conn<'_>,
    received_before: Timestamp,
    limit: ReadLimit,
) -> Result<CapturePruneStep, Fault> {
    let old = sqlx::query(
        "SELECT id, path_key, octet_length(body)::bigint AS body_kept FROM webhook.captured_request WHERE id < $1 ORDER BY id LIMIT $2",
    )
    .bind(CaptureId::floor(received_before).as_uuid())
    .bind(i64::from(limit.requests))
    .persistent(conn.persistent).fetch_all(&mut *conn.inner)
    .await?;
    let old = rows::all(&old, |row| {
        let key = PathKey::from_uuid(rows::id(row, "path_key")?);
        Ok((rows::id(row, "id")?, key, rows::big_count(row, "body_kept")?))
    })?;
    let going: Vec<_> = limit.of(old.iter(), |(_, _, kept)| *kept).collect();
    if going.is_empty() {
        return Ok(CapturePruneStep::default());
    }
    path::lock(conn, &going.iter().map(|(_, key, _)| *key).collect::<Vec<_>>()).await?;
    // What somebody else removed meanwhile is not counted.
    let gone = sqlx::query(
        "DELETE FROM webhook.captured_request WHERE id = ANY ($1) RETURNING path_key, octet_length(body)::bigint AS body_kept",
    )
    .bind(going.iter().map(|(id, _, _)| *id).collect::<Vec<_>>())
    .persistent(conn.persistent).fetch_all(&mut *conn.inner)
    .await?;
    let mut by_path: BTreeMap<PathKey, (u64, u64)> = BTreeMap::new();
    for row in &gone {
        let (requests, bytes) = by_path.entry(PathKey::from_uuid(rows::id(row, "path_key")?)).or_default();
        *requests += 1;
        *bytes += rows::big_count(row, "body_kept")?;
    }
    for (key, (requests, bytes)) in by_path {
        path::lower_usage(conn, key, requests, bytes).await?;
    }
    let more = old.len() == limit.requests as usize || going.len() < old.len();
    Ok(CapturePruneStep { requests: going.len() as u64, more })
}
