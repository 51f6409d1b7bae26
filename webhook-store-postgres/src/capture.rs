//! Keeping capture paths and what reached them.

use std::collections::HashSet;
use std::net::IpAddr;

use async_trait::async_trait;
use webhook_core::store::{
    CaptureOutcome, CapturePlan, CapturePruneRequest, CapturePruneStep, CaptureStats, CaptureStore, IdempotencyKey,
    KeyedAnswer, NewCapture, Page, PageRequest, PathInserted, PathRecord, PathUpdated, PathUsage, PlannedCapture,
    ReadLimit,
};
use webhook_core::{
    CaptureFilter, CaptureId, CapturedRequest, IncomingRequest, PathId, PathKey, StoreError, SubscriptionId, TenantId,
    Timestamp,
};

use crate::error::Fault;
use crate::session::Conn;
use crate::store::PostgresStore;
use crate::{captured, event, path, rows, tenant};

#[async_trait]
impl CaptureStore for PostgresStore {
    async fn insert_path(&self, record: &PathRecord, key: Option<&KeyedAnswer>) -> Result<PathInserted, StoreError> {
        let mut session = self.writer().await?;
        let done = path::insert(&mut session.conn(), record, key).await;
        self.end(session, done).await
    }

    async fn keyed_path(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<PathInserted>, StoreError> {
        let mut session = self.reader().await?;
        let done = path::answered(&mut session.conn(), tenant, key, now).await;
        self.end(session, done).await
    }

    async fn update_path(&self, record: &PathRecord) -> Result<PathUpdated, StoreError> {
        let mut session = self.writer().await?;
        let done = path::update(&mut session.conn(), record).await;
        self.end(session, done).await
    }

    async fn delete_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<bool, StoreError> {
        let mut session = self.writer().await?;
        let done = path::delete(&mut session.conn(), tenant, path_id).await;
        self.end(session, done).await
    }

    async fn delete_expired_path(&self, key: PathKey, now: Timestamp) -> Result<bool, StoreError> {
        let mut session = self.writer().await?;
        let done = path::delete_expired(&mut session.conn(), key, now).await;
        self.end(session, done).await
    }

    async fn find_path(&self, path_id: &PathId) -> Result<Option<PathRecord>, StoreError> {
        let mut session = self.reader().await?;
        let done = path::find(&mut session.conn(), path_id).await;
        self.end(session, done).await
    }

    async fn path(&self, tenant: &TenantId, path_id: &PathId) -> Result<Option<(PathRecord, PathUsage)>, StoreError> {
        let mut session = self.reader().await?;
        let done = path::one(&mut session.conn(), tenant, path_id).await;
        self.end(session, done).await
    }

    async fn list_paths(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        page: PageRequest,
    ) -> Result<Page<(PathRecord, PathUsage)>, StoreError> {
        let mut session = self.reader().await?;
        let done = path::list(&mut session.conn(), tenant, now, page).await;
        self.end(session, done).await
    }

    async fn path_methods(&self, tenant: &TenantId, path_id: &PathId) -> Result<Vec<(String, u64)>, StoreError> {
        let mut session = self.reader().await?;
        let done = path::methods(&mut session.conn(), tenant, path_id).await;
        self.end(session, done).await
    }

    async fn capture(&self, now: Timestamp, requests: &[NewCapture]) -> Result<Vec<CaptureOutcome>, StoreError> {
        let mut session = self.writer().await?;
        let done = capture(&mut session.conn(), now, requests).await;
        self.end(session, done).await
    }

    async fn captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        id: CaptureId,
    ) -> Result<Option<CapturedRequest>, StoreError> {
        let mut session = self.reader().await?;
        let done = captured::one(&mut session.conn(), tenant, path_id, id).await;
        self.end(session, done).await
    }

    async fn list_captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        filter: &CaptureFilter,
        page: PageRequest,
        body_limit: u32,
    ) -> Result<Page<CapturedRequest>, StoreError> {
        if filter.text.as_ref().is_some_and(|text| !text.is_empty()) {
            return self.search(tenant, path_id, filter, page, body_limit).await;
        }
        let mut session = self.reader().await?;
        let done = captured::list(&mut session.conn(), tenant, path_id, filter, page, body_limit).await;
        self.end(session, done).await
    }

    async fn captured_after(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
        limit: ReadLimit,
    ) -> Result<Vec<CapturedRequest>, StoreError> {
        let mut session = self.reader().await?;
        let done = captured::after(&mut session.conn(), tenant, path_id, after, limit).await;
        self.end(session, done).await
    }

    async fn remove_captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<bool, StoreError> {
        let mut session = self.writer().await?;
        let done = captured::remove(&mut session.conn(), tenant, path_id, id).await;
        self.end(session, done).await
    }

    async fn remove_captured_through(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        through: CaptureId,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut session = self.writer().await?;
        let done = captured::remove_through(&mut session.conn(), tenant, path_id, through, limit).await;
        self.end(session, done).await
    }

    async fn prune_captured(&self, request: CapturePruneRequest) -> Result<CapturePruneStep, StoreError> {
        let mut session = self.writer().await?;
        let done = captured::prune(&mut session.conn(), request).await;
        self.end(session, done).await
    }

    async fn capture_stats(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        active_since: Timestamp,
        limit: u32,
    ) -> Result<CaptureStats, StoreError> {
        let mut session = self.reader().await?;
        let done = path::stats(&mut session.conn(), tenant, now, active_since, limit).await;
        self.end(session, done).await
    }
}

/// Keeps requests inside the transaction that `conn` is in.
async fn capture(conn: &mut Conn<'_>, now: Timestamp, requests: &[NewCapture]) -> Result<Vec<CaptureOutcome>, Fault> {
    // Subscriptions first, then paths: everybody locks in this order.
    let live = live(conn, CapturePlan::subscriptions_of(requests)).await?;
    let states = path::states(conn, &CapturePlan::paths_of(requests)).await?;
    let plan = CapturePlan::resolve(requests, now, states, &live);
    insert(conn, &plan.requests).await?;
    for (key, usage) in &plan.usage {
        path::set_usage(conn, *key, usage).await?;
    }
    for eviction in &plan.evictions {
        let oldest = captured::oldest(conn, eviction.path, eviction.limit).await?;
        if let Some(evicted) = eviction.choose(oldest) {
            captured::delete_through(conn, eviction.path, evicted.through).await?;
            path::lower_usage(conn, eviction.path, evicted.requests, evicted.bytes).await?;
        }
    }
    event::insert_all(conn, &plan.events.iter().collect::<Vec<_>>()).await?;
    Ok(plan.outcomes)
}

/// Those of the subscriptions that are not deleted, and stay so until the transaction ends.
async fn live(
    conn: &mut Conn<'_>,
    subscriptions: HashSet<(TenantId, SubscriptionId)>,
) -> Result<HashSet<(TenantId, SubscriptionId)>, Fault> {
    if subscriptions.is_empty() {
        return Ok(subscriptions);
    }
    tenant::lock_all_shared(conn, subscriptions.iter().map(|(tenant, _)| tenant)).await?;
    let found = sqlx::query(
        "SELECT s.id, s.tenant FROM unnest($1::text[], $2::uuid[]) AS j (tenant, id)
         JOIN webhook.subscription AS s ON s.id = j.id AND s.tenant = j.tenant
         WHERE s.deleted_at IS NULL",
    )
    .bind(subscriptions.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
    .bind(subscriptions.iter().map(|(_, id)| id.as_uuid()).collect::<Vec<_>>())
    .persistent(conn.persistent)
    .fetch_all(&mut *conn.inner)
    .await?;
    found.iter().map(|row| Ok((rows::tenant(row)?, SubscriptionId::from_uuid(rows::id(row, "id")?)))).collect()
}

async fn insert(conn: &mut Conn<'_>, requests: &[PlannedCapture<'_>]) -> Result<(), Fault> {
    if requests.is_empty() {
        return Ok(());
    }
    fn each<'a, T>(requests: &'a [PlannedCapture<'_>], value: impl Fn(&'a PlannedCapture<'_>) -> T) -> Vec<T> {
        requests.iter().map(value).collect()
    }
    let address = |address: Option<IpAddr>| address.map(|address| address.to_string());
    sqlx::query(
        "INSERT INTO webhook.captured_request
           (id, path_key, tenant, number, method, path, query, http_version, ip_address, peer_address, body_size,
            body_sha256, body_truncated, response_status, received_at, headers, trailers, body)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
           $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bytea[], $13::bool[], $14::smallint[],
           $15::bigint[], $16::bytea[], $17::bytea[], $18::bytea[])",
    )
    .bind(each(requests, |planned| planned.id.as_uuid()))
    .bind(each(requests, |planned| planned.new.path.as_uuid()))
    .bind(each(requests, |planned| planned.new.request.tenant.as_str()))
    .bind(each(requests, |planned| rows::number(planned.number)))
    .bind(each(requests, |planned| planned.new.request.request.method.as_str()))
    .bind(each(requests, |planned| planned.new.request.request.path.as_str()))
    .bind(each(requests, |planned| planned.new.request.request.query.as_deref()))
    .bind(each(requests, |planned| planned.new.request.request.http_version.as_str()))
    .bind(each(requests, |planned| address(planned.new.request.request.ip_address)))
    .bind(each(requests, |planned| address(planned.new.request.request.peer_address)))
    .bind(each(requests, |planned| rows::number(planned.new.request.request.body_size)))
    .bind(each(requests, |planned| planned.new.request.request.body_sha256.as_slice()))
    .bind(each(requests, |planned| planned.new.request.request.body_truncated))
    // A status has three digits.
    .bind(each(requests, |planned| i16::try_from(planned.new.request.response_status).unwrap_or(0)))
    .bind(each(requests, |planned| planned.new.request.received_at.as_millis()))
    .bind(each(requests, |planned| IncomingRequest::lines_of(&planned.new.request.request.headers)))
    .bind(each(requests, |planned| IncomingRequest::lines_of(&planned.new.request.request.trailers)))
    .bind(each(requests, |planned| &*planned.new.request.request.body))
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(())
}
