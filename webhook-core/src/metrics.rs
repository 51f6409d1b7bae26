//! Figures through the `metrics` facade; nothing without that feature. No id and no URL is ever a label.

use crate::{Attempt, DeliveryState, Reason};

#[cfg(feature = "metrics")]
mod figures {
    use metrics::{counter, gauge, histogram};

    use super::*;
    use crate::store::Backlog;

    pub(crate) fn accepted(deliveries: usize) {
        counter!("webhook_events_accepted_total").increment(1);
        counter!("webhook_deliveries_created_total").increment(deliveries as u64);
    }

    pub(crate) fn captured() {
        counter!("webhook_requests_captured_total").increment(1);
    }

    pub(crate) fn captures_pruned(requests: u64) {
        counter!("webhook_captures_pruned_total").increment(requests);
    }

    pub(crate) fn claimed(leases: usize, lost: u32, exhausted: u32) {
        counter!("webhook_leases_claimed_total").increment(leases as u64);
        counter!("webhook_leases_lost_total").increment(u64::from(lost));
        if exhausted > 0 {
            let labels = [("state", "exhausted"), ("reason", Reason::LostLeases.as_str())];
            counter!("webhook_deliveries_total", &labels).increment(u64::from(exhausted));
        }
    }

    pub(crate) fn attempted(attempt: &Attempt) {
        let outcome = attempt.failure.as_ref().map_or("success", |failure| failure.kind.as_str());
        counter!("webhook_attempts_total", "outcome" => outcome).increment(1);
        histogram!("webhook_attempt_duration_seconds").record(attempt.duration.as_secs_f64());
        if attempt.number == 1 {
            let latency = attempt.started_at.since(crate::id::time_of(attempt.event_id.as_uuid()));
            histogram!("webhook_first_attempt_latency_seconds").record(latency.as_secs_f64());
        }
    }

    pub(crate) fn ended(state: DeliveryState, reason: Option<Reason>) {
        let reason = reason.map_or("", Reason::as_str);
        counter!("webhook_deliveries_total", "state" => state.as_str(), "reason" => reason).increment(1);
    }

    pub(crate) fn fenced() {
        counter!("webhook_results_fenced_total").increment(1);
    }

    pub(crate) fn queue_up() {
        gauge!("webhook_queue_up").set(1.0);
    }

    pub(crate) fn queue_away() {
        gauge!("webhook_queue_up").set(0.0);
        counter!("webhook_queue_outages_total").increment(1);
    }

    pub(crate) fn hints_lost(hints: usize) {
        counter!("webhook_hints_lost_total").increment(hints as u64);
    }

    pub(crate) fn pruned(events: u64) {
        counter!("webhook_events_pruned_total").increment(events);
    }

    pub(crate) fn backlog(backlog: Backlog, now: crate::Timestamp) {
        gauge!("webhook_deliveries_pending").set(backlog.pending as f64);
        gauge!("webhook_deliveries_due").set(backlog.due as f64);
        let age = backlog.oldest_due.map_or(0.0, |due| now.since(due).as_secs_f64());
        gauge!("webhook_oldest_due_age_seconds").set(age);
    }
}

#[cfg(not(feature = "metrics"))]
mod figures {
    use super::*;
    use crate::store::Backlog;

    pub(crate) fn accepted(_: usize) {}
    pub(crate) fn captured() {}
    pub(crate) fn captures_pruned(_: u64) {}
    pub(crate) fn claimed(_: usize, _: u32, _: u32) {}
    pub(crate) fn attempted(_: &Attempt) {}
    pub(crate) fn ended(_: DeliveryState, _: Option<Reason>) {}
    pub(crate) fn fenced() {}
    pub(crate) fn queue_up() {}
    pub(crate) fn queue_away() {}
    pub(crate) fn hints_lost(_: usize) {}
    pub(crate) fn pruned(_: u64) {}
    pub(crate) fn backlog(_: Backlog, _: crate::Timestamp) {}
}

pub(crate) use figures::*;
