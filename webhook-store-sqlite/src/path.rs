//! Capture paths.

use std::collections::HashMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use webhook_core::store::{
    CaptureStats, IdempotencyKey, KeyedAnswer, PATH_METHODS, Page, PageRequest, PathInserted, PathRecord, PathState,
    PathUpdated, PathUsage, Position, StoredKey,
};
use webhook_core::{PathId, PathKey, Sealed, TenantId, Timestamp};

use crate::error::Fault;
use crate::{bulk, captured, key, rows};

/// A path with what it holds.
macro_rules! path {
    () => {
        "SELECT p.*, u.requests, u.bytes, u.last_number, u.last_id, u.last_request_at
         FROM webhook_path AS p CROSS JOIN webhook_path_usage AS u ON u.path_key = p.key"
    };
}

pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    record: &PathRecord,
    key: Option<&KeyedAnswer>,
) -> Result<PathInserted, Fault> {
    if let Some(keyed) = key
        && let Some(answered) = answered(conn, &record.tenant, &keyed.key, record.created_at).await?
    {
        return Ok(answered);
    }
    let inserted = sqlx::query(
        "INSERT INTO webhook_path (key, path_id, tenant, version, settings, response, expires_at, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (path_id) WHERE removed = 0 DO NOTHING",
    )
    .bind(record.key.as_uuid())
    .bind(record.path_id.as_str())
    .bind(record.tenant.as_str())
    .bind(record.version.get())
    .bind(bulk::json(&record.settings)?)
    .bind(record.response.as_ref().map(Sealed::as_bytes))
    .bind(record.expires_at.map(Timestamp::as_millis))
    .bind(record.created_at.as_millis())
    .bind(record.updated_at.as_millis())
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(PathInserted::Taken);
    }
    sqlx::query("INSERT INTO webhook_path_usage (path_key) VALUES (?1)")
        .bind(record.key.as_uuid())
        .execute(&mut *conn)
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
    conn: &mut SqliteConnection,
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

pub(crate) async fn update(conn: &mut SqliteConnection, record: &PathRecord) -> Result<PathUpdated, Fault> {
    let version: Option<i64> =
        sqlx::query_scalar("SELECT version FROM webhook_path WHERE key = ?1 AND tenant = ?2 AND removed = 0")
            .bind(record.key.as_uuid())
            .bind(record.tenant.as_str())
            .fetch_optional(&mut *conn)
            .await?;
    match version {
        None => return Ok(PathUpdated::Missing),
        Some(version) if version != record.version.get() => return Ok(PathUpdated::Changed),
        Some(_) => {}
    }
    let next = record.version.next();
    sqlx::query(
        "UPDATE webhook_path SET version = ?2, settings = ?3, response = ?4, expires_at = ?5, updated_at = ?6
         WHERE key = ?1",
    )
    .bind(record.key.as_uuid())
    .bind(next.get())
    .bind(bulk::json(&record.settings)?)
    .bind(record.response.as_ref().map(Sealed::as_bytes))
    .bind(record.expires_at.map(Timestamp::as_millis))
    .bind(record.updated_at.as_millis())
    .execute(conn)
    .await?;
    Ok(PathUpdated::Done(next))
}

/// Its requests go in steps, later; nobody finds them from now on.
pub(crate) async fn delete(conn: &mut SqliteConnection, tenant: &TenantId, path_id: &PathId) -> Result<bool, Fault> {
    let deleted = sqlx::query("UPDATE webhook_path SET removed = 1 WHERE path_id = ?1 AND tenant = ?2 AND removed = 0")
        .bind(path_id.as_str())
        .bind(tenant.as_str())
        .execute(conn)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub(crate) async fn delete_expired(conn: &mut SqliteConnection, key: PathKey, now: Timestamp) -> Result<bool, Fault> {
    let deleted =
        sqlx::query("UPDATE webhook_path SET removed = 1 WHERE key = ?1 AND removed = 0 AND expires_at <= ?2")
            .bind(key.as_uuid())
            .bind(now.as_millis())
            .execute(conn)
            .await?;
    Ok(deleted.rows_affected() > 0)
}

pub(crate) async fn find(conn: &mut SqliteConnection, path_id: &PathId) -> Result<Option<PathRecord>, Fault> {
    let found = sqlx::query("SELECT * FROM webhook_path WHERE path_id = ?1 AND removed = 0")
        .bind(path_id.as_str())
        .fetch_optional(conn)
        .await?;
    found.as_ref().map(rows::path).transpose()
}

pub(crate) async fn one(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
) -> Result<Option<(PathRecord, PathUsage)>, Fault> {
    let found = sqlx::query(concat!(path!(), " WHERE p.path_id = ?1 AND p.tenant = ?2 AND p.removed = 0"))
        .bind(path_id.as_str())
        .bind(tenant.as_str())
        .fetch_optional(conn)
        .await?;
    found.as_ref().map(with_usage).transpose()
}

pub(crate) async fn list(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    now: Timestamp,
    page: PageRequest,
) -> Result<Page<(PathRecord, PathUsage)>, Fault> {
    let total = match page.position {
        Position::Offset(_) => {
            let row = sqlx::query(
                "SELECT count(*) AS total FROM webhook_path
                 WHERE tenant = ?1 AND removed = 0 AND (expires_at IS NULL OR expires_at > ?2)",
            )
            .bind(tenant.as_str())
            .bind(now.as_millis())
            .fetch_one(&mut *conn)
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
        " WHERE p.tenant = ?1 AND p.removed = 0 AND (p.expires_at IS NULL OR p.expires_at > ?2)
            AND (?3 IS NULL OR p.key < ?3) ORDER BY p.key DESC LIMIT ?4 OFFSET ?5",
    ))
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .bind(after)
    .bind(i64::from(page.limit) + 1)
    .bind(offset)
    .fetch_all(conn)
    .await?;
    Ok(Page::from_probe(rows::all(&found, with_usage)?, page.limit, total))
}

pub(crate) async fn methods(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    path_id: &PathId,
) -> Result<Vec<(String, u64)>, Fault> {
    let found = sqlx::query(
        "SELECT r.method, count(*) AS requests FROM webhook_path AS p
         CROSS JOIN webhook_captured_request AS r ON r.path_key = p.key
         WHERE p.path_id = ?1 AND p.tenant = ?2 AND p.removed = 0 GROUP BY r.method
         ORDER BY requests DESC LIMIT ?3",
    )
    .bind(path_id.as_str())
    .bind(tenant.as_str())
    .bind(rows::number(PATH_METHODS as u64))
    .fetch_all(conn)
    .await?;
    rows::all(&found, |row| Ok((row.try_get("method")?, rows::big_count(row, "requests")?)))
}

/// Those of the paths that there are, as `CapturePlan::resolve` wants to know them.
pub(crate) async fn states(
    conn: &mut SqliteConnection,
    paths: &[PathKey],
) -> Result<HashMap<PathKey, PathState>, Fault> {
    let found = sqlx::query(
        "SELECT p.*, u.requests, u.bytes, u.last_number, u.last_id, u.last_request_at FROM json_each(?1) AS j
         CROSS JOIN webhook_path AS p ON p.key = unhex(j.value)
         CROSS JOIN webhook_path_usage AS u ON u.path_key = p.key
         WHERE p.removed = 0",
    )
    .bind(bulk::hex_list(paths.iter().map(|path| path.as_uuid()))?)
    .fetch_all(conn)
    .await?;
    let state = |row: &SqliteRow| {
        let (record, usage) = with_usage(row)?;
        Ok((record.key, PathState::of(&record, usage)))
    };
    found.iter().map(state).collect()
}

pub(crate) async fn set_usage(conn: &mut SqliteConnection, path: PathKey, usage: &PathUsage) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE webhook_path_usage SET requests = ?2, bytes = ?3, last_number = ?4, last_id = ?5, last_request_at = ?6
         WHERE path_key = ?1",
    )
    .bind(path.as_uuid())
    .bind(rows::number(usage.requests))
    .bind(rows::number(usage.bytes))
    .bind(rows::number(usage.last_number))
    .bind(usage.last_id.map(webhook_core::CaptureId::as_uuid))
    .bind(usage.last_request_at.map(Timestamp::as_millis))
    .execute(conn)
    .await?;
    Ok(())
}

/// The path holds so much less.
pub(crate) async fn lower_usage(
    conn: &mut SqliteConnection,
    path: PathKey,
    requests: u64,
    bytes: u64,
) -> Result<(), Fault> {
    sqlx::query("UPDATE webhook_path_usage SET requests = requests - ?2, bytes = bytes - ?3 WHERE path_key = ?1")
        .bind(path.as_uuid())
        .bind(rows::number(requests))
        .bind(rows::number(bytes))
        .execute(conn)
        .await?;
    Ok(())
}

pub(crate) async fn stats(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    now: Timestamp,
    active_since: Timestamp,
    limit: u32,
) -> Result<CaptureStats, Fault> {
    let row = sqlx::query(
        "SELECT count(*) AS paths, count(*) FILTER (WHERE u.last_request_at >= ?3) AS active,
           coalesce(sum(u.requests), 0) AS requests
         FROM webhook_path AS p CROSS JOIN webhook_path_usage AS u ON u.path_key = p.key
         WHERE p.tenant = ?1 AND p.removed = 0 AND (p.expires_at IS NULL OR p.expires_at > ?2)",
    )
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .bind(active_since.as_millis())
    .fetch_one(&mut *conn)
    .await?;
    let mut stats = CaptureStats::default();
    stats.paths = rows::big_count(&row, "paths")?;
    stats.active_paths = rows::big_count(&row, "active")?;
    stats.requests = rows::big_count(&row, "requests")?;
    stats.recent = captured::newest(conn, tenant, now, limit).await?;
    Ok(stats)
}

fn with_usage(row: &SqliteRow) -> Result<(PathRecord, PathUsage), Fault> {
    Ok((rows::path(row)?, rows::path_usage(row)?))
}
