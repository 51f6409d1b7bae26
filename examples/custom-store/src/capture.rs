//! Capture paths and requests.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use webhook_core::store::{
    CaptureOutcome, CapturePlan, CapturePruneRequest, CapturePruneStep, CaptureStats, CaptureStore, IdempotencyKey,
    KeyedAnswer, NewCapture, PATH_METHODS, Page, PageRequest, PathInserted, PathRecord, PathState, PathUpdated,
    PathUsage, ReadLimit, StoredKey,
};
use webhook_core::{
    CaptureFilter, CaptureId, CapturedRequest, PathId, PathKey, Sealed, StoreError, TenantId, Timestamp,
};

use crate::capture_rows::{CapturedRow, PathRow};
use crate::page::page;
use crate::tables::{Change, Tables};
use crate::{JournalStore, Transaction};

#[async_trait]
impl CaptureStore for JournalStore {
    async fn insert_path(&self, record: &PathRecord, key: Option<&KeyedAnswer>) -> Result<PathInserted, StoreError> {
        self.write(|tx| {
            if let Some(keyed) = key
                && let Some(answered) = tx.tables.keyed_path(&record.tenant, &keyed.key, record.created_at)
            {
                return answered;
            }
            if tx.tables.path_named(&record.path_id).is_some() {
                return PathInserted::Taken;
            }
            if let Some(keyed) = key {
                let (tenant, scope, key) = key_name(&record.tenant, &keyed.key);
                let answer = keyed.answer.as_bytes().to_vec();
                let (fingerprint, expires_at) = (keyed.key.fingerprint, keyed.key.expires_at);
                tx.put(Change::Key(StoredKey { tenant, scope, key, fingerprint, answer, expires_at }.into()));
            }
            tx.put(Change::Path(PathRow::new(record, PathUsage::default())));
            PathInserted::Created
        })
    }

    async fn keyed_path(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<PathInserted>, StoreError> {
        self.read(|tables| tables.keyed_path(tenant, key, now))
    }

    async fn update_path(&self, record: &PathRecord) -> Result<PathUpdated, StoreError> {
        self.write(|tx| {
            let row = tx.tables.path(&record.tenant, &record.path_id).filter(|row| row.key == record.key);
            let Some(row) = row else { return PathUpdated::Missing };
            if row.version != record.version {
                return PathUpdated::Changed;
            }
            let (version, usage) = (record.version.next(), row.usage());
            let mut record = record.clone();
            record.version = version;
            tx.put(Change::Path(PathRow::new(&record, usage)));
            PathUpdated::Done(version)
        })
    }

    async fn delete_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<bool, StoreError> {
        self.write(|tx| {
            let key = tx.tables.path(tenant, path_id).map(|row| row.key);
            key.map(|key| tx.put(Change::PathGone(key))).is_some()
        })
    }

    async fn delete_expired_path(&self, key: PathKey, now: Timestamp) -> Result<bool, StoreError> {
        self.write(|tx| {
            let expired = tx.tables.paths.get(&key).is_some_and(|row| row.record().has_expired(now));
            if expired {
                tx.put(Change::PathGone(key));
            }
            expired
        })
    }

    async fn find_path(&self, path_id: &PathId) -> Result<Option<PathRecord>, StoreError> {
        self.read(|tables| tables.path_named(path_id).map(PathRow::record))
    }

    async fn path(&self, tenant: &TenantId, path_id: &PathId) -> Result<Option<(PathRecord, PathUsage)>, StoreError> {
        self.read(|tables| tables.path(tenant, path_id).map(|row| (row.record(), row.usage())))
    }

    async fn list_paths(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        request: PageRequest,
    ) -> Result<Page<(PathRecord, PathUsage)>, StoreError> {
        self.read(|tables| {
            let rows = tables.paths_of(tenant, now).map(|row| (row.key.as_uuid(), row));
            page(rows, request).map(|row| (row.record(), row.usage()))
        })
    }

    async fn path_methods(&self, tenant: &TenantId, path_id: &PathId) -> Result<Vec<(String, u64)>, StoreError> {
        self.read(|tables| {
            let mut methods: BTreeMap<String, u64> = BTreeMap::new();
            for row in tables.captured(tenant, path_id) {
                *methods.entry(row.method.clone()).or_default() += 1;
            }
            let mut counted: Vec<_> = methods.into_iter().collect();
            counted.sort_by_key(|(_, requests)| Reverse(*requests));
            counted.truncate(PATH_METHODS);
            counted
        })
    }

    async fn capture(&self, now: Timestamp, requests: &[NewCapture]) -> Result<Vec<CaptureOutcome>, StoreError> {
        self.write(|tx| {
            let rows = CapturePlan::paths_of(requests).into_iter().filter_map(|key| tx.tables.paths.get(&key));
            let states: HashMap<_, _> = rows.map(|row| (row.key, PathState::of(&row.record(), row.usage()))).collect();
            let live = CapturePlan::subscriptions_of(requests);
            let live = live.into_iter().filter(|(tenant, id)| tx.tables.subscription(tenant, *id).is_some()).collect();
            let plan = CapturePlan::resolve(requests, now, states, &live);
            for planned in &plan.requests {
                tx.put(Change::Captured(CapturedRow::new(planned)));
            }
            for (key, usage) in &plan.usage {
                let record = tx.tables.paths.get(key).map(PathRow::record);
                if let Some(record) = record {
                    tx.put(Change::Path(PathRow::new(&record, *usage)));
                }
            }
            for eviction in &plan.evictions {
                let oldest = tx.tables.oldest(eviction.path).take(eviction.limit as usize);
                if let Some(evicted) = eviction.choose(oldest.map(|row| (row.id, row.kept()))) {
                    tx.remove_captured(eviction.path, |id| id <= evicted.through, usize::MAX);
                }
            }
            for item in &plan.events {
                tx.insert_event(item);
            }
            plan.outcomes
        })
    }

    async fn captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        id: CaptureId,
    ) -> Result<Option<CapturedRequest>, StoreError> {
        self.read(|tables| tables.captured(tenant, path_id).find(|row| row.id == id).map(CapturedRow::captured))
    }

    async fn list_captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        filter: &CaptureFilter,
        request: PageRequest,
        body_limit: u32,
    ) -> Result<Page<CapturedRequest>, StoreError> {
        self.read(|tables| {
            let newest = tables.captured(tenant, path_id).rev().map(CapturedRow::captured);
            let wanted = newest.filter(|captured| filter.matches(captured));
            let page = page(wanted.map(|captured| (captured.id.as_uuid(), captured)), request);
            page.map(|captured| captured.cut_to(body_limit as usize))
        })
    }

    async fn captured_after(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
        limit: ReadLimit,
    ) -> Result<Vec<CapturedRequest>, StoreError> {
        self.read(|tables| {
            let rows = tables.captured(tenant, path_id).filter(|row| after.is_none_or(|after| row.id > after));
            limit.of(rows, |row| row.kept()).map(CapturedRow::captured).collect()
        })
    }

    async fn remove_captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<bool, StoreError> {
        self.write(|tx| {
            let key = tx.tables.path(tenant, path_id).map(|row| row.key);
            key.is_some_and(|key| tx.remove_captured(key, |other| other == id, 1) == 1)
        })
    }

    async fn remove_captured_through(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        through: CaptureId,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.write(|tx| {
            let key = tx.tables.path(tenant, path_id).map(|row| row.key);
            key.map_or(0, |key| tx.remove_captured(key, |id| id <= through, limit as usize))
        })
    }

    async fn prune_captured(&self, request: CapturePruneRequest) -> Result<CapturePruneStep, StoreError> {
        self.write(|tx| {
            let (floor, limit) = (CaptureId::floor(request.received_before), u64::from(request.limit.max(1)));
            let mut requests = 0;
            let paths: Vec<_> = tx.tables.paths.values().map(|row| (row.key, row.has_expired(request.now))).collect();
            for (key, expired) in paths {
                let left = usize::try_from(limit - requests).unwrap_or(usize::MAX);
                requests += tx.remove_captured(key, |id| expired || id < floor, left);
                if expired && tx.tables.oldest(key).next().is_none() {
                    tx.put(Change::PathGone(key));
                }
            }
            CapturePruneStep { requests, more: requests == limit }
        })
    }

    async fn capture_stats(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        active_since: Timestamp,
        limit: u32,
    ) -> Result<CaptureStats, StoreError> {
        self.read(|tables| {
            let mut stats = CaptureStats::default();
            for row in tables.paths_of(tenant, now) {
                stats.paths += 1;
                stats.active_paths += u64::from(row.last_request_at.is_some_and(|last| last >= active_since));
                stats.requests += row.requests;
                stats.recent.extend(tables.oldest(row.key).map(|row| row.captured().cut_to(0)));
            }
            stats.recent.sort_by_key(|captured| std::cmp::Reverse(captured.id));
            stats.recent.truncate(limit as usize);
            stats
        })
    }
}

fn key_name(tenant: &TenantId, key: &IdempotencyKey) -> (TenantId, String, String) {
    (tenant.clone(), key.scope.to_owned(), key.key.clone())
}

impl Tables {
    fn keyed_path(&self, tenant: &TenantId, key: &IdempotencyKey, now: Timestamp) -> Option<PathInserted> {
        let row = self.keys.get(&key_name(tenant, key)).filter(|row| row.expires_at > now)?;
        Some(match row.fingerprint == key.fingerprint {
            true => PathInserted::Repeated(Sealed::from_bytes(row.answer.clone())),
            false => PathInserted::Conflict,
        })
    }

    fn path_named(&self, path_id: &PathId) -> Option<&PathRow> {
        self.paths.values().find(|row| row.path_id == *path_id)
    }

    fn path(&self, tenant: &TenantId, path_id: &PathId) -> Option<&PathRow> {
        self.path_named(path_id).filter(|row| row.tenant == *tenant)
    }

    /// Newest first, without those that have expired.
    fn paths_of<'a>(&'a self, tenant: &'a TenantId, now: Timestamp) -> impl Iterator<Item = &'a PathRow> {
        self.paths.values().rev().filter(move |row| row.tenant == *tenant && !row.has_expired(now))
    }

    /// What a path holds, oldest first.
    fn oldest(&self, path: PathKey) -> impl DoubleEndedIterator<Item = &CapturedRow> {
        let [first, last] = [uuid::Uuid::nil(), uuid::Uuid::max()].map(|id| (path, CaptureId::from_uuid(id)));
        self.captured.range(first..=last).map(|(_, row)| row)
    }

    fn captured(&self, tenant: &TenantId, path_id: &PathId) -> impl DoubleEndedIterator<Item = &CapturedRow> {
        self.path(tenant, path_id).into_iter().flat_map(|row| self.oldest(row.key))
    }
}

impl Transaction<'_> {
    /// Removes the oldest requests of a path that go; how many there were.
    fn remove_captured(&mut self, path: PathKey, goes: impl Fn(CaptureId) -> bool, limit: usize) -> u64 {
        let going = self.tables.oldest(path).filter(|row| goes(row.id)).take(limit);
        let going: Vec<_> = going.map(|row| (row.id, row.kept())).collect();
        let Some(row) = self.tables.paths.get(&path).filter(|_| !going.is_empty()).cloned() else { return 0 };
        let (count, bytes) = (going.len() as u64, going.iter().map(|(_, kept)| kept).sum());
        self.put(Change::Path(row.lowered(count, bytes)));
        self.put(Change::CapturedGone(path, going.into_iter().map(|(id, _)| id).collect()));
        count
    }
}
