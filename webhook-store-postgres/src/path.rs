//! Capture paths.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;
use webhook_core::store::{
    CaptureStats, IdempotencyKey, KeyedAnswer, PATH_METHODS, Page, PageRequest, PathInserted, PathRecord, PathState,
    PathUpdated, PathUsage, Position, StoredKey,
};
use webhook_core::{PathId, PathKey, Sealed, TenantId, Timestamp};

use crate::error::Fault;
use crate::session::Conn;
use crate::{captured, key, rows};

/// A path with what it holds.
macro_rules! path {
    () => {
        "SELECT p.*, u.requests, u.bytes, u.last_number, u.last_id, u.last_request_at
         FROM webhook.path AS p JOIN webhook.path_usage AS u ON u.path_key = p.key"
    };
}

pub(crate) async fn insert(
    conn: &mut Conn<'_>,
    record: &PathRecord,
    key: Option<&KeyedAnswer>,
) -> Result<PathInserted, Fault> {
    if let Some(keyed) = key {
        key::lock(conn, std::iter::once((&record.tenant, &keyed.key))).await?;
    }
    if let Some(keyed) = key
        && let Some(answered) = answered(conn, &record.tenant, &keyed.key, record.created_at).await?
    {
        return Ok(answered);
    }
    let inserted = sqlx::query(
        "INSERT INTO webhook.path (key, path_id, tenant, version, settings, response, expires_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (path_id) WHERE NOT removed DO NOTHING",
    )
    .bind(record.key.as_uuid())
    .bind(record.path_id.as_str())
    .bind(record.tenant.as_str())
    .bind(record.version.get())
    .bind(serde_json::to_string(&record.settings)?)
    .bind(record.response.as_ref().map(Sealed::as_bytes))
    .bind(record.expires_at.map(Timestamp::as_millis))
    .bind(record.created_at.as_millis())
    .bind(record.updated_at.as_millis())
    .persistent(conn.persistent).execute(&mut *conn.inner)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(PathInserted::Taken);
    }
    sqlx::query("INSERT INTO webhook.path_usage (path_key) VALUES ($1)")
        .bind(record.key.as_uuid())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    if let Some(KeyedAnswer { key, answer }) = key {
        let stored = StoredKey {
            tenant: record.tenant.clone(),
            scope: key.scope.to_owned(),
            key: key.key.clone(),
            fingerprint: key.fingerprint,
            answer: answer.as_bytes().to_vec(),
            expires_at: key.expires_at,
        };
        key::remember(conn, &[stored]).await?;
    }
    Ok(PathInserted::Created)
}

/// What was answered under the key, or that it stands for something else.
pub(crate) async fn answered(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    key: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<PathInserted>, Fault> {
    let stored = key::stored(conn, std::iter::once((tenant, key))).await?;
    let stored = stored.into_iter().find(|stored| stored.expires_at > now);
    Ok(stored.map(|stored| match stored.fingerprint == key.fingerprint {
        true => PathInserted::Repeated(Sealed::from_bytes(stored.answer)),
        false => PathInserted::Conflict,
    }))
}

pub(crate) async fn update(conn: &mut Conn<'_>, record: &PathRecord) -> Result<PathUpdated, Fault> {
    lock(conn, &[record.key]).await?;
    let version: Option<i64> =
        sqlx::query_scalar("SELECT version FROM webhook.path WHERE key = $1 AND tenant = $2 AND NOT removed")
            .bind(record.key.as_uuid())
            .bind(record.tenant.as_str())
            .persistent(conn.persistent)
            .fetch_optional(&mut *conn.inner)
            .await?;
    match version {
        None => return Ok(PathUpdated::Missing),
        Some(version) if version != record.version.get() => return Ok(PathUpdated::Changed),
        Some(_) => {}
    }
    let next = record.version.next();
    sqlx::query(
        "UPDATE webhook.path SET version = $2, settings = $3, response = $4, expires_at = $5, updated_at = $6
         WHERE key = $1",
    )
    .bind(record.key.as_uuid())
    .bind(next.get())
    .bind(serde_json::to_string(&record.settings)?)
    .bind(record.response.as_ref().map(Sealed::as_bytes))
    .bind(record.expires_at.map(Timestamp::as_millis))
    .bind(record.updated_at.as_millis())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(PathUpdated::Done(next))
}

/// Its requests go in steps, later; nobody finds them from now on.
pub(crate) async fn delete(conn: &mut Conn<'_>, tenant: &TenantId, path_id: &PathId) -> Result<bool, Fault> {
    let Some(record) = find(conn, path_id).await?.filter(|record| record.tenant == *tenant) else { return Ok(false) };
    lock(conn, &[record.key]).await?;
    let deleted = sqlx::query("UPDATE webhook.path SET removed = true WHERE key = $1 AND NOT removed")
        .bind(record.key.as_uuid())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub(crate) async fn delete_expired(conn: &mut Conn<'_>, key: PathKey, now: Timestamp) -> Result<bool, Fault> {
    lock(conn, &[key]).await?;
    let sql = "UPDATE webhook.path SET removed = true WHERE key = $1 AND NOT removed AND expires_at <= $2";
    let deleted = sqlx::query(sql)
        .bind(key.as_uuid())
        .bind(now.as_millis())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub(crate) async fn find(conn: &mut Conn<'_>, path_id: &PathId) -> Result<Option<PathRecord>, Fault> {
    let found = sqlx::query("SELECT * FROM webhook.path WHERE path_id = $1 AND NOT removed")
        .bind(path_id.as_str())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
    found.as_ref().map(rows::path).transpose()
}

pub(crate) async fn one(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
) -> Result<Option<(PathRecord, PathUsage)>, Fault> {
    let found = sqlx::query(concat!(path!(), " WHERE p.path_id = $1 AND p.tenant = $2 AND NOT p.removed"))
        .bind(path_id.as_str())
        .bind(tenant.as_str())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
    found.as_ref().map(with_usage).transpose()
}

pub(crate) async fn list(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    now: Timestamp,
    page: PageRequest,
) -> Result<Page<(PathRecord, PathUsage)>, Fault> {
    let total = match page.position {
        Position::Offset(_) => {
            let row = sqlx::query(
                "SELECT count(*) AS total FROM webhook.path
                 WHERE tenant = $1 AND NOT removed AND (expires_at IS NULL OR expires_at > $2)",
            )
            .bind(tenant.as_str())
            .bind(now.as_millis())
            .persistent(conn.persistent)
            .fetch_one(&mut *conn.inner)
            .await?;
            Some(rows::big_count(&row, "total")?)
        }
        _ => None,
    };
    let (after, offset) = match page.position {
        Position::Start => (None, 0),
        Position::After(id) => (Some(id), 0),
        Position::Offset(offset) => (None, i64::try_from(offset).unwrap_or(i64::MAX)),
    };
    let found = sqlx::query(concat!(
        path!(),
        " WHERE p.tenant = $1 AND NOT p.removed AND (p.expires_at IS NULL OR p.expires_at > $2)
            AND ($3::uuid IS NULL OR p.key < $3) ORDER BY p.key DESC LIMIT $4 OFFSET $5",
    ))
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .bind(after)
    .bind(i64::from(page.limit) + 1)
    .bind(offset)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    Ok(Page::from_probe(rows::all(&found, with_usage)?, page.limit, total))
}

pub(crate) async fn methods(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    path_id: &PathId,
) -> Result<Vec<(String, u64)>, Fault> {
    let found = sqlx::query(
        "SELECT r.method, count(*) AS requests FROM webhook.path AS p
         JOIN webhook.captured_request AS r ON r.path_key = p.key
         WHERE p.path_id = $1 AND p.tenant = $2 AND NOT p.removed GROUP BY r.method
         ORDER BY requests DESC LIMIT $3",
    )
    .bind(path_id.as_str())
    .bind(tenant.as_str())
    .bind(i64::try_from(PATH_METHODS).unwrap_or(i64::MAX))
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    rows::all(&found, |row| Ok((row.try_get("method")?, rows::big_count(row, "requests")?)))
}

/// Keeps these paths, and what they hold, to the transaction. In the order of their keys, so that nobody waits for
/// somebody who waits for them. What is read of them afterwards is what stands when the transaction commits.
pub(crate) async fn lock(conn: &mut Conn<'_>, paths: &[PathKey]) -> Result<(), Fault> {
    sqlx::query("SELECT 1 FROM webhook.path_usage WHERE path_key = ANY ($1) ORDER BY path_key FOR UPDATE")
        .bind(paths.iter().map(|path| path.as_uuid()).collect::<Vec<_>>())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    Ok(())
}

/// Those of the paths that there are, as `CapturePlan::resolve` wants to know them.
pub(crate) async fn states(conn: &mut Conn<'_>, paths: &[PathKey]) -> Result<HashMap<PathKey, PathState>, Fault> {
    lock(conn, paths).await?;
    let found = sqlx::query(concat!(path!(), " WHERE p.key = ANY ($1) AND NOT p.removed"))
        .bind(paths.iter().map(|path| path.as_uuid()).collect::<Vec<_>>())
        .persistent(conn.persistent)
        .fetch_all(&mut *conn.inner)
        .await?;
    let state = |row: &PgRow| {
        let (record, usage) = with_usage(row)?;
        Ok((record.key, PathState::of(&record, usage)))
    };
    found.iter().map(state).collect()
}

pub(crate) async fn set_usage(conn: &mut Conn<'_>, path: PathKey, usage: &PathUsage) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE webhook.path_usage SET requests = $2, bytes = $3, last_number = $4, last_id = $5, last_request_at = $6
         WHERE path_key = $1",
    )
    .bind(path.as_uuid())
    .bind(rows::number(usage.requests))
    .bind(rows::number(usage.bytes))
    .bind(rows::number(usage.last_number))
    .bind(usage.last_id.map(webhook_core::CaptureId::as_uuid))
    .bind(usage.last_request_at.map(Timestamp::as_millis))
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(())
}

/// The path holds so much less.
pub(crate) async fn lower_usage(conn: &mut Conn<'_>, path: PathKey, requests: u64, bytes: u64) -> Result<(), Fault> {
    sqlx::query("UPDATE webhook.path_usage SET requests = requests - $2, bytes = bytes - $3 WHERE path_key = $1")
        .bind(path.as_uuid())
        .bind(rows::number(requests))
        .bind(rows::number(bytes))
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    Ok(())
}

pub(crate) async fn stats(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    now: Timestamp,
    active_since: Timestamp,
    limit: u32,
) -> Result<CaptureStats, Fault> {
    let row = sqlx::query(
        "SELECT count(*) AS paths, count(*) FILTER (WHERE u.last_request_at >= $3) AS active,
           coalesce(sum(u.requests), 0)::bigint AS requests
         FROM webhook.path AS p JOIN webhook.path_usage AS u ON u.path_key = p.key
         WHERE p.tenant = $1 AND NOT p.removed AND (p.expires_at IS NULL OR p.expires_at > $2)",
    )
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .bind(active_since.as_millis())
    .persistent(conn.persistent)
    .fetch_one(&mut *conn.inner)
    .await?;
    let mut stats = CaptureStats::default();
    stats.paths = rows::big_count(&row, "paths")?;
    stats.active_paths = rows::big_count(&row, "active")?;
    stats.requests = rows::big_count(&row, "requests")?;
    stats.recent = captured::newest(conn, tenant, now, limit).await?;
    Ok(stats)
}

fn with_usage(row: &PgRow) -> Result<(PathRecord, PathUsage), Fault> {
    Ok((rows::path(row)?, rows::path_usage(row)?))
}
