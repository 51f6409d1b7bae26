//! Subscriptions and the count of their changes.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use webhook_core::store::{
    IndexEntry, Inserted, KeyedAnswer, Page, PageRequest, Position, StoredKey, SubscriptionChanges, SubscriptionStore,
    Updated,
};
use webhook_core::{
    DisabledReason, Generation, Sealed, StoreError, SubscriptionId, SubscriptionRecord, TenantId, Timestamp,
};

use crate::error::Fault;
use crate::store::SqliteStore;
use crate::{bulk, key, rows};

#[async_trait]
impl SubscriptionStore for SqliteStore {
    async fn insert_subscription(
        &self,
        record: &SubscriptionRecord,
        key: Option<&KeyedAnswer>,
    ) -> Result<Inserted, StoreError> {
        let input = (record.clone(), key.cloned());
        self.writer.run(1, input, |conn, (record, key)| Box::pin(insert(conn, record, key.as_ref()))).await
    }

    async fn update_subscription(&self, record: &SubscriptionRecord) -> Result<Updated, StoreError> {
        let record = record.clone();
        self.writer.run(1, record, |conn, record| Box::pin(update(conn, record))).await
    }

    async fn delete_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let input = (tenant.clone(), id, now);
        self.writer.run(1, input, |conn, (tenant, id, now)| Box::pin(delete(conn, tenant, *id, *now))).await
    }

    async fn subscriptions(&self, ids: &[(TenantId, SubscriptionId)]) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|(tenant, id)| (tenant.as_str(), bulk::hex(id.as_uuid()))).collect();
        let found = sqlx::query(
            "SELECT DISTINCT s.* FROM json_each(?1) AS j
             CROSS JOIN webhook_subscription AS s ON s.id = unhex(j.value ->> 1) AND s.tenant = j.value ->> 0
             WHERE s.deleted_at IS NULL",
        )
        .bind(bulk::json(&ids)?)
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(Fault::from)?;
        Ok(rows::all(&found, rows::subscription)?)
    }

    async fn find_subscription(&self, id: SubscriptionId) -> Result<Option<SubscriptionRecord>, StoreError> {
        let found = sqlx::query("SELECT * FROM webhook_subscription WHERE id = ?1 AND deleted_at IS NULL")
            .bind(id.as_uuid())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(Fault::from)?;
        Ok(found.as_ref().map(rows::subscription).transpose()?)
    }

    async fn list_subscriptions(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> Result<Page<SubscriptionRecord>, StoreError> {
        Ok(list(&mut *self.reader().await?, tenant, page).await?)
    }

    async fn subscription_changes(
        &self,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError> {
        Ok(changes(&mut *self.reader().await?, tenant, after, limit).await?)
    }

    async fn generations(&self, tenants: &[TenantId]) -> Result<Vec<Generation>, StoreError> {
        let known = generations(&mut *self.reader().await?, tenants.iter()).await?;
        Ok(tenants.iter().map(|tenant| known.get(tenant).copied().unwrap_or_default()).collect())
    }
}

/// The generations of those of the tenants that have one.
pub(crate) async fn generations(
    conn: &mut SqliteConnection,
    tenants: impl Iterator<Item = &TenantId>,
) -> Result<HashMap<TenantId, Generation>, Fault> {
    let mut names: Vec<_> = tenants.map(TenantId::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let names = bulk::json(&names)?;
    let found =
        sqlx::query("SELECT tenant, generation FROM webhook_tenant WHERE tenant IN (SELECT value FROM json_each(?1))")
            .bind(names)
            .fetch_all(conn)
            .await?;
    found.iter().map(|row| Ok((rows::tenant(row)?, Generation::new(row.try_get("generation")?)))).collect()
}

async fn next_generation(conn: &mut SqliteConnection, tenant: &TenantId) -> Result<Generation, Fault> {
    let next = sqlx::query_scalar(
        "INSERT INTO webhook_tenant (tenant, generation)
         VALUES (?1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1048576 + abs(random() % 1048576))
         ON CONFLICT (tenant) DO UPDATE SET generation = max(generation + 1, excluded.generation)
         RETURNING generation",
    )
    .bind(tenant.as_str())
    .fetch_one(conn)
    .await?;
    Ok(Generation::new(next))
}

async fn insert(
    conn: &mut SqliteConnection,
    record: &SubscriptionRecord,
    key: Option<&KeyedAnswer>,
) -> Result<Inserted, Fault> {
    let named = key.iter().map(|keyed| (&record.tenant, &keyed.key));
    let stored = key::stored(conn, named).await?.into_iter().find(|stored| stored.expires_at > record.created_at);
    if let (Some(stored), Some(keyed)) = (stored, key) {
        let same = stored.fingerprint == keyed.key.fingerprint;
        return Ok(if same { Inserted::Repeated(Sealed::from_bytes(stored.answer)) } else { Inserted::Conflict });
    }
    let generation = next_generation(conn, &record.tenant).await?;
    sqlx::query(
        "INSERT INTO webhook_subscription
           (id, tenant, version, disabled_reason, settings, secrets, paused_until, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(record.id.as_uuid())
    .bind(record.tenant.as_str())
    .bind(generation.get())
    .bind(record.disabled.as_ref().map(DisabledReason::as_str))
    .bind(bulk::json(&record.settings)?)
    .bind(record.secrets.as_bytes())
    .bind(record.paused_until.map(Timestamp::as_millis))
    .bind(record.created_at.as_millis())
    .bind(record.updated_at.as_millis())
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
    Ok(Inserted::Created(generation))
}

async fn update(conn: &mut SqliteConnection, record: &SubscriptionRecord) -> Result<Updated, Fault> {
    let version: Option<i64> = sqlx::query_scalar(
        "SELECT version FROM webhook_subscription WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL",
    )
    .bind(record.id.as_uuid())
    .bind(record.tenant.as_str())
    .fetch_optional(&mut *conn)
    .await?;
    match version {
        None => return Ok(Updated::Missing),
        Some(version) if version != record.version.get() => return Ok(Updated::Changed),
        Some(_) => {}
    }
    let generation = next_generation(conn, &record.tenant).await?;
    sqlx::query(
        "UPDATE webhook_subscription SET
           version = ?2, disabled_reason = ?3, settings = ?4, secrets = ?5, updated_at = ?6,
           paused_until = CASE
             WHEN disabled_reason IS ?3 AND settings ->> '$.target_url' IS ?4 ->> '$.target_url' THEN paused_until END
         WHERE id = ?1",
    )
    .bind(record.id.as_uuid())
    .bind(generation.get())
    .bind(record.disabled.as_ref().map(DisabledReason::as_str))
    .bind(bulk::json(&record.settings)?)
    .bind(record.secrets.as_bytes())
    .bind(record.updated_at.as_millis())
    .execute(conn)
    .await?;
    Ok(Updated::Done(generation))
}

async fn delete(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    id: SubscriptionId,
    now: Timestamp,
) -> Result<bool, Fault> {
    let found = sqlx::query("SELECT 1 FROM webhook_subscription WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL")
        .bind(id.as_uuid())
        .bind(tenant.as_str())
        .fetch_optional(&mut *conn)
        .await?;
    if found.is_none() {
        return Ok(false);
    }
    let generation = next_generation(conn, tenant).await?;
    sqlx::query(
        "UPDATE webhook_subscription SET version = ?2, deleted_at = ?3, settings = '{}', secrets = x'' WHERE id = ?1",
    )
    .bind(id.as_uuid())
    .bind(generation.get())
    .bind(now.as_millis())
    .execute(conn)
    .await?;
    Ok(true)
}

async fn list(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    page: PageRequest,
) -> Result<Page<SubscriptionRecord>, Fault> {
    let (after, offset) = match page.position {
        Position::Start => (None, 0),
        Position::After(id) => (Some(id), 0),
        Position::Offset(offset) => (None, i64::try_from(offset).unwrap_or(i64::MAX)),
    };
    let total = match page.position {
        Position::Offset(_) => {
            let sql = "SELECT count(*) AS total FROM webhook_subscription WHERE tenant = ?1 AND deleted_at IS NULL";
            let row = sqlx::query(sql).bind(tenant.as_str()).fetch_one(&mut *conn).await?;
            Some(rows::big_count(&row, "total")?)
        }
        _ => None,
    };
    let found = sqlx::query(
        "SELECT * FROM webhook_subscription
         WHERE tenant = ?1 AND deleted_at IS NULL AND (?2 IS NULL OR id < ?2)
         ORDER BY id DESC LIMIT ?3 OFFSET ?4",
    )
    .bind(tenant.as_str())
    .bind(after)
    .bind(i64::from(page.limit) + 1)
    .bind(offset)
    .fetch_all(conn)
    .await?;
    Ok(Page::from_probe(rows::all(&found, rows::subscription)?, page.limit, total))
}

/// What changed after a generation. One statement, so that the generation and the entries belong together.
pub(crate) async fn changes(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    after: Generation,
    limit: u32,
) -> Result<SubscriptionChanges, Fault> {
    let found = sqlx::query(
        "SELECT t.generation, s.id, s.version,
           CASE WHEN s.deleted_at IS NULL AND s.disabled_reason IS NULL THEN s.settings -> '$.events' END AS patterns
         FROM webhook_tenant AS t
         LEFT JOIN webhook_subscription AS s ON s.tenant = t.tenant AND s.version > ?2
         WHERE t.tenant = ?1 ORDER BY s.version LIMIT ?3",
    )
    .bind(tenant.as_str())
    .bind(after.get())
    .bind(i64::from(limit) + 1)
    .fetch_all(conn)
    .await?;
    let complete = found.len() <= limit as usize;
    // A tenant without a row has never changed.
    let generation = if found.is_empty() { Generation::ZERO } else { after };
    let mut changes = SubscriptionChanges { entries: Vec::with_capacity(found.len()), generation, complete };
    for row in found.iter().take(limit as usize) {
        if complete {
            changes.generation = Generation::new(row.try_get("generation")?);
        }
        let Some(id) = rows::id_opt(row, "id")? else { continue };
        let patterns = match row.try_get::<Option<&str>, _>("patterns")? {
            Some(patterns) => serde_json::from_str(patterns)?,
            None => Vec::new(),
        };
        let version = Generation::new(row.try_get("version")?);
        if !complete {
            changes.generation = version;
        }
        changes.entries.push(IndexEntry { id: SubscriptionId::from_uuid(id), version, patterns });
    }
    Ok(changes)
}

/// A pause until then, where one that stands may end later; or the end of a pause.
pub(crate) async fn pause(
    conn: &mut SqliteConnection,
    id: SubscriptionId,
    until: Option<Timestamp>,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE webhook_subscription SET paused_until = CASE WHEN ?2 IS NOT NULL THEN max(coalesce(paused_until, 0), ?2) END
         WHERE id = ?1 AND deleted_at IS NULL",
    )
    .bind(id.as_uuid())
    .bind(until.map(Timestamp::as_millis))
    .execute(conn)
    .await?;
    Ok(())
}

/// Disables a subscription whose target is gone, unless it is disabled already.
pub(crate) async fn disable_gone(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    id: SubscriptionId,
    now: Timestamp,
) -> Result<(), Fault> {
    let enabled = sqlx::query(
        "SELECT 1 FROM webhook_subscription
         WHERE id = ?1 AND tenant = ?2 AND deleted_at IS NULL AND disabled_reason IS NULL",
    )
    .bind(id.as_uuid())
    .bind(tenant.as_str())
    .fetch_optional(&mut *conn)
    .await?;
    if enabled.is_some() {
        let generation = next_generation(conn, tenant).await?;
        sqlx::query(
            "UPDATE webhook_subscription
             SET disabled_reason = ?2, version = ?3, updated_at = ?4, paused_until = NULL WHERE id = ?1",
        )
        .bind(id.as_uuid())
        .bind(DisabledReason::Gone.as_str())
        .bind(generation.get())
        .bind(now.as_millis())
        .execute(conn)
        .await?;
    }
    Ok(())
}
