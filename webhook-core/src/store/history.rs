//! The role that shows what happened, and takes orders about deliveries.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::{Attempt, Delivery, DeliveryId, DeliveryState, EventId, EventType, SubscriptionId, TenantId, Timestamp};

/// Which deliveries a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only to this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only of this event.
    pub event: Option<EventId>,
    /// Only created from this time on, inclusive.
    pub since: Option<Timestamp>,
}

/// How asking for a retry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOutcome {
    /// It is pending and due now.
    Done,
    /// A worker is attempting it right now.
    Leased,
    /// Its subscription was deleted.
    TargetGone,
    /// There is no such delivery.
    Missing,
}

/// How asking for a cancellation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is cancelled.
    Done,
    /// It had ended already.
    Finished,
    /// There is no such delivery.
    Missing,
}

/// An event that a subscription may have missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoverable {
    /// The event.
    pub event: EventId,
    /// Its type.
    pub event_type: Option<EventType>,
    /// Its delivery to the subscription, if there is one.
    pub delivery: Option<(DeliveryId, DeliveryState)>,
}

/// A delivery to create for an event that is stored already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddedDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The event.
    pub event: EventId,
}

/// Figures about a tenant or one of its subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Subscriptions there are now.
    pub subscriptions: u64,
    /// Those of them that are enabled.
    pub enabled_subscriptions: u64,
    /// Events accepted in the window; for one subscription, those with a delivery to it.
    pub events: u64,
    /// Deliveries created in the window, by state; every state is named.
    pub deliveries: BTreeMap<&'static str, u64>,
    /// Attempts of the window that succeeded.
    pub successes: u64,
    /// Attempts of the window that failed.
    pub failures: u64,
    /// The median duration of an attempt in milliseconds; none without attempts.
    pub p50_ms: Option<u64>,
    /// The 99th percentile.
    pub p99_ms: Option<u64>,
}

impl Stats {
    /// Sets the percentiles by nearest rank, from the durations in milliseconds in ascending order, each with how many
    /// attempts took so long.
    pub fn set_percentiles(&mut self, durations: &[(u64, u64)]) {
        let total: u64 = durations.iter().map(|(_, attempts)| attempts).sum();
        let percentile = |percent: u64| {
            let rank = (total * percent).div_ceil(100);
            let mut below = 0;
            durations.iter().find_map(|(duration, attempts)| {
                below += attempts;
                (below >= rank).then_some(*duration)
            })
        };
        (self.p50_ms, self.p99_ms) = (percentile(50), percentile(99));
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivityKind {
    /// An event was accepted.
    EventAccepted,
    /// An attempt succeeded.
    AttemptSucceeded,
    /// An attempt failed.
    AttemptFailed,
    /// A subscription was created.
    SubscriptionCreated,
}

impl ActivityKind {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventAccepted => "event.accepted",
            Self::AttemptSucceeded => "attempt.succeeded",
            Self::AttemptFailed => "attempt.failed",
            Self::SubscriptionCreated => "subscription.created",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// What.
    pub kind: ActivityKind,
    /// When.
    pub at: Timestamp,
    /// The subscription concerned.
    pub subscription_id: Option<SubscriptionId>,
    /// The event concerned.
    pub event_id: Option<EventId>,
    /// The delivery concerned.
    pub delivery_id: Option<DeliveryId>,
    /// The status of the attempt's answer.
    pub status_code: Option<u16>,
}

impl Activity {
    /// Something that happened at `at` and concerns nothing yet; set the public fields to change it.
    pub fn new(kind: ActivityKind, at: Timestamp) -> Self {
        Self { kind, at, subscription_id: None, event_id: None, delivery_id: None, status_code: None }
    }
}

/// Shows what happened, and takes orders about deliveries.
#[async_trait]
pub trait HistoryStore: Debug + Send + Sync + 'static {
    /// One delivery of the tenant.
    ///
    /// # Contract
    ///
    /// - Another tenant's delivery is unknown.
    /// - It is held while it is pending and its subscription is disabled, and no more once that is deleted.
    async fn delivery(&self, tenant: &TenantId, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// The tenant's deliveries, newest first.
    ///
    /// # Contract
    ///
    /// - Pages that go on from the last id, or from an offset, show each of them once; other tenants' are not shown.
    /// - The filter's conditions all hold, and count in the total.
    async fn list_deliveries(
        &self,
        tenant: &TenantId,
        filter: &DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError>;

    /// The attempts of one delivery, oldest first.
    ///
    /// # Contract
    ///
    /// - They come back as they were recorded, bytes and headers included.
    /// - Another tenant's delivery has none.
    async fn attempts_of(&self, tenant: &TenantId, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError>;

    /// The attempts that went to one subscription, newest first.
    ///
    /// # Contract
    ///
    /// - Pages that go on from the last id, or from an offset, show each of them once.
    /// - Another tenant's subscription has none.
    async fn list_attempts(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        page: PageRequest,
    ) -> Result<Page<Attempt>, StoreError>;

    /// Makes a delivery due now.
    ///
    /// # Contract
    ///
    /// - An ended delivery is pending again and remembers its end: [`super::Lease::reopened`] carries it. Leases it lost
    ///   before are forgotten, so that it can be claimed.
    /// - A pending one only becomes due now; one that was reopened stays so.
    /// - One whose lease has not ended is left alone.
    /// - A pause of its subscription ends.
    /// - One whose subscription was deleted stays as it is; another tenant's is missing.
    async fn retry(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<RetryOutcome, StoreError>;

    /// Ends a pending delivery as cancelled.
    ///
    /// # Contract
    ///
    /// - Its reason is `requested`; a lease on it is void.
    /// - One that has ended is left alone; another tenant's is missing.
    async fn cancel(&self, tenant: &TenantId, id: DeliveryId, now: Timestamp) -> Result<CancelOutcome, StoreError>;

    /// The events that were accepted from `since` on and before `until`, each with its delivery to the subscription.
    ///
    /// # Contract
    ///
    /// - Oldest first, at most `limit`, those with an id above `after`.
    /// - Of whatever type; direct events and other tenants' are left out.
    async fn recoverable(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        since: Timestamp,
        until: Timestamp,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Recoverable>, StoreError>;

    /// Creates deliveries to a subscription for events that are stored already; how many were created.
    ///
    /// # Contract
    ///
    /// - An event that has a delivery to the subscription, or is unknown, gets none; so do all when the subscription
    ///   is deleted or another tenant's.
    /// - They are due at `now`.
    async fn add_deliveries(
        &self,
        tenant: &TenantId,
        subscription: SubscriptionId,
        deliveries: &[AddedDelivery],
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Figures since a time, inclusive, of the tenant or of one subscription.
    ///
    /// # Contract
    ///
    /// - Events and deliveries count from when they were created, attempts from when they started.
    /// - Percentiles are by nearest rank: the smallest duration that so many per cent of all do not exceed.
    /// - Other tenants do not count.
    async fn stats(
        &self,
        tenant: &TenantId,
        subscription: Option<SubscriptionId>,
        since: Timestamp,
    ) -> Result<Stats, StoreError>;

    /// The newest things that happened, newest first.
    ///
    /// # Contract
    ///
    /// - At most `limit`; other tenants' are not shown. An attempt happened when it started.
    async fn activity(&self, tenant: &TenantId, limit: u32) -> Result<Vec<Activity>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::Stats;

    #[test]
    fn percentiles_go_by_nearest_rank() {
        for (durations, p50, p99) in [
            (&[] as &[_], None, None),
            (&[(7, 1)], Some(7), Some(7)),
            (&[(1, 50), (9, 50)], Some(1), Some(9)),
            (&[(1, 98), (5, 1), (9, 1)], Some(1), Some(5)),
        ] {
            let mut stats = Stats::default();
            stats.set_percentiles(durations);
            assert_eq!((stats.p50_ms, stats.p99_ms), (p50, p99), "{durations:?}");
        }
    }
}
