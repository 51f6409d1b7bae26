//! Which subscriptions an event matches, kept up to date with the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::context::Context;
use crate::matching::MatchIndex;
use crate::shelf::Shelved;
use crate::store::SubscriptionChanges;
use crate::{Error, EventType, Generation, SubscriptionId, TenantId, Timestamp};

const CHANGES_AT_ONCE: u32 = 5_000;

/// The match index of one tenant as of one generation.
#[derive(Debug, Default)]
pub(crate) struct TenantIndex {
    state: RwLock<IndexState>,
    refresh: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct IndexState {
    generation: Generation,
    matching: MatchIndex,
    versions: HashMap<SubscriptionId, Generation>,
    loaded_at: Option<Timestamp>,
}

/// What an event matches, as of a generation.
#[derive(Clone, Debug)]
pub(crate) struct Matched {
    pub(crate) generation: Generation,
    pub(crate) subscriptions: Vec<(SubscriptionId, Generation)>,
}

impl TenantIndex {
    /// What an event of that type matches.
    pub(crate) fn matches(&self, event_type: Option<&EventType>, limit: usize) -> Result<Matched, Error> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let ids = state.matching.matches(event_type, limit).map_err(|_| Error::FanOut { limit })?;
        let subscriptions =
            ids.into_iter().map(|id| (id, state.versions.get(&id).copied().unwrap_or_default())).collect();
        Ok(Matched { generation: state.generation, subscriptions })
    }

    /// Brings the index to the generation of `changes`; changes that it has already are harmless.
    pub(crate) fn apply(&self, changes: &SubscriptionChanges) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Changes may come from a host's transaction beside a refresh. What was read first may come last: everything up
        // to the index's generation is known, and an older state of a subscription must not replace a newer one.
        let known = state.generation;
        for entry in changes.entries.iter().filter(|entry| entry.version > known) {
            if entry.patterns.is_empty() {
                state.matching.remove(entry.id);
                state.versions.remove(&entry.id);
            } else {
                state.matching.insert(entry.id, &entry.patterns);
                state.versions.insert(entry.id, entry.version);
            }
        }
        state.generation = state.generation.max(changes.generation);
    }

    /// Knows nothing any more.
    fn forget(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = IndexState::default();
    }

    pub(crate) fn generation(&self) -> Generation {
        self.state.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    fn loaded_at(&self) -> Option<Timestamp> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).loaded_at
    }
}

/// The match indexes of the tenants that emit here.
#[derive(Debug)]
pub(crate) struct Indexes {
    context: Arc<Context>,
    tenants: Mutex<BTreeMap<TenantId, Arc<TenantIndex>>>,
}

impl Indexes {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, tenants: Mutex::default() }
    }

    /// The tenant's index, loaded if it is not there or too old to be believed.
    pub(crate) async fn get(&self, tenant: &TenantId) -> Result<Arc<TenantIndex>, Error> {
        let index = self.entry(tenant);
        let ttl = self.context.options.cache_ttl;
        match index.loaded_at() {
            Some(loaded_at) if self.context.now().since(loaded_at) < ttl => Ok(index),
            Some(_) => {
                let fresh = Arc::new(TenantIndex::default());
                self.load(tenant, &fresh).await?;
                self.tenants().insert(tenant.clone(), Arc::clone(&fresh));
                Ok(fresh)
            }
            None => {
                self.take_from_shelf(tenant, &index).await;
                if index.loaded_at().is_none() {
                    self.load(tenant, &index).await?;
                }
                Ok(index)
            }
        }
    }

    /// Brings the tenant's index up to date, if it is loaded.
    pub(crate) async fn refresh(&self, tenant: &TenantId) -> Result<(), Error> {
        let index = self.tenants().get(tenant).cloned();
        match index {
            Some(index) => self.load(tenant, &index).await,
            None => Ok(()),
        }
    }

    /// Brings the indexes of these tenants up to date, as far as they are loaded.
    pub(crate) async fn refresh_many(&self, tenants: &BTreeSet<TenantId>) -> Result<(), Error> {
        for tenant in tenants {
            self.refresh(tenant).await?;
        }
        Ok(())
    }

    /// Brings every loaded index up to date whose tenant's generation has moved.
    pub(crate) async fn refresh_all(&self) -> Result<(), Error> {
        let loaded: Vec<_> = self.tenants().iter().map(|(tenant, index)| (tenant.clone(), Arc::clone(index))).collect();
        for chunk in loaded.chunks(1000) {
            let tenants: Vec<_> = chunk.iter().map(|(tenant, _)| tenant.clone()).collect();
            let generations = self.context.in_time(self.context.store.generations(&tenants)).await?;
            for ((tenant, index), generation) in chunk.iter().zip(generations) {
                if index.generation() != generation {
                    self.load(tenant, index).await?;
                }
            }
        }
        Ok(())
    }

    /// Begins with what another process has read, if nothing has changed since.
    async fn take_from_shelf(&self, tenant: &TenantId, index: &TenantIndex) {
        let _alone = index.refresh.lock().await;
        if index.loaded_at().is_some() {
            return;
        }
        let Some(shelved) = self.context.shelf.index(&self.context, tenant).await else { return };
        // Only a number that the store has now is known to be of its history.
        let asked = self.context.in_time(self.context.store.generations(std::slice::from_ref(tenant))).await;
        if !asked.is_ok_and(|generations| generations.first() == Some(&shelved.value.generation)) {
            return;
        }
        index.apply(&shelved.value);
        let mut state = index.state.write().unwrap_or_else(PoisonError::into_inner);
        state.loaded_at.get_or_insert(shelved.read_at);
    }

    async fn load(&self, tenant: &TenantId, index: &TenantIndex) -> Result<(), Error> {
        let _alone = index.refresh.lock().await;
        let (mut begin, read_at) = (index.generation(), self.context.now());
        let mut entries = Vec::new();
        loop {
            let after = index.generation();
            let changes =
                self.context.in_time(self.context.store.subscription_changes(tenant, after, CHANGES_AT_ONCE)).await?;
            if changes.complete && changes.generation < after && begin != Generation::ZERO {
                tracing::warn!(%tenant, "the store is older than what was read of it: subscriptions are read anew");
                index.forget();
                begin = Generation::ZERO;
                continue;
            }
            index.apply(&changes);
            let SubscriptionChanges { generation, complete, entries: page } = changes;
            if begin == Generation::ZERO {
                entries.extend(page);
            }
            if complete {
                if begin == Generation::ZERO {
                    let value = SubscriptionChanges { entries, generation, complete };
                    self.context.shelf.keep_index(&self.context, tenant, Shelved { value, read_at });
                }
                break;
            }
        }
        let mut state = index.state.write().unwrap_or_else(PoisonError::into_inner);
        state.loaded_at.get_or_insert(read_at);
        Ok(())
    }

    fn entry(&self, tenant: &TenantId) -> Arc<TenantIndex> {
        Arc::clone(self.tenants().entry(tenant.clone()).or_default())
    }

    fn tenants(&self) -> std::sync::MutexGuard<'_, BTreeMap<TenantId, Arc<TenantIndex>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::IndexEntry;

    #[test]
    fn changes_that_were_read_first_and_come_last_are_not_believed() {
        let index = TenantIndex::default();
        let id = SubscriptionId::from_uuid(Uuid::from_u128(1));
        let changes = |generation, pattern: &str| {
            let version = Generation::new(generation);
            let entry = IndexEntry { id, version, patterns: vec![pattern.parse().unwrap()] };
            SubscriptionChanges { entries: vec![entry], generation: version, complete: true }
        };
        index.apply(&changes(2, "new"));
        index.apply(&changes(1, "old"));
        let matched = |event_type: &str| index.matches(Some(&event_type.parse().unwrap()), 10).unwrap();
        assert_eq!(matched("new").subscriptions, [(id, Generation::new(2))]);
        assert!(matched("old").subscriptions.is_empty());
        assert_eq!(index.generation(), Generation::new(2));
    }
}
