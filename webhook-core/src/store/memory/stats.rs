//! Figures and news.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::state::State;
use crate::store::{Activity, ActivityKind, Stats};
use crate::{AttemptId, DeliveryId, DeliveryState, EventId, SubscriptionId, TenantId, Timestamp};

/// How far an id may lie before the time that its row tells: it was made just before.
const SLACK: Duration = Duration::from_secs(60);

pub(super) fn stats(state: &State, tenant: &TenantId, only: Option<SubscriptionId>, since: Timestamp) -> Stats {
    let mut stats = Stats::default();
    for name in DeliveryState::ALL {
        stats.deliveries.insert(name.as_str(), 0);
    }
    let Some(owner) = state.tenants.get(tenant) else { return stats };

    let subscriptions = owner.subscriptions.iter().filter(|id| only.is_none_or(|only| **id == only));
    for row in subscriptions.filter_map(|id| state.subscriptions.get(id)) {
        stats.subscriptions += 1;
        stats.enabled_subscriptions += u64::from(row.record.disabled.is_none());
    }

    let events = owner.events.range(EventId::floor(since - SLACK)..).filter_map(|id| state.events.get(id));
    let events = events.filter(|row| row.event.created_at >= since);
    stats.events = events.filter(|row| only.is_none_or(|only| row.delivery_to(only.into()).is_some())).count() as u64;

    let deliveries = owner.deliveries.range(DeliveryId::floor(since - SLACK)..);
    let deliveries = deliveries.filter_map(|id| state.deliveries.get(id)).filter(|row| row.created_at >= since);
    for row in deliveries.filter(|row| only.is_none_or(|only| row.target.subscription() == Some(only))) {
        *stats.deliveries.entry(row.state.as_str()).or_default() += 1;
    }

    let attempts = owner.attempts.range(AttemptId::floor(since - SLACK)..).map(|(_, attempt)| attempt);
    let mut durations: BTreeMap<u64, u64> = BTreeMap::new();
    for attempt in attempts.filter(|attempt| attempt.started_at >= since) {
        if only.is_some_and(|only| attempt.subscription_id != Some(only)) {
            continue;
        }
        match attempt.failure {
            None => stats.successes += 1,
            Some(_) => stats.failures += 1,
        }
        *durations.entry(u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX)).or_default() += 1;
    }
    stats.set_percentiles(&durations.into_iter().collect::<Vec<_>>());
    stats
}

pub(super) fn activity(state: &State, tenant: &TenantId, limit: usize) -> Vec<Activity> {
    let Some(owner) = state.tenants.get(tenant) else { return Vec::new() };
    let events = owner.events.iter().rev().take(limit).filter_map(|id| state.events.get(id)).map(|row| Activity {
        event_id: Some(row.event.id),
        ..Activity::new(ActivityKind::EventAccepted, row.event.created_at)
    });
    let attempts = owner.attempts.values().rev().take(limit).map(|attempt| {
        let kind = match attempt.failure {
            None => ActivityKind::AttemptSucceeded,
            Some(_) => ActivityKind::AttemptFailed,
        };
        Activity {
            subscription_id: attempt.subscription_id,
            event_id: Some(attempt.event_id),
            delivery_id: Some(attempt.delivery_id),
            status_code: attempt.status_code,
            ..Activity::new(kind, attempt.started_at)
        }
    });
    let subscriptions = owner.subscriptions.iter().rev().take(limit).filter_map(|id| state.subscriptions.get(id));
    let subscriptions = subscriptions.map(|row| Activity {
        subscription_id: Some(row.record.id),
        ..Activity::new(ActivityKind::SubscriptionCreated, row.record.created_at)
    });
    let mut news: Vec<_> = attempts.chain(events).chain(subscriptions).collect();
    news.sort_by_key(|activity| Reverse(activity.at));
    news.truncate(limit);
    news
}
