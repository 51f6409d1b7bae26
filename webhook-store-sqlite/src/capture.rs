//! Keeping capture paths and what reached them.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::SqliteConnection;
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
use crate::store::SqliteStore;
use crate::{bulk, captured, event, path, rows};

#[async_trait]
impl CaptureStore for SqliteStore {
    async fn insert_path(&self, record: &PathRecord, key: Option<&KeyedAnswer>) -> Result<PathInserted, StoreError> {
        let input = (record.clone(), key.cloned());
        self.writer.run(1, input, |conn, (record, key)| Box::pin(path::insert(conn, record, key.as_ref()))).await
    }

    async fn keyed_path(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<PathInserted>, StoreError> {
        Ok(path::answered(&mut *self.reader().await?, tenant, key, now).await?)
    }

    async fn update_path(&self, record: &PathRecord) -> Result<PathUpdated, StoreError> {
        let record = record.clone();
        self.writer.run(1, record, |conn, record| Box::pin(path::update(conn, record))).await
    }

    async fn delete_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<bool, StoreError> {
        let input = (tenant.clone(), path_id.clone());
        self.writer.run(1, input, |conn, (tenant, path_id)| Box::pin(path::delete(conn, tenant, path_id))).await
    }

    async fn delete_expired_path(&self, key: PathKey, now: Timestamp) -> Result<bool, StoreError> {
        self.writer.run(1, (key, now), |conn, (key, now)| Box::pin(path::delete_expired(conn, *key, *now))).await
    }

    async fn find_path(&self, path_id: &PathId) -> Result<Option<PathRecord>, StoreError> {
        Ok(path::find(&mut *self.reader().await?, path_id).await?)
    }

    async fn path(&self, tenant: &TenantId, path_id: &PathId) -> Result<Option<(PathRecord, PathUsage)>, StoreError> {
        Ok(path::one(&mut *self.reader().await?, tenant, path_id).await?)
    }

    async fn list_paths(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        page: PageRequest,
    ) -> Result<Page<(PathRecord, PathUsage)>, StoreError> {
        Ok(path::list(&mut *self.reader().await?, tenant, now, page).await?)
    }

    async fn path_methods(&self, tenant: &TenantId, path_id: &PathId) -> Result<Vec<(String, u64)>, StoreError> {
        Ok(path::methods(&mut *self.reader().await?, tenant, path_id).await?)
    }

    async fn capture(&self, now: Timestamp, requests: &[NewCapture]) -> Result<Vec<CaptureOutcome>, StoreError> {
        let weight = requests.iter().map(|new| 1 + 2 * new.forwards.len()).sum();
        let input = (now, requests.to_vec());
        self.writer.run(weight, input, |conn, (now, requests)| Box::pin(capture(conn, *now, requests))).await
    }

    async fn captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        id: CaptureId,
    ) -> Result<Option<CapturedRequest>, StoreError> {
        Ok(captured::one(&mut *self.reader().await?, tenant, path_id, id).await?)
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
        Ok(captured::list(&mut *self.reader().await?, tenant, path_id, filter, page, body_limit).await?)
    }

    async fn captured_after(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
        limit: ReadLimit,
    ) -> Result<Vec<CapturedRequest>, StoreError> {
        Ok(captured::after(&mut *self.reader().await?, tenant, path_id, after, limit).await?)
    }

    async fn remove_captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<bool, StoreError> {
        let input = (tenant.clone(), path_id.clone());
        self.writer
            .run(1, input, move |conn, (tenant, path_id)| Box::pin(captured::remove(conn, tenant, path_id, id)))
            .await
    }

    async fn remove_captured_through(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        through: CaptureId,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let input = (tenant.clone(), path_id.clone());
        self.writer
            .run(limit as usize, input, move |conn, (tenant, path_id)| {
                Box::pin(captured::remove_through(conn, tenant, path_id, through, limit))
            })
            .await
    }

    async fn prune_captured(&self, request: CapturePruneRequest) -> Result<CapturePruneStep, StoreError> {
        let weight = request.limit as usize;
        self.writer.run(weight, request, |conn, request| Box::pin(captured::prune(conn, *request))).await
    }

    async fn capture_stats(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        active_since: Timestamp,
        limit: u32,
    ) -> Result<CaptureStats, StoreError> {
        Ok(path::stats(&mut *self.reader().await?, tenant, now, active_since, limit).await?)
    }
}

/// Keeps requests inside the transaction that `conn` is in.
async fn capture(
    conn: &mut SqliteConnection,
    now: Timestamp,
    requests: &[NewCapture],
) -> Result<Vec<CaptureOutcome>, Fault> {
    let states = path::states(conn, &CapturePlan::paths_of(requests)).await?;
    let live = live(conn, CapturePlan::subscriptions_of(requests)).await?;
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

/// Those of the subscriptions that are not deleted.
async fn live(
    conn: &mut SqliteConnection,
    subscriptions: HashSet<(TenantId, SubscriptionId)>,
) -> Result<HashSet<(TenantId, SubscriptionId)>, Fault> {
    if subscriptions.is_empty() {
        return Ok(subscriptions);
    }
    let ids: Vec<_> = subscriptions.iter().map(|(tenant, id)| (tenant.as_str(), bulk::hex(id.as_uuid()))).collect();
    let found = sqlx::query(
        "SELECT s.id, s.tenant FROM json_each(?1) AS j
         CROSS JOIN webhook_subscription AS s ON s.id = unhex(j.value ->> 1) AND s.tenant = j.value ->> 0
         WHERE s.deleted_at IS NULL",
    )
    .bind(bulk::json(&ids)?)
    .fetch_all(conn)
    .await?;
    found.iter().map(|row| Ok((rows::tenant(row)?, SubscriptionId::from_uuid(rows::id(row, "id")?)))).collect()
}

async fn insert(conn: &mut SqliteConnection, requests: &[PlannedCapture<'_>]) -> Result<(), Fault> {
    bulk::insert(
        conn,
        "INSERT INTO webhook_captured_request
           (id, path_key, tenant, number, method, path, query, http_version, ip_address, peer_address, body_size,
            body_sha256, body_truncated, response_status, received_at, headers, trailers, body)",
        18,
        "",
        requests,
        |query, planned| {
            let captured = &planned.new.request;
            let request = &captured.request;
            Ok(query
                .bind(planned.id.as_uuid())
                .bind(planned.new.path.as_uuid())
                .bind(captured.tenant.as_str().to_owned())
                .bind(rows::number(planned.number))
                .bind(request.method.clone())
                .bind(request.path.clone())
                .bind(request.query.clone())
                .bind(request.http_version.clone())
                .bind(request.ip_address.map(|address| address.to_string()))
                .bind(request.peer_address.map(|address| address.to_string()))
                .bind(rows::number(request.body_size))
                .bind(request.body_sha256.to_vec())
                .bind(request.body_truncated)
                .bind(captured.response_status)
                .bind(captured.received_at.as_millis())
                .bind(IncomingRequest::lines_of(&request.headers))
                .bind(IncomingRequest::lines_of(&request.trailers))
                .bind(request.body.to_vec()))
        },
    )
    .await
}
