//! Subscriptions.

use async_trait::async_trait;
use webhook_core::store::{
    IndexEntry, Inserted, KeyedAnswer, Page, PageRequest, StoredKey, SubscriptionChanges, SubscriptionStore, Updated,
};
use webhook_core::{Generation, Sealed, StoreError, SubscriptionId, SubscriptionRecord, TenantId, Timestamp};

use crate::page::page;
use crate::rows::SubscriptionRow;
use crate::tables::Change;
use crate::{JournalStore, Transaction};

#[async_trait]
impl SubscriptionStore for JournalStore {
    async fn insert_subscription(
        &self,
        record: &SubscriptionRecord,
        key: Option<&KeyedAnswer>,
    ) -> Result<Inserted, StoreError> {
        self.write(|tx| {
            if let Some(KeyedAnswer { key, answer }) = key {
                let name = (record.tenant.clone(), key.scope.to_owned(), key.key.clone());
                match tx.tables.keys.get(&name).filter(|row| row.expires_at > record.created_at) {
                    Some(row) if row.fingerprint == key.fingerprint => {
                        return Inserted::Repeated(Sealed::from_bytes(row.answer.clone()));
                    }
                    Some(_) => return Inserted::Conflict,
                    None => {}
                }
                let stored = StoredKey {
                    tenant: name.0,
                    scope: name.1,
                    key: name.2,
                    fingerprint: key.fingerprint,
                    answer: answer.as_bytes().to_vec(),
                    expires_at: key.expires_at,
                };
                tx.put(Change::Key(stored.into()));
            }
            Inserted::Created(tx.change(SubscriptionRow {
                id: record.id,
                tenant: record.tenant.clone(),
                version: Generation::ZERO,
                disabled: record.disabled.clone(),
                settings: record.settings.clone(),
                secrets: record.secrets.as_bytes().to_vec(),
                paused_until: record.paused_until,
                created_at: record.created_at,
                updated_at: record.updated_at,
                deleted: false,
            }))
        })
    }

    async fn update_subscription(&self, record: &SubscriptionRecord) -> Result<Updated, StoreError> {
        self.write(|tx| {
            let Some(mut row) = tx.tables.subscription(&record.tenant, record.id).cloned() else {
                return Updated::Missing;
            };
            if row.version != record.version {
                return Updated::Changed;
            }
            if row.settings.target_url != record.settings.target_url || row.disabled != record.disabled {
                row.paused_until = None;
            }
            row.settings = record.settings.clone();
            row.secrets = record.secrets.as_bytes().to_vec();
            row.disabled = record.disabled.clone();
            row.updated_at = record.updated_at;
            Updated::Done(tx.change(row))
        })
    }

    async fn delete_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(|tx| {
            let Some(row) = tx.tables.subscription(tenant, id).cloned() else { return false };
            tx.change(SubscriptionRow { deleted: true, updated_at: now, ..row });
            true
        })
    }

    async fn subscriptions(&self, ids: &[(TenantId, SubscriptionId)]) -> Result<Vec<SubscriptionRecord>, StoreError> {
        self.read(|tables| {
            let rows = ids.iter().filter_map(|(tenant, id)| tables.subscription(tenant, *id));
            rows.map(SubscriptionRow::record).collect()
        })
    }

    async fn find_subscription(&self, id: SubscriptionId) -> Result<Option<SubscriptionRecord>, StoreError> {
        self.read(|tables| tables.subscriptions.get(&id).filter(|row| !row.deleted).map(SubscriptionRow::record))
    }

    async fn list_subscriptions(
        &self,
        tenant: &TenantId,
        request: PageRequest,
    ) -> Result<Page<SubscriptionRecord>, StoreError> {
        self.read(|tables| {
            let rows = tables.subscriptions.values().rev().filter(|row| row.tenant == *tenant && !row.deleted);
            page(rows.map(|row| (row.id.as_uuid(), row)), request).map(SubscriptionRow::record)
        })
    }

    async fn subscription_changes(
        &self,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError> {
        self.read(|tables| {
            let changed = tables.subscriptions.values().filter(|row| row.tenant == *tenant && row.version > after);
            let mut changed: Vec<_> = changed.collect();
            changed.sort_by_key(|row| row.version);
            let complete = changed.len() <= limit as usize;
            changed.truncate(limit as usize);
            let generation = match changed.last() {
                Some(row) if !complete => row.version,
                _ => tables.generation(tenant),
            };
            let entry = |row: &SubscriptionRow| {
                let matches = !row.deleted && row.disabled.is_none();
                let patterns = if matches { row.settings.events.clone() } else { Vec::new() };
                IndexEntry { id: row.id, version: row.version, patterns }
            };
            SubscriptionChanges { entries: changed.into_iter().map(entry).collect(), generation, complete }
        })
    }

    async fn generations(&self, tenants: &[TenantId]) -> Result<Vec<Generation>, StoreError> {
        self.read(|tables| tenants.iter().map(|tenant| tables.generation(tenant)).collect())
    }
}

impl Transaction<'_> {
    /// Puts a changed subscription at the tenant's next generation.
    pub(crate) fn change(&mut self, mut row: SubscriptionRow) -> Generation {
        row.version = self.tables.generation(&row.tenant).after(row.updated_at);
        let generation = row.version;
        self.put(Change::Subscription(row));
        generation
    }
}
