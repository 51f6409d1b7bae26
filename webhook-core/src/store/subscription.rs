//! The role that keeps subscriptions.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{KeyedAnswer, Page, PageRequest, StoreError};
use crate::{EventPattern, Generation, Sealed, SubscriptionId, SubscriptionRecord, TenantId, Timestamp};

/// How creating a subscription ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was created, at this generation.
    Created(Generation),
    /// The idempotency key was used before with the same body: this was the answer.
    Repeated(Sealed),
    /// The idempotency key was used before with another body; nothing was created.
    Conflict,
}

/// How changing a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It was changed, at this generation.
    Done(Generation),
    /// Somebody else changed it since it was read; nothing was done.
    Changed,
    /// There is no such subscription.
    Missing,
}

/// What matching needs to know of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The subscription.
    pub id: SubscriptionId,
    /// The generation of its last change.
    pub version: Generation,
    /// Its patterns; empty when it is disabled or deleted and matches nothing.
    pub patterns: Vec<EventPattern>,
}

/// What changed in a tenant's subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionChanges {
    /// The changed ones, in the order of their changes.
    pub entries: Vec<IndexEntry>,
    /// The generation up to which `entries` tell everything: the tenant's own when they are complete.
    pub generation: Generation,
    /// Nothing more changed up to now.
    pub complete: bool,
}

/// Keeps subscriptions and counts their changes.
#[async_trait]
pub trait SubscriptionStore: Debug + Send + Sync + 'static {
    /// Creates a subscription, and remembers the answer under the idempotency key, if one is given.
    ///
    /// # Contract
    ///
    /// - The tenant's generation grows ([`Generation::after`]) and becomes the record's version.
    /// - A key that was used within its time creates nothing: the same fingerprint gives the first answer back,
    ///   another one is a conflict. The time now is the record's `created_at`.
    async fn insert_subscription(
        &self,
        record: &SubscriptionRecord,
        key: Option<&KeyedAnswer>,
    ) -> Result<Inserted, StoreError>;

    /// Replaces a subscription's settings, secrets and state.
    ///
    /// # Contract
    ///
    /// - Nothing is done unless `record.version` is the stored version.
    /// - The tenant's generation grows and becomes the version.
    /// - `paused_until` is cleared when the URL or the state changed, and kept otherwise, whatever the record says.
    /// - A deleted subscription and another tenant's are missing.
    async fn update_subscription(&self, record: &SubscriptionRecord) -> Result<Updated, StoreError>;

    /// Deletes a subscription; its deliveries are cancelled apart, in steps. False when there is none.
    ///
    /// # Contract
    ///
    /// - The tenant's generation grows; the deletion shows in the changes.
    /// - It is found no more, matches no more, and its deliveries are claimed no more.
    /// - Another tenant's subscription is not there to delete.
    async fn delete_subscription(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// The tenant's subscriptions with these ids, in any order; unknown ones are left out.
    ///
    /// # Contract
    ///
    /// - Another tenant's subscription is unknown.
    async fn subscriptions(&self, ids: &[(TenantId, SubscriptionId)]) -> Result<Vec<SubscriptionRecord>, StoreError>;

    /// The subscription with this id, of whatever tenant: for ingest, where the id yields the tenant.
    ///
    /// # Contract
    ///
    /// - A disabled one is found, a deleted one is not.
    async fn find_subscription(&self, id: SubscriptionId) -> Result<Option<SubscriptionRecord>, StoreError>;

    /// The tenant's subscriptions, newest first.
    ///
    /// # Contract
    ///
    /// - Pages that go on from the last id, or from an offset, show each of them once; other tenants' are not shown.
    async fn list_subscriptions(
        &self,
        tenant: &TenantId,
        page: PageRequest,
    ) -> Result<Page<SubscriptionRecord>, StoreError>;

    /// What changed in the tenant's subscriptions after a generation, at most `limit` entries.
    ///
    /// # Contract
    ///
    /// - Applying the entries in order to the state of `after`, and going on from the returned generation until
    ///   `complete`, gives the current state, whatever the limit. A subscription that changed several times comes once,
    ///   at its last change; a state short of `complete` is none that ever stood.
    /// - Disabled and deleted subscriptions come without patterns.
    async fn subscription_changes(
        &self,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError>;

    /// The current generation of each of these tenants, in order.
    ///
    /// # Contract
    ///
    /// - A tenant that had no subscription yet is at zero.
    async fn generations(&self, tenants: &[TenantId]) -> Result<Vec<Generation>, StoreError>;
}
