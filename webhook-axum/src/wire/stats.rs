//! Figures and recent activity.

use std::collections::BTreeMap;

use serde::Serialize;
use webhook_core::{Timestamp, store};

use super::{Id, Time};

/// Figures about a window of time.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Stats {
    window: Window,
    /// Left out for one subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<SubscriptionCounts>,
    /// Events accepted; for one subscription, those with a delivery to it.
    events: u64,
    /// Deliveries created, by state.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u64>))]
    deliveries: BTreeMap<&'static str, u64>,
    attempts: AttemptCounts,
}

/// The time that figures are about.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Window {
    /// Inclusive.
    since: Time,
    /// Exclusive.
    until: Time,
}

/// Subscriptions there are now.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct SubscriptionCounts {
    total: u64,
    enabled: u64,
}

/// Attempts and how long they took; null where there were none.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct AttemptCounts {
    success: u64,
    failure: u64,
    p50_ms: Option<u64>,
    p99_ms: Option<u64>,
}

impl Stats {
    pub(crate) fn of_tenant(stats: store::Stats, since: Timestamp, until: Timestamp) -> Self {
        let counts = SubscriptionCounts { total: stats.subscriptions, enabled: stats.enabled_subscriptions };
        Self { subscriptions: Some(counts), ..Self::of_subscription(stats, since, until) }
    }

    pub(crate) fn of_subscription(stats: store::Stats, since: Timestamp, until: Timestamp) -> Self {
        Self {
            window: Window { since: since.into(), until: until.into() },
            subscriptions: None,
            events: stats.events,
            deliveries: stats.deliveries,
            attempts: AttemptCounts {
                success: stats.successes,
                failure: stats.failures,
                p50_ms: stats.p50_ms,
                p99_ms: stats.p99_ms,
            },
        }
    }
}

/// The newest things that happened, newest first.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Activities {
    pub(crate) data: Vec<Activity>,
}

/// One thing that happened.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Activity {
    /// `event.accepted`, `attempt.succeeded`, `attempt.failed` or `subscription.created`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// When.
    at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
}

impl From<store::Activity> for Activity {
    fn from(activity: store::Activity) -> Self {
        Self {
            kind: activity.kind.as_str(),
            at: activity.at.into(),
            subscription_id: activity.subscription_id.map(Into::into),
            event_id: activity.event_id.map(Into::into),
            delivery_id: activity.delivery_id.map(Into::into),
            status_code: activity.status_code,
        }
    }
}
