//! One attempt: sent, judged, recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Pace, Seat};
use super::dispatch::Payload;
use super::request::{headers_for_log, outbound};
use super::{Worker, release};
use crate::inbox;
use crate::store::{Lease, NextStep, Outcome, Recorded, TargetEffect};
use crate::target::LiveTarget;
use crate::{
    Attempt, AttemptFailure, AttemptId, DeliveryState, ErrorKind, Event, FailedAttempt, Hint, OutboundResponse, Reason,
    SubscriptionRecord, Timestamp, TransportError, next_due, parse_retry_after,
};

/// So long after its claim a delivery may start with the subscription as it was then: a change is obeyed within a second.
const TRUSTED: Duration = Duration::from_millis(500);

/// What was sent, for the log, and what came of it.
struct Made {
    sent: Vec<(String, String)>,
    result: Result<OutboundResponse, TransportError>,
}

impl Worker {
    /// Attempts a delivery and records what came of it. When `abort` is cancelled before the answer is there, the
    /// attempt is cut and the lease stays for whoever stops the worker to release.
    pub(super) async fn deliver(
        &self,
        lease: Lease,
        target: &LiveTarget,
        payload: Arc<Payload>,
        seat: Seat,
        abort: CancellationToken,
    ) {
        let unchanged = tokio::select! {
            biased;
            () = abort.cancelled() => return,
            unchanged = self.unchanged(&lease, target) => unchanged,
        };
        let started_at = self.context.now();
        // With too little left of the lease another worker may have the delivery before this attempt ends.
        let in_time = lease.until.since(started_at) > target.timeout;
        if let Some(due) = unchanged.err().or((!in_time).then_some(started_at)) {
            seat.leave(Pace::NotMade, started_at);
            self.give_back(vec![release(&lease, due)]);
            return;
        }
        let number = lease.attempts + 1;
        let start = Instant::now();
        let made = tokio::select! {
            biased;
            made = self.make(&lease, target, &payload.event, number, started_at) => made,
            () = abort.cancelled() => return,
        };
        let Made { sent, result } = made;
        let duration = start.elapsed();
        let now = self.context.now();
        seat.leave(pace(&result, duration), now);

        let mut attempt = Attempt::new(
            AttemptId::from_uuid(self.context.new_id()),
            lease.tenant.clone(),
            lease.delivery,
            lease.event,
            started_at,
        );
        attempt.subscription_id = lease.target.subscription();
        attempt.event_type = payload.event.event_type.clone();
        attempt.target_url = target.url.to_string();
        attempt.number = number;
        attempt.duration = duration;
        attempt.request_headers = sent;
        let retry_after = fill(&mut attempt, &result, now);
        drop(payload);
        let (next, effect) = self.judge(&lease, target, &attempt, retry_after, now);
        attempt.will_retry = matches!(next, NextStep::RetryAt(_));
        self.record(lease, attempt, next, effect, &abort).await;
    }

    /// Whether the subscription is still the one that the delivery was claimed for, and takes deliveries; else when to
    /// claim it again. Only a delivery that has waited for a slot is asked for.
    async fn unchanged(&self, lease: &Lease, target: &LiveTarget) -> Result<(), Timestamp> {
        let Some(subscription) = lease.target.subscription() else { return Ok(()) };
        let now = self.context.now();
        let claimed_at = lease.until - self.context.options.lease();
        if now.since(claimed_at) < TRUSTED {
            return Ok(());
        }
        let ids = [(lease.tenant.clone(), subscription)];
        match self.context.in_time(self.context.store.subscriptions(&ids)).await {
            Ok(records) => {
                let takes_it = |record: &SubscriptionRecord| {
                    record.version == target.version
                        && record.disabled.is_none()
                        && record.paused_until.is_none_or(|until| until <= now)
                };
                if records.iter().any(takes_it) { Ok(()) } else { Err(now) }
            }
            Err(error) => {
                tracing::warn!(%error, "a subscription could not be read again; its lease is given back");
                Err(now + self.context.options.poll_interval)
            }
        }
    }

    /// Sends the request, or calls the handler.
    async fn make(&self, lease: &Lease, target: &LiveTarget, event: &Event, number: u32, now: Timestamp) -> Made {
        if let Some(handler) = &target.handler {
            let result = inbox::attempt(&**handler, lease, event, number, target.timeout).await;
            return Made { sent: Vec::new(), result };
        }
        match outbound(target, event, number, now) {
            Ok(request) => {
                let sent = headers_for_log(&request.headers, target);
                Made { sent, result: self.context.transport.send(request).await }
            }
            Err(error) => {
                let result = Err(TransportError::new(ErrorKind::Protocol, error.to_string()));
                Made { sent: Vec::new(), result }
            }
        }
    }

    /// What becomes of the delivery and of its subscription.
    fn judge(
        &self,
        lease: &Lease,
        target: &LiveTarget,
        attempt: &Attempt,
        retry_after: Option<Duration>,
        now: Timestamp,
    ) -> (NextStep, TargetEffect) {
        let Some(failure) = &attempt.failure else {
            let resumed = self.admission.resume(lease.target.id()) || lease.paused;
            let effect = if resumed { TargetEffect::Resume } else { TargetEffect::None };
            return (NextStep::End(DeliveryState::Delivered, None), effect);
        };
        let mut failed = FailedAttempt::new(attempt.number, failure.kind);
        if let Some(status) = attempt.status_code {
            failed = failed.with_status_code(status);
        }
        let gone = attempt.status_code == Some(410);
        let due = next_due(&*target.retry, &failed, retry_after, now, &*self.context.entropy);
        let next = match (lease.reopened, due) {
            (Some((state, reason)), _) => NextStep::End(state, reason),
            (None, Some(due)) => NextStep::RetryAt(due),
            (None, None) => {
                let reason = match failure.kind {
                    _ if gone => Reason::Gone,
                    ErrorKind::Blocked => Reason::Blocked,
                    _ => Reason::AttemptsExhausted,
                };
                NextStep::End(DeliveryState::Exhausted, Some(reason))
            }
        };
        let effect = match (next, attempt.status_code) {
            _ if gone && lease.target.subscription().is_some() => TargetEffect::DisableGone,
            (NextStep::RetryAt(due), Some(429 | 502 | 503 | 504)) => {
                self.admission.pause(lease.target.id(), due, now);
                TargetEffect::Pause(due)
            }
            _ => TargetEffect::None,
        };
        (next, effect)
    }

    async fn record(
        &self,
        lease: Lease,
        attempt: Attempt,
        next: NextStep,
        mut effect: TargetEffect,
        abort: &CancellationToken,
    ) {
        crate::metrics::attempted(&attempt);
        let mut closed = None;
        if effect == TargetEffect::DisableGone {
            // It may have to wait for whoever works with the tenant's subscriptions. One of them does; the others would
            // fill the slots meanwhile.
            closed = self.admission.close(lease.target.id(), self.context.now());
            if closed.is_none() {
                effect = TargetEffect::None;
            }
        }
        let mut outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, next);
        outcome.attempt = Some(Arc::new(attempt));
        outcome.effect = effect;
        let recorded = self.recorder.record(outcome, lease.until, abort).await;
        drop(closed);
        self.held().remove(&lease.delivery);
        match recorded {
            Some(Recorded::Done) => {}
            Some(Recorded::Fenced) => {
                crate::metrics::fenced();
                tracing::info!(delivery = %lease.delivery, "a result came after its lease was lost; it changes nothing");
                return;
            }
            None => {
                tracing::warn!(delivery = %lease.delivery, "a result was not recorded before its lease ran out");
                return;
            }
        }
        match next {
            NextStep::RetryAt(due) => {
                self.alarm.set(due);
                if let Some(hints) = &self.hints {
                    hints.push(vec![Hint::new(lease.delivery, lease.target.id(), due)]);
                }
            }
            NextStep::End(state, reason) => {
                crate::metrics::ended(state, reason);
                if let Some(hints) = &self.hints {
                    hints.forget(vec![Hint::new(lease.delivery, lease.target.id(), lease.until)]);
                }
            }
        }
        match effect {
            TargetEffect::DisableGone => {
                tracing::info!(target = %lease.target.id(), "a target answered 410: its subscription is disabled");
                self.context.announcer.subscriptions_changed(&lease.tenant);
                if let Err(error) = self.indexes.refresh(&lease.tenant).await {
                    tracing::warn!(%error, "the index was not refreshed");
                }
            }
            TargetEffect::Resume => self.wake_without_hint(),
            TargetEffect::Pause(until) => self.alarm.set(until),
            TargetEffect::None => {}
        }
    }
}

fn pace(result: &Result<OutboundResponse, TransportError>, took: std::time::Duration) -> Pace {
    match result {
        Ok(_) => Pace::Answered(took),
        Err(error) => match error.kind() {
            ErrorKind::Blocked => Pace::NotMade,
            ErrorKind::Timeout | ErrorKind::Connect | ErrorKind::Dns | ErrorKind::Tls => Pace::Silent,
            _ => Pace::Answered(took),
        },
    }
}

/// Puts the answer into the attempt; the `Retry-After` it came with.
fn fill(
    attempt: &mut Attempt,
    result: &Result<OutboundResponse, TransportError>,
    now: Timestamp,
) -> Option<std::time::Duration> {
    match result {
        Ok(response) => {
            let status = response.status;
            attempt.status_code = Some(status.as_u16());
            attempt.response_headers = super::request::response_headers_for_log(&response.headers);
            attempt.response_body = response.body.clone();
            attempt.response_truncated = response.truncated;
            attempt.failure = match status.as_u16() {
                200..=299 => None,
                300..=399 => Some(AttemptFailure::new(
                    ErrorKind::Redirect,
                    format!("answered {status}; redirects are not followed"),
                )),
                _ => Some(AttemptFailure::new(ErrorKind::Status, format!("answered {status}"))),
            };
            let header = response.headers.get(http::header::RETRY_AFTER)?;
            parse_retry_after(header, now)
        }
        Err(error) => {
            attempt.status_code = error.status().map(|status| status.as_u16());
            attempt.failure = Some(AttemptFailure::new(error.kind(), error.message()));
            None
        }
    }
}
