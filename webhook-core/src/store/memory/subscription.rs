//! Subscriptions and their changes.

use std::ops::Bound::{Excluded, Unbounded};

use async_trait::async_trait;

use super::MemoryStore;
use super::page::{below, no_page, page_of};
use super::rows::SubscriptionRow;
use crate::store::{
    Inserted, KeyedAnswer, Page, PageRequest, StoreError, StoredKey, SubscriptionChanges, SubscriptionStore, Updated,
};
use crate::{Generation, Sealed, SubscriptionId, SubscriptionRecord, TenantId, Timestamp};

#[async_trait]
impl SubscriptionStore for MemoryStore {
    async fn insert_subscription(
        &self,
        record: &SubscriptionRecord,
        key: Option<&KeyedAnswer>,
    ) -> Result<Inserted, StoreError> {
        let mut state = self.state();
        if let Some(KeyedAnswer { key, answer }) = key {
            match state.key(&record.tenant, key.scope, &key.key) {
                Some(stored) if stored.expires_at <= record.created_at => {}
                Some(stored) if stored.fingerprint == key.fingerprint => {
                    return Ok(Inserted::Repeated(Sealed::from_bytes(stored.answer.clone())));
                }
                Some(_) => return Ok(Inserted::Conflict),
                None => {}
            }
            state.remember(StoredKey {
                tenant: record.tenant.clone(),
                scope: key.scope.to_owned(),
                key: key.key.clone(),
                fingerprint: key.fingerprint,
                answer: answer.as_bytes().to_vec(),
                expires_at: key.expires_at,
            });
        }
        // No change has the generation zero, so that counting this one takes nothing out of the changes.
        let row = SubscriptionRow::new(SubscriptionRecord { version: Generation::ZERO, ..record.clone() });
        state.subscriptions.insert(record.id, row);
        state.tenant(&record.tenant).subscriptions.insert(record.id);
        Ok(Inserted::Created(state.count_change(&record.tenant, record.id, record.updated_at)))
    }

    async fn update_subscription(&self, record: &SubscriptionRecord) -> Result<Updated, StoreError> {
        let mut state = self.state();
        let Some(row) = state.subscription_mut(&record.tenant, record.id) else { return Ok(Updated::Missing) };
        let stored = &mut row.record;
        if stored.version != record.version {
            return Ok(Updated::Changed);
        }
        if stored.settings.target_url != record.settings.target_url || stored.disabled != record.disabled {
            stored.paused_until = None;
        }
        stored.settings = record.settings.clone();
        stored.secrets = record.secrets.clone();
        stored.disabled = record.disabled.clone();
        stored.updated_at = record.updated_at;
        Ok(Updated::Done(state.count_change(&record.tenant, record.id, record.updated_at)))
    }

    async fn delete_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(row) = state.subscription_mut(tenant, id) else { return Ok(false) };
        row.deleted = true;
        row.record.updated_at = now;
        state.tenant(tenant).subscriptions.remove(&id);
        state.orphaning.insert(id);
        state.count_change(tenant, id, now);
        Ok(true)
    }

    async fn subscriptions(&self, ids: &[(TenantId, SubscriptionId)]) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let state = self.state();
        Ok(ids
            .iter()
            .filter_map(|(tenant, id)| state.subscription(tenant, *id))
            .map(|row| row.record.clone())
            .collect())
    }

    async fn find_subscription(&self, id: SubscriptionId) -> Result<Option<SubscriptionRecord>, StoreError> {
        let state = self.state();
        Ok(state.subscriptions.get(&id).filter(|row| !row.deleted).map(|row| row.record.clone()))
    }

    async fn list_subscriptions(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> Result<Page<SubscriptionRecord>, StoreError> {
        let state = self.state();
        let Some(owner) = state.tenants.get(tenant) else { return Ok(no_page(page)) };
        let newest = owner.subscriptions.range((Unbounded, below(page).map(SubscriptionId::from_uuid))).rev();
        let rows = newest.filter_map(|id| state.subscriptions.get(id));
        Ok(page_of(rows, page, |row| row.record.clone()))
    }

    async fn subscription_changes(
        &self,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError> {
        let state = self.state();
        let Some(owner) = state.tenants.get(tenant) else {
            return Ok(SubscriptionChanges { entries: Vec::new(), generation: Generation::ZERO, complete: true });
        };
        let mut later = owner.changes.range((Excluded(after), Unbounded));
        let (mut entries, mut generation) = (Vec::new(), after);
        for (version, id) in later.by_ref().take(limit as usize) {
            entries.extend(state.subscriptions.get(id).map(SubscriptionRow::index_entry));
            generation = *version;
        }
        let complete = later.next().is_none();
        if complete {
            generation = owner.generation;
        }
        Ok(SubscriptionChanges { entries, generation, complete })
    }

    async fn generations(&self, tenants: &[TenantId]) -> Result<Vec<Generation>, StoreError> {
        let state = self.state();
        Ok(tenants.iter().map(|tenant| state.generation(tenant)).collect())
    }
}
