//! Idempotency keys.

use sqlx::{Row, SqliteConnection};
use webhook_core::TenantId;
use webhook_core::store::{IdempotencyKey, StoredKey};

use crate::bulk;
use crate::error::Fault;
use crate::rows;

/// The keys stored under these names, expired ones included.
pub(crate) async fn stored(
    conn: &mut SqliteConnection,
    keys: impl Iterator<Item = (&TenantId, &IdempotencyKey)>,
) -> Result<Vec<StoredKey>, Fault> {
    let names: Vec<_> = keys.map(|(tenant, key)| (tenant.as_str(), key.scope, key.key.as_str())).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names = bulk::json(&names)?;
    let found = sqlx::query(
        "SELECT DISTINCT k.tenant, k.scope, k.key, k.fingerprint, k.answer, k.expires_at
         FROM json_each(?1) AS j
         CROSS JOIN webhook_idempotency_key AS k
           ON k.tenant = j.value ->> 0 AND k.scope = j.value ->> 1 AND k.key = j.value ->> 2",
    )
    .bind(names)
    .fetch_all(conn)
    .await?;
    rows::all(&found, |row| {
        let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
        Ok(StoredKey {
            tenant: rows::tenant(row)?,
            scope: row.try_get("scope")?,
            key: row.try_get("key")?,
            fingerprint: fingerprint.try_into().map_err(|_| Fault::corrupt("not a fingerprint"))?,
            answer: row.try_get("answer")?,
            expires_at: rows::time(row, "expires_at")?,
        })
    })
}

/// Remembers `keys`, in place of expired ones of the same name.
pub(crate) async fn remember(conn: &mut SqliteConnection, keys: &[StoredKey]) -> Result<(), Fault> {
    bulk::insert(
        conn,
        "INSERT INTO webhook_idempotency_key (tenant, scope, key, fingerprint, answer, expires_at)",
        6,
        "ON CONFLICT (tenant, scope, key) DO UPDATE SET
           fingerprint = excluded.fingerprint, answer = excluded.answer, expires_at = excluded.expires_at",
        keys,
        |query, key| {
            Ok(query
                .bind(key.tenant.as_str().to_owned())
                .bind(key.scope.clone())
                .bind(key.key.clone())
                .bind(key.fingerprint.to_vec())
                .bind(key.answer.clone())
                .bind(key.expires_at.as_millis()))
        },
    )
    .await
}
