//! Subscriptions and the count of their changes.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Row;
use tokio::time::Instant;
use webhook_core::store::{
    IndexEntry, Inserted, KeyedAnswer, Page, PageRequest, Position, StoredKey, SubscriptionChanges, SubscriptionStore,
    Updated,
};
use webhook_core::{
    DisabledReason, Generation, Sealed, StoreError, SubscriptionId, SubscriptionRecord, TenantId, Timestamp,
};

use crate::error::Fault;
use crate::session::Conn;
use crate::store::PostgresStore;
use crate::tenant::Turn;
use crate::{key, rows, tenant};

#[async_trait]
impl SubscriptionStore for PostgresStore {
    async fn insert_subscription(
        &self,
        record: &SubscriptionRecord,
        key: Option<&KeyedAnswer>,
    ) -> Result<Inserted, StoreError> {
        let mut turns = self.line.turns(&record.tenant);
        loop {
            let turn = turns.next().await?;
            let mut session = self.writer().await?;
            let inserted = insert(&mut session.conn(), record, key, turn).await;
            if let Some(inserted) = self.end(session, inserted).await? {
                return Ok(inserted);
            }
        }
    }

    async fn update_subscription(&self, record: &SubscriptionRecord) -> Result<Updated, StoreError> {
        let mut turns = self.line.turns(&record.tenant);
        loop {
            let turn = turns.next().await?;
            let mut session = self.writer().await?;
            let updated = update(&mut session.conn(), record, turn).await;
            if let Some(updated) = self.end(session, updated).await? {
                return Ok(updated);
            }
        }
    }

    async fn delete_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut turns = self.line.turns(tenant);
        loop {
            let turn = turns.next().await?;
            let mut session = self.writer().await?;
            let deleted = delete(&mut session.conn(), tenant, id, now, turn).await;
            if let Some(deleted) = self.end(session, deleted).await? {
                return Ok(deleted);
            }
        }
    }

    async fn subscriptions(&self, ids: &[(TenantId, SubscriptionId)]) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let mut session = self.worker_reader().await?;
        let found = with_ids(&mut session.conn(), ids).await;
        self.end(session, found).await
    }

    async fn find_subscription(&self, id: SubscriptionId) -> Result<Option<SubscriptionRecord>, StoreError> {
        let mut session = self.reader().await?;
        let found = find(&mut session.conn(), id).await;
        self.end(session, found).await
    }

    async fn list_subscriptions(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> Result<Page<SubscriptionRecord>, StoreError> {
        let mut session = self.reader().await?;
        let page = list(&mut session.conn(), tenant, page).await;
        self.end(session, page).await
    }

    async fn subscription_changes(
        &self,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError> {
        let mut session = self.reader().await?;
        let changes = changes(&mut session.conn(), tenant, after, limit).await;
        self.end(session, changes).await
    }

    async fn generations(&self, tenants: &[TenantId]) -> Result<Vec<Generation>, StoreError> {
        let mut session = self.reader().await?;
        let asked = Instant::now();
        let known = generations(&mut session.conn(), tenants.iter()).await;
        let (known, time) = self.end(session, known).await?;
        if let Some(micros) = time {
            self.clock.learn(asked, micros);
        }
        Ok(tenants.iter().map(|tenant| known.get(tenant).copied().unwrap_or_default()).collect())
    }
}

async fn with_ids(conn: &mut Conn<'_>, ids: &[(TenantId, SubscriptionId)]) -> Result<Vec<SubscriptionRecord>, Fault> {
    let found = sqlx::query(
        "SELECT s.* FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::uuid[])) AS j (tenant, id)
         JOIN webhook.subscription AS s ON s.id = j.id AND s.tenant = j.tenant
         WHERE s.deleted_at IS NULL",
    )
    .bind(ids.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(ids.iter().map(|(_, id)| id.as_uuid()).collect::<Vec<_>>())
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    rows::all(&found, rows::subscription)
}

async fn find(conn: &mut Conn<'_>, id: SubscriptionId) -> Result<Option<SubscriptionRecord>, Fault> {
    let found = sqlx::query("SELECT * FROM webhook.subscription WHERE id = $1 AND deleted_at IS NULL")
        .bind(id.as_uuid())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
    found.as_ref().map(rows::subscription).transpose()
}

/// The generations of those of the tenants that have one, and the database's time in microseconds, where it told.
pub(crate) async fn generations(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &TenantId>,
) -> Result<(HashMap<TenantId, Generation>, Option<i64>), Fault> {
    let mut names: Vec<_> = tenants.map(TenantId::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let found = sqlx::query(
        "SELECT tenant, generation, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros
         FROM webhook.tenant WHERE tenant = ANY ($1)",
    )
    .bind(names)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    let time = found.last().map(|row| row.try_get("micros")).transpose()?;
    let known = found.iter().map(|row| Ok((rows::tenant(row)?, Generation::new(row.try_get("generation")?))));
    Ok((known.collect::<Result<_, Fault>>()?, time))
}

/// The same, and they stay as they are until the transaction ends.
pub(crate) async fn generations_locked(
    conn: &mut Conn<'_>,
    tenants: impl Iterator<Item = &TenantId> + Clone,
) -> Result<(HashMap<TenantId, Generation>, Option<i64>), Fault> {
    tenant::lock_all_shared(conn, tenants.clone()).await?;
    generations(conn, tenants).await
}

async fn next_generation(conn: &mut Conn<'_>, tenant: &TenantId) -> Result<Generation, Fault> {
    let next = sqlx::query_scalar(
        "INSERT INTO webhook.tenant AS t (tenant, generation)
         VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint * 1048576 + (random() * 1048575)::bigint)
         ON CONFLICT (tenant) DO UPDATE SET generation = greatest(t.generation + 1, excluded.generation)
         RETURNING generation",
    )
    .bind(tenant.as_str())
    .persistent(conn.persistent)
    .fetch_one(&mut *conn.inner)
    .await?;
    Ok(Generation::new(next))
}

/// None when it was not its turn.
async fn insert(
    conn: &mut Conn<'_>,
    record: &SubscriptionRecord,
    key: Option<&KeyedAnswer>,
    turn: Turn,
) -> Result<Option<Inserted>, Fault> {
    if let Some(keyed) = key {
        key::lock(conn, std::iter::once((&record.tenant, &keyed.key))).await?;
    }
    if !tenant::lock(conn, &record.tenant, turn).await? {
        return Ok(None);
    }
    let named = key.iter().map(|keyed| (&record.tenant, &keyed.key));
    let stored = key::stored(conn, named).await?.into_iter().find(|stored| stored.expires_at > record.created_at);
    if let (Some(stored), Some(keyed)) = (stored, key) {
        let same = stored.fingerprint == keyed.key.fingerprint;
        return Ok(Some(if same { Inserted::Repeated(Sealed::from_bytes(stored.answer)) } else { Inserted::Conflict }));
    }
    let generation = next_generation(conn, &record.tenant).await?;
    sqlx::query(
        "INSERT INTO webhook.subscription
           (id, tenant, version, disabled_reason, settings, secrets, paused_until, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(record.id.as_uuid())
    .bind(record.tenant.as_str())
    .bind(generation.get())
    .bind(record.disabled.as_ref().map(DisabledReason::as_str))
    .bind(serde_json::to_string(&record.settings)?)
    .bind(record.secrets.as_bytes())
    .bind(record.paused_until.map(Timestamp::as_millis))
    .bind(record.created_at.as_millis())
    .bind(record.updated_at.as_millis())
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
    Ok(Some(Inserted::Created(generation)))
}

/// None when it was not its turn.
async fn update(conn: &mut Conn<'_>, record: &SubscriptionRecord, turn: Turn) -> Result<Option<Updated>, Fault> {
    if !tenant::lock(conn, &record.tenant, turn).await? {
        return Ok(None);
    }
    let version: Option<i64> = sqlx::query_scalar(
        "SELECT version FROM webhook.subscription WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL",
    )
    .bind(record.id.as_uuid())
    .bind(record.tenant.as_str())
    .persistent(conn.persistent)
    .fetch_optional(&mut *conn.inner)
    .await?;
    match version {
        None => return Ok(Some(Updated::Missing)),
        Some(version) if version != record.version.get() => return Ok(Some(Updated::Changed)),
        Some(_) => {}
    }
    let generation = next_generation(conn, &record.tenant).await?;
    sqlx::query(
        "UPDATE webhook.subscription SET
           version = $2, disabled_reason = $3::text, settings = $4::text, secrets = $5, updated_at = $6,
           paused_until = CASE
             WHEN disabled_reason IS NOT DISTINCT FROM $3::text
               AND settings::json ->> 'target_url' IS NOT DISTINCT FROM $4::text::json ->> 'target_url' THEN paused_until END
         WHERE id = $1",
    )
    .bind(record.id.as_uuid())
    .bind(generation.get())
    .bind(record.disabled.as_ref().map(DisabledReason::as_str))
    .bind(serde_json::to_string(&record.settings)?)
    .bind(record.secrets.as_bytes())
    .bind(record.updated_at.as_millis())
    .persistent(conn.persistent).execute(&mut *conn.inner)
    .await?;
    Ok(Some(Updated::Done(generation)))
}

/// None when it was not its turn.
async fn delete(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    id: SubscriptionId,
    now: Timestamp,
    turn: Turn,
) -> Result<Option<bool>, Fault> {
    if !tenant::lock(conn, tenant, turn).await? {
        return Ok(None);
    }
    let found = sqlx::query("SELECT 1 FROM webhook.subscription WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL")
        .bind(id.as_uuid())
        .bind(tenant.as_str())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
    if found.is_none() {
        return Ok(Some(false));
    }
    let generation = next_generation(conn, tenant).await?;
    sqlx::query(
        "UPDATE webhook.subscription SET version = $2, deleted_at = $3, settings = '{}', secrets = '' WHERE id = $1",
    )
    .bind(id.as_uuid())
    .bind(generation.get())
    .bind(now.as_millis())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(Some(true))
}

async fn list(conn: &mut Conn<'_>, tenant: &TenantId, page: PageRequest) -> Result<Page<SubscriptionRecord>, Fault> {
    let (after, offset) = match page.position {
        Position::Start => (None, 0),
        Position::After(id) => (Some(id), 0),
        Position::Offset(offset) => (None, i64::try_from(offset).unwrap_or(i64::MAX)),
    };
    let total = match page.position {
        Position::Offset(_) => {
            let sql = "SELECT count(*) AS total FROM webhook.subscription WHERE tenant = $1 AND deleted_at IS NULL";
            let row =
                sqlx::query(sql).bind(tenant.as_str()).persistent(conn.persistent).fetch_one(&mut *conn.inner).await?;
            Some(rows::big_count(&row, "total")?)
        }
        _ => None,
    };
    let found = sqlx::query(
        "SELECT * FROM webhook.subscription
         WHERE tenant = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3 OFFSET $4",
    )
    .bind(tenant.as_str())
    .bind(after)
    .bind(i64::from(page.limit) + 1)
    .bind(offset)
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    Ok(Page::from_probe(rows::all(&found, rows::subscription)?, page.limit, total))
}

/// What changed after a generation. One statement, so that the generation and the entries belong together.
pub(crate) async fn changes(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    after: Generation,
    limit: u32,
) -> Result<SubscriptionChanges, Fault> {
    let found = sqlx::query(
        "SELECT t.generation, s.id, s.version,
           CASE WHEN s.deleted_at IS NULL AND s.disabled_reason IS NULL THEN (s.settings::json -> 'events')::text END AS patterns
         FROM webhook.tenant AS t
         LEFT JOIN webhook.subscription AS s ON s.tenant = t.tenant AND s.version > $2
         WHERE t.tenant = $1 ORDER BY s.version LIMIT $3",
    )
    .bind(tenant.as_str())
    .bind(after.get())
    .bind(i64::from(limit) + 1)
    .persistent(conn.persistent).fetch_all(&mut *conn.inner)
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
pub(crate) async fn pause(conn: &mut Conn<'_>, id: SubscriptionId, until: Option<Timestamp>) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE webhook.subscription SET paused_until = CASE WHEN $2::bigint IS NOT NULL THEN greatest(paused_until, $2) END
         WHERE id = $1 AND deleted_at IS NULL",
    )
    .bind(id.as_uuid())
    .bind(until.map(Timestamp::as_millis))
    .persistent(conn.persistent).execute(&mut *conn.inner)
    .await?;
    Ok(())
}

/// Disables a subscription whose target is gone, unless it is disabled already. The tenant is locked.
pub(crate) async fn disable_gone(
    conn: &mut Conn<'_>,
    tenant: &TenantId,
    id: SubscriptionId,
    now: Timestamp,
) -> Result<(), Fault> {
    let enabled = sqlx::query(
        "SELECT 1 FROM webhook.subscription
         WHERE id = $1 AND tenant = $2 AND deleted_at IS NULL AND disabled_reason IS NULL",
    )
    .bind(id.as_uuid())
    .bind(tenant.as_str())
    .persistent(conn.persistent)
    .fetch_optional(&mut *conn.inner)
    .await?;
    if enabled.is_some() {
        let generation = next_generation(conn, tenant).await?;
        sqlx::query(
            "UPDATE webhook.subscription
             SET disabled_reason = $2, version = $3, updated_at = $4, paused_until = NULL WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(DisabledReason::Gone.as_str())
        .bind(generation.get())
        .bind(now.as_millis())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
    }
    Ok(())
}
