//! Idempotency keys.

use sqlx::Row;
use webhook_core::TenantId;
use webhook_core::store::{IdempotencyKey, StoredKey};

use crate::error::Fault;
use crate::rows;
use crate::session::Conn;

/// Holds these names until the transaction ends, so that whoever else uses one of them waits and then sees it. All are
/// taken in one order, so that nobody waits for somebody who waits for them.
pub(crate) async fn lock<'a>(
    conn: &mut Conn<'_>,
    keys: impl Iterator<Item = (&'a TenantId, &'a IdempotencyKey)>,
) -> Result<(), Fault> {
    let (tenants, scopes, names) = names(keys);
    sqlx::query(
        "SELECT pg_advisory_xact_lock(l.key) FROM (
           SELECT DISTINCT hashtextextended('webhook.key/' || k.tenant || '/' || k.scope || '/' || encode(k.key, 'hex'), 0)
             AS key
           FROM unnest($1::text[], $2::text[], $3::bytea[]) AS k (tenant, scope, key) ORDER BY 1
         ) AS l",
    )
    .bind(tenants)
    .bind(scopes)
    .bind(names)
    .persistent(conn.persistent).execute(&mut *conn.inner)
    .await?;
    Ok(())
}

/// The keys stored under these names, expired ones included.
pub(crate) async fn stored<'a>(
    conn: &mut Conn<'_>,
    keys: impl Iterator<Item = (&'a TenantId, &'a IdempotencyKey)>,
) -> Result<Vec<StoredKey>, Fault> {
    let (tenants, scopes, names) = names(keys);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let found = sqlx::query(
        "SELECT DISTINCT k.tenant, k.scope, k.key, k.fingerprint, k.answer, k.expires_at
         FROM unnest($1::text[], $2::text[], $3::bytea[]) AS j (tenant, scope, key)
         JOIN webhook.idempotency_key AS k ON k.tenant = j.tenant AND k.scope = j.scope AND k.key = j.key",
    )
    .bind(tenants)
    .bind(scopes)
    .bind(names)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    rows::all(&found, |row| {
        let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
        let key: Vec<u8> = row.try_get("key")?;
        Ok(StoredKey {
            tenant: rows::tenant(row)?,
            scope: row.try_get("scope")?,
            key: String::from_utf8(key).map_err(|_| Fault::corrupt("not a key"))?,
            fingerprint: fingerprint.try_into().map_err(|_| Fault::corrupt("not a fingerprint"))?,
            answer: row.try_get("answer")?,
            expires_at: rows::time(row, "expires_at")?,
        })
    })
}

/// Remembers `keys`, in place of expired ones of the same name.
pub(crate) async fn remember(conn: &mut Conn<'_>, keys: &[StoredKey]) -> Result<(), Fault> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO webhook.idempotency_key (tenant, scope, key, fingerprint, answer, expires_at)
         SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bigint[])
         ON CONFLICT (tenant, scope, key) DO UPDATE SET
           fingerprint = excluded.fingerprint, answer = excluded.answer, expires_at = excluded.expires_at",
    )
    .bind(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.scope.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.key.as_bytes()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.fingerprint.as_slice()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.answer.as_slice()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.expires_at.as_millis()).collect::<Vec<_>>())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(())
}

type Names<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<&'a [u8]>);

fn names<'a>(keys: impl Iterator<Item = (&'a TenantId, &'a IdempotencyKey)>) -> Names<'a> {
    let mut names = Names::default();
    for (tenant, key) in keys {
        names.0.push(tenant.as_str());
        names.1.push(key.scope);
        names.2.push(key.key.as_bytes());
    }
    names
}
