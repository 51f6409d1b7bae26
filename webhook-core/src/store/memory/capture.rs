//! Capture paths and what reached them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use async_trait::async_trait;

use super::MemoryStore;
use super::page::{below, no_page, page_of};
use super::state::State;
use crate::capture::{CaptureFilter, CapturedRequest, PathId};
use crate::store::{
    CaptureOutcome, CapturePlan, CapturePruneRequest, CapturePruneStep, CaptureStats, CaptureStore, IdempotencyKey,
    KeyedAnswer, NewCapture, PATH_METHODS, Page, PageRequest, PathInserted, PathRecord, PathState, PathUpdated,
    PathUsage, ReadLimit, StoreError, StoredKey,
};
use crate::{CaptureId, PathKey, Sealed, TenantId, Timestamp};

#[derive(Default)]
pub(super) struct Captures {
    paths: BTreeMap<PathKey, PathRow>,
    names: HashMap<PathId, PathKey>,
}

struct PathRow {
    record: PathRecord,
    usage: PathUsage,
    requests: BTreeMap<CaptureId, CapturedRequest>,
}

impl PathRow {
    /// Takes one out, with what the path holds by it.
    fn remove(&mut self, id: CaptureId) -> bool {
        let Some(request) = self.requests.remove(&id) else { return false };
        self.usage.requests -= 1;
        self.usage.bytes -= request.body_kept;
        true
    }

    /// Takes the oldest ones out, as long as `goes`; how many there were.
    fn remove_oldest(&mut self, limit: u64, goes: impl Fn(CaptureId) -> bool) -> u64 {
        let mut removed = 0;
        while let Some((id, _)) = self.requests.first_key_value().filter(|(id, _)| removed < limit && goes(**id)) {
            let id = *id;
            removed += u64::from(self.remove(id));
        }
        removed
    }
}

impl Captures {
    fn path(&self, tenant: &TenantId, path_id: &PathId) -> Option<&PathRow> {
        let row = self.paths.get(self.names.get(path_id)?)?;
        (row.record.tenant == *tenant).then_some(row)
    }

    fn path_mut(&mut self, tenant: &TenantId, path_id: &PathId) -> Option<&mut PathRow> {
        let row = self.paths.get_mut(self.names.get(path_id)?)?;
        (row.record.tenant == *tenant).then_some(row)
    }

    fn remove(&mut self, key: PathKey) -> Option<PathRow> {
        let row = self.paths.remove(&key)?;
        self.names.remove(&row.record.path_id);
        Some(row)
    }

    fn of<'a>(&'a self, tenant: &'a TenantId, now: Timestamp) -> impl Iterator<Item = &'a PathRow> {
        self.paths.values().filter(move |row| row.record.tenant == *tenant && !row.record.has_expired(now))
    }
}

#[async_trait]
impl CaptureStore for MemoryStore {
    async fn insert_path(&self, record: &PathRecord, key: Option<&KeyedAnswer>) -> Result<PathInserted, StoreError> {
        let mut state = self.state();
        if let Some(keyed) = key
            && let Some(answered) = state.keyed_path(&record.tenant, &keyed.key, record.created_at)
        {
            return Ok(answered);
        }
        if state.captures.names.contains_key(&record.path_id) {
            return Ok(PathInserted::Taken);
        }
        if let Some(KeyedAnswer { key, answer }) = key {
            state.remember(StoredKey {
                tenant: record.tenant.clone(),
                scope: key.scope.to_owned(),
                key: key.key.clone(),
                fingerprint: key.fingerprint,
                answer: answer.as_bytes().to_vec(),
                expires_at: key.expires_at,
            });
        }
        let row = PathRow { record: record.clone(), usage: PathUsage::default(), requests: BTreeMap::new() };
        state.captures.names.insert(record.path_id.clone(), record.key);
        state.captures.paths.insert(record.key, row);
        Ok(PathInserted::Created)
    }

    async fn keyed_path(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<PathInserted>, StoreError> {
        Ok(self.state().keyed_path(tenant, key, now))
    }

    async fn update_path(&self, record: &PathRecord) -> Result<PathUpdated, StoreError> {
        let mut state = self.state();
        let row = state.captures.path_mut(&record.tenant, &record.path_id);
        let Some(row) = row.filter(|row| row.record.key == record.key) else { return Ok(PathUpdated::Missing) };
        if row.record.version != record.version {
            return Ok(PathUpdated::Changed);
        }
        row.record = PathRecord { version: record.version.next(), ..record.clone() };
        Ok(PathUpdated::Done(row.record.version))
    }

    async fn delete_path(&self, tenant: &TenantId, path_id: &PathId) -> Result<bool, StoreError> {
        let captures = &mut self.state().captures;
        let key = captures.path(tenant, path_id).map(|row| row.record.key);
        Ok(key.and_then(|key| captures.remove(key)).is_some())
    }

    async fn delete_expired_path(&self, key: PathKey, now: Timestamp) -> Result<bool, StoreError> {
        let captures = &mut self.state().captures;
        let expired = captures.paths.get(&key).is_some_and(|row| row.record.has_expired(now));
        Ok(expired && captures.remove(key).is_some())
    }

    async fn find_path(&self, path_id: &PathId) -> Result<Option<PathRecord>, StoreError> {
        let captures = &self.state().captures;
        let row = captures.names.get(path_id).and_then(|key| captures.paths.get(key));
        Ok(row.map(|row| row.record.clone()))
    }

    async fn path(&self, tenant: &TenantId, path_id: &PathId) -> Result<Option<(PathRecord, PathUsage)>, StoreError> {
        Ok(self.state().captures.path(tenant, path_id).map(|row| (row.record.clone(), row.usage)))
    }

    async fn list_paths(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        page: PageRequest,
    ) -> Result<Page<(PathRecord, PathUsage)>, StoreError> {
        let captures = &self.state().captures;
        let newest = captures.paths.range((Unbounded, below(page).map(PathKey::from_uuid))).rev();
        let rows = newest.map(|(_, row)| row);
        let rows = rows.filter(|row| row.record.tenant == *tenant && !row.record.has_expired(now));
        Ok(page_of(rows, page, |row| (row.record.clone(), row.usage)))
    }

    async fn path_methods(&self, tenant: &TenantId, path_id: &PathId) -> Result<Vec<(String, u64)>, StoreError> {
        let state = self.state();
        let mut methods: BTreeMap<String, u64> = BTreeMap::new();
        for request in state.captures.path(tenant, path_id).into_iter().flat_map(|row| row.requests.values()) {
            *methods.entry(request.request.method.clone()).or_default() += 1;
        }
        let mut counted: Vec<_> = methods.into_iter().collect();
        counted.sort_by_key(|(_, requests)| Reverse(*requests));
        counted.truncate(PATH_METHODS);
        Ok(counted)
    }

    async fn capture(&self, now: Timestamp, requests: &[NewCapture]) -> Result<Vec<CaptureOutcome>, StoreError> {
        let mut state = self.state();
        let live = CapturePlan::subscriptions_of(requests);
        let live = live.into_iter().filter(|(tenant, id)| state.subscription(tenant, *id).is_some()).collect();
        let plan = CapturePlan::resolve(requests, now, state.path_states(requests), &live);
        for planned in &plan.requests {
            if let Some(row) = state.captures.paths.get_mut(&planned.new.path) {
                let (id, number) = (planned.id, planned.number);
                row.requests.insert(id, CapturedRequest { id, number, ..planned.new.request.clone() });
            }
        }
        for (path, usage) in &plan.usage {
            if let Some(row) = state.captures.paths.get_mut(path) {
                row.usage = *usage;
            }
        }
        for eviction in &plan.evictions {
            let Some(row) = state.captures.paths.get_mut(&eviction.path) else { continue };
            let oldest = row.requests.values().take(eviction.limit as usize);
            if let Some(evicted) = eviction.choose(oldest.map(|request| (request.id, request.body_kept))) {
                row.remove_oldest(evicted.requests, |_| true);
            }
        }
        for item in &plan.events {
            state.insert_event(item);
        }
        Ok(plan.outcomes)
    }

    async fn captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        id: CaptureId,
    ) -> Result<Option<CapturedRequest>, StoreError> {
        let state = self.state();
        Ok(state.captures.path(tenant, path_id).and_then(|row| row.requests.get(&id)).cloned())
    }

    async fn list_captured(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        filter: &CaptureFilter,
        page: PageRequest,
        body_limit: u32,
    ) -> Result<Page<CapturedRequest>, StoreError> {
        let state = self.state();
        let Some(row) = state.captures.path(tenant, path_id) else { return Ok(no_page(page)) };
        let newest = row.requests.range((Unbounded, below(page).map(CaptureId::from_uuid))).rev();
        let wanted = newest.map(|(_, request)| request).filter(|request| filter.matches(request));
        Ok(page_of(wanted, page, |request| request.clone().cut_to(body_limit as usize)))
    }

    async fn captured_after(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        after: Option<CaptureId>,
        limit: ReadLimit,
    ) -> Result<Vec<CapturedRequest>, StoreError> {
        let state = self.state();
        let Some(row) = state.captures.path(tenant, path_id) else { return Ok(Vec::new()) };
        let start = after.map_or(Unbounded, Excluded);
        let oldest = row.requests.range((start, Unbounded)).map(|(_, request)| request);
        Ok(limit.of(oldest, |request| request.body_kept).cloned().collect())
    }

    async fn remove_captured(&self, tenant: &TenantId, path_id: &PathId, id: CaptureId) -> Result<bool, StoreError> {
        let mut state = self.state();
        Ok(state.captures.path_mut(tenant, path_id).is_some_and(|row| row.remove(id)))
    }

    async fn remove_captured_through(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        through: CaptureId,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        let row = state.captures.path_mut(tenant, path_id);
        Ok(row.map_or(0, |row| row.remove_oldest(limit.into(), |id| id <= through)))
    }

    async fn prune_captured(&self, request: CapturePruneRequest) -> Result<CapturePruneStep, StoreError> {
        let captures = &mut self.state().captures;
        let floor = CaptureId::floor(request.received_before);
        let mut left = u64::from(request.limit.max(1));
        let mut gone = Vec::new();
        for (key, row) in &mut captures.paths {
            let expired = row.record.has_expired(request.now);
            left -= row.remove_oldest(left, |id| expired || id < floor);
            if expired && row.requests.is_empty() {
                gone.push(*key);
            }
            if left == 0 {
                break;
            }
        }
        for key in gone {
            captures.remove(key);
        }
        Ok(CapturePruneStep { requests: u64::from(request.limit.max(1)) - left, more: left == 0 })
    }

    async fn capture_stats(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        active_since: Timestamp,
        limit: u32,
    ) -> Result<CaptureStats, StoreError> {
        let captures = &self.state().captures;
        let mut stats = CaptureStats::default();
        for row in captures.of(tenant, now) {
            stats.paths += 1;
            stats.active_paths += u64::from(row.usage.last_request_at.is_some_and(|last| last >= active_since));
            stats.requests += row.usage.requests;
            let newest = row.requests.values().rev().take(limit as usize);
            stats.recent.extend(newest.map(|request| request.clone().cut_to(0)));
        }
        stats.recent.sort_by_key(|request| Reverse(request.id));
        stats.recent.truncate(limit as usize);
        Ok(stats)
    }
}

impl State {
    fn keyed_path(&self, tenant: &TenantId, key: &IdempotencyKey, now: Timestamp) -> Option<PathInserted> {
        let stored = self.key(tenant, key.scope, &key.key).filter(|stored| stored.expires_at > now)?;
        Some(match stored.fingerprint == key.fingerprint {
            true => PathInserted::Repeated(Sealed::from_bytes(stored.answer.clone())),
            false => PathInserted::Conflict,
        })
    }

    fn path_states(&self, requests: &[NewCapture]) -> HashMap<PathKey, PathState> {
        let rows = CapturePlan::paths_of(requests).into_iter().filter_map(|key| self.captures.paths.get(&key));
        rows.map(|row| (row.record.key, PathState::of(&row.record, row.usage))).collect()
    }
}
