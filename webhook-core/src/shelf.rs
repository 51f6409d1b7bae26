//! What a shared cache knows of subscriptions: sealed, and believed no longer than what this process read itself.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::context::Context;
use crate::store::{IndexEntry, SubscriptionChanges};
use crate::{
    DisabledReason, EventPattern, Generation, Sealed, SharedCache, SubscriptionId, SubscriptionRecord,
    SubscriptionSettings, TenantId, Timestamp,
};

/// Events are accepted while this is waited for, so it is short; what takes longer is read from the store.
const PATIENCE: Duration = Duration::from_millis(20);
/// After that, the cache is left alone for so long.
const REST: Duration = Duration::from_secs(1);
/// Indexes of more entries are not shared: about a megabyte.
const ENTRIES: usize = 10_000;

/// Subscriptions and match indexes in a shared cache.
#[derive(Debug)]
pub(crate) struct Shelf {
    cache: Option<Arc<dyn SharedCache>>,
    resting_until: Mutex<Option<Instant>>,
}

/// Something that was read from the store at some time.
#[derive(Debug)]
pub(crate) struct Shelved<T> {
    pub(crate) value: T,
    pub(crate) read_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct ShelvedRecord {
    read_at: Timestamp,
    version: Generation,
    disabled: Option<DisabledReason>,
    settings: SubscriptionSettings,
    secrets: String,
    paused_until: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct ShelvedIndex {
    read_at: Timestamp,
    generation: Generation,
    entries: Vec<(SubscriptionId, Generation, Vec<EventPattern>)>,
}

impl Shelf {
    pub(crate) fn new(cache: Option<Arc<dyn SharedCache>>) -> Self {
        Self { cache, resting_until: Mutex::default() }
    }

    /// Those of the subscriptions that are there at exactly the version asked for.
    pub(crate) async fn records(
        &self,
        context: &Context,
        wanted: &[(TenantId, SubscriptionId, Generation)],
    ) -> Vec<Shelved<SubscriptionRecord>> {
        let keys: Vec<_> = wanted.iter().map(|(_, id, version)| record_key(*id, *version)).collect();
        let mut found = Vec::new();
        for (((tenant, id, version), key), sealed) in wanted.iter().zip(&keys).zip(self.get(&keys).await) {
            let Some(shelved) = sealed.and_then(|sealed| open::<ShelvedRecord>(context, tenant, key, sealed)) else {
                continue;
            };
            let Ok(secrets) = STANDARD.decode(&shelved.secrets) else { continue };
            let secrets = Sealed::from_bytes(secrets);
            let mut record =
                SubscriptionRecord::new(*id, tenant.clone(), shelved.settings, secrets, shelved.created_at);
            record.version = shelved.version;
            record.disabled = shelved.disabled;
            record.paused_until = shelved.paused_until;
            record.updated_at = shelved.updated_at;
            if record.version == *version && is_fresh(context, shelved.read_at) {
                found.push(Shelved { value: record, read_at: shelved.read_at });
            }
        }
        found
    }

    /// Keeps subscriptions that were just read from the store, without waiting for it.
    pub(crate) fn keep_records(&self, context: &Context, records: &[SubscriptionRecord], read_at: Timestamp) {
        let entries = records.iter().filter_map(|record| {
            let shelved = ShelvedRecord {
                read_at,
                version: record.version,
                disabled: record.disabled.clone(),
                settings: record.settings.clone(),
                secrets: STANDARD.encode(record.secrets.as_bytes()),
                paused_until: record.paused_until,
                created_at: record.created_at,
                updated_at: record.updated_at,
            };
            seal(context, &record.tenant, record_key(record.id, record.version), &shelved)
        });
        self.put(context, entries);
    }

    /// The tenant's index as of some generation.
    pub(crate) async fn index(&self, context: &Context, tenant: &TenantId) -> Option<Shelved<SubscriptionChanges>> {
        let key = index_key(tenant);
        let sealed = self.get(std::slice::from_ref(&key)).await.pop()??;
        let ShelvedIndex { read_at, generation, entries } = open(context, tenant, &key, sealed)?;
        let entries = entries.into_iter().map(|(id, version, patterns)| IndexEntry { id, version, patterns }).collect();
        let value = SubscriptionChanges { entries, generation, complete: true };
        is_fresh(context, read_at).then_some(Shelved { value, read_at })
    }

    /// Keeps an index that was just read from the store, without waiting for it.
    pub(crate) fn keep_index(&self, context: &Context, tenant: &TenantId, index: Shelved<SubscriptionChanges>) {
        let Shelved { value: index, read_at } = index;
        if index.entries.len() > ENTRIES {
            return;
        }
        let entries = index.entries.into_iter().map(|entry| (entry.id, entry.version, entry.patterns)).collect();
        let shelved = ShelvedIndex { read_at, generation: index.generation, entries };
        self.put(context, seal(context, tenant, index_key(tenant), &shelved));
    }

    async fn get(&self, keys: &[String]) -> Vec<Option<Vec<u8>>> {
        let Some(cache) = self.cache.as_ref().filter(|_| !keys.is_empty() && !self.rests()) else { return Vec::new() };
        self.within_patience(cache.get(keys)).await.unwrap_or_default()
    }

    fn put(&self, context: &Context, entries: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let Some(cache) = self.cache.clone().filter(|_| !self.rests()) else { return };
        let (entries, ttl): (Vec<_>, _) = (entries.into_iter().collect(), context.options.cache_ttl);
        if entries.is_empty() {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = cache.put(&entries, ttl).await {
                tracing::debug!(%error, "the shared cache took nothing");
            }
        });
    }

    async fn within_patience<T, E: std::fmt::Display>(&self, call: impl Future<Output = Result<T, E>>) -> Option<T> {
        let answer = tokio::time::timeout(PATIENCE, call).await;
        match answer {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => tracing::debug!(%error, "the shared cache gave nothing; the store is asked"),
            Err(_) => tracing::debug!("the shared cache is slow; the store is asked"),
        }
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        None
    }

    fn rests(&self) -> bool {
        let until = *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

fn record_key(id: SubscriptionId, version: Generation) -> String {
    format!("subscription:{id}:{}", version.get())
}

/// Without the tenant's text.
fn index_key(tenant: &TenantId) -> String {
    format!("index:{}", hex::encode(&Sha256::digest(tenant.as_str())[..16]))
}

fn is_fresh(context: &Context, read_at: Timestamp) -> bool {
    context.now().since(read_at) < context.options.cache_ttl
}

/// Only encrypted values are shared: whoever can write to the cache could otherwise send deliveries elsewhere.
fn seal<T: Serialize>(context: &Context, tenant: &TenantId, key: String, value: &T) -> Option<(String, Vec<u8>)> {
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(value).ok()?);
    let sealed = context.keyring.seal(&*context.entropy, &aad(tenant, &key), &plain);
    sealed.is_encrypted().then(|| (key, sealed.into_bytes()))
}

fn open<T: for<'a> Deserialize<'a>>(context: &Context, tenant: &TenantId, key: &str, sealed: Vec<u8>) -> Option<T> {
    let sealed = Sealed::from_bytes(sealed);
    if !sealed.is_encrypted() {
        return None;
    }
    let plain = context.keyring.open(&aad(tenant, key), &sealed).ok()?;
    serde_json::from_slice(&plain).ok()
}

fn aad(tenant: &TenantId, key: &str) -> Vec<u8> {
    format!("shared/{tenant}/{key}").into_bytes()
}
