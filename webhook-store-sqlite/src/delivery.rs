//! Recording what came of leases.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::SqliteConnection;
use webhook_core::store::{ClaimRequest, Claimed, DeliveryStore, NextStep, Outcome, Recorded, Release, TargetEffect};
use webhook_core::{Attempt, DeliveryId, Reason, StoreError, SubscriptionId, TenantId, Timestamp};

use crate::claim::{self, Ask};
use crate::error::Fault;
use crate::store::SqliteStore;
use crate::{bulk, subscription};

#[async_trait]
impl DeliveryStore for SqliteStore {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        let ask = Ask::from(request);
        self.writer.run(request.limit as usize, ask, |conn, ask| Box::pin(claim::claim(conn, ask))).await
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        let input = (Ask::from(request), ids.to_vec());
        self.writer.run(ids.len(), input, |conn, (ask, ids)| Box::pin(claim::claim_ids(conn, ask, ids))).await
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        let input = (now, outcomes.to_vec());
        self.writer
            .run_along(2 * outcomes.len(), input, |conn, (now, outcomes)| Box::pin(record(conn, *now, outcomes)))
            .await
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        self.writer.run(releases.len(), releases.to_vec(), |conn, releases| Box::pin(release(conn, releases))).await
    }
}

async fn record(conn: &mut SqliteConnection, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, Fault> {
    let mut held = held_leases(conn, outcomes).await?;
    let mut done = Vec::with_capacity(outcomes.len());
    let mut recorded = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let lease = held.remove(&outcome.delivery);
        match lease {
            Some(lease) if lease.token == outcome.token.get() && lease.tenant == outcome.tenant => {
                done.push((outcome, lease.subscription));
                recorded.push(Recorded::Done);
            }
            fenced => {
                held.extend(fenced.map(|lease| (outcome.delivery, lease)));
                recorded.push(Recorded::Fenced);
            }
        }
    }
    if !done.is_empty() {
        update_deliveries(conn, now, done.iter().map(|(outcome, _)| *outcome)).await?;
        let attempts: Vec<_> = done.iter().filter_map(|(outcome, _)| outcome.attempt.as_deref()).collect();
        insert_attempts(conn, &attempts).await?;
        apply_effects(conn, now, &done).await?;
    }
    Ok(recorded)
}

/// The current lease of a delivery.
#[derive(Deserialize)]
struct Held {
    delivery: DeliveryId,
    tenant: TenantId,
    token: i64,
    subscription: Option<SubscriptionId>,
}

/// The current leases of the outcomes' deliveries, where there are any.
async fn held_leases(conn: &mut SqliteConnection, outcomes: &[Outcome]) -> Result<HashMap<DeliveryId, Held>, Fault> {
    // One row costs the driver as much as the leases it holds.
    let held: String = sqlx::query_scalar(
        "SELECT json_group_array(json_array(
           hex(id), tenant, token, CASE WHEN subscription_id IS NOT NULL THEN hex(subscription_id) END))
         FROM webhook_delivery
         WHERE id IN (SELECT unhex(value) FROM json_each(?1)) AND state = 0 AND leased = 1",
    )
    .bind(bulk::hex_list(outcomes.iter().map(|outcome| outcome.delivery.as_uuid()))?)
    .fetch_one(conn)
    .await?;
    let held: Vec<Held> = serde_json::from_str(&held)?;
    Ok(held.into_iter().map(|held| (held.delivery, held)).collect())
}

async fn update_deliveries(
    conn: &mut SqliteConnection,
    now: Timestamp,
    outcomes: impl Iterator<Item = &Outcome>,
) -> Result<(), Fault> {
    let changes: Vec<_> = outcomes
        .map(|outcome| {
            let attempt = outcome.attempt.as_ref();
            let (state, reason, due) = match outcome.next {
                NextStep::RetryAt(due) => (0, None, Some(due.as_millis())),
                NextStep::End(state, reason) => (state.code(), reason.map(Reason::code), None),
            };
            (
                bulk::hex(outcome.delivery.as_uuid()),
                state,
                reason,
                due,
                attempt.map(|attempt| attempt.number),
                attempt.and_then(|attempt| attempt.status_code),
                attempt.and_then(|attempt| attempt.failure.as_ref()).map(|failure| failure.kind.as_str()),
                attempt.map(|attempt| attempt.started_at.as_millis()),
            )
        })
        .collect();
    sqlx::query(
        "UPDATE webhook_delivery AS d SET
           state = j.state,
           reason = j.reason,
           next_at = coalesce(j.due, ?2),
           leased = 0,
           attempts = coalesce(j.number, d.attempts),
           last_status = CASE WHEN j.number IS NULL THEN d.last_status ELSE j.status END,
           last_error = CASE WHEN j.number IS NULL THEN d.last_error ELSE j.error END,
           last_attempt_at = coalesce(j.started_at, d.last_attempt_at),
           completed_at = CASE WHEN j.state <> 0 THEN ?2 END,
           reopened_state = CASE WHEN j.state = 0 THEN d.reopened_state END,
           reopened_reason = CASE WHEN j.state = 0 THEN d.reopened_reason END
         FROM (
           SELECT unhex(value ->> 0) AS id, value ->> 1 AS state, value ->> 2 AS reason, value ->> 3 AS due,
             value ->> 4 AS number, value ->> 5 AS status, value ->> 6 AS error, value ->> 7 AS started_at
           FROM json_each(?1)
         ) AS j
         WHERE d.id = j.id",
    )
    .bind(bulk::json(&changes)?)
    .bind(now.as_millis())
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_attempts(conn: &mut SqliteConnection, attempts: &[&Attempt]) -> Result<(), Fault> {
    bulk::insert(
        conn,
        "INSERT INTO webhook_attempt
           (delivery_id, number, id, tenant, subscription_id, event_id, event_type, target_url, started_at, duration_ms,
            error, error_message, will_retry, status_code, request_headers, response_headers, response_body,
            response_truncated)",
        18,
        "",
        attempts,
        |query, attempt| {
            let failure = attempt.failure.as_ref();
            Ok(query
                .bind(attempt.delivery_id.as_uuid())
                .bind(attempt.number)
                .bind(attempt.id.as_uuid())
                .bind(attempt.tenant.as_str().to_owned())
                .bind(attempt.subscription_id.map(SubscriptionId::as_uuid))
                .bind(attempt.event_id.as_uuid())
                .bind(attempt.event_type.as_ref().map(|event_type| event_type.as_str().to_owned()))
                .bind(attempt.target_url.clone())
                .bind(attempt.started_at.as_millis())
                .bind(i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX))
                .bind(failure.map(|failure| failure.kind.as_str()))
                .bind(failure.map(|failure| failure.message.clone()))
                .bind(attempt.will_retry)
                .bind(attempt.status_code)
                .bind(bulk::json(&attempt.request_headers)?)
                .bind(bulk::json(&attempt.response_headers)?)
                .bind(attempt.response_body.to_vec())
                .bind(attempt.response_truncated))
        },
    )
    .await
}

/// What all the outcomes together mean for one subscription.
#[derive(Default)]
struct Effect<'a> {
    resume: bool,
    pause: Option<Timestamp>,
    gone: Option<&'a TenantId>,
}

async fn apply_effects(
    conn: &mut SqliteConnection,
    now: Timestamp,
    done: &[(&Outcome, Option<SubscriptionId>)],
) -> Result<(), Fault> {
    let mut effects: HashMap<SubscriptionId, Effect<'_>> = HashMap::new();
    for (outcome, subscription) in done {
        let Some(subscription) = *subscription else { continue };
        match outcome.effect {
            TargetEffect::None => {}
            TargetEffect::Pause(until) => {
                let effect = effects.entry(subscription).or_default();
                effect.pause = effect.pause.max(Some(until));
            }
            TargetEffect::Resume => {
                let effect = effects.entry(subscription).or_default();
                (effect.resume, effect.pause) = (true, None);
            }
            TargetEffect::DisableGone => effects.entry(subscription).or_default().gone = Some(&outcome.tenant),
        }
    }
    for (id, effect) in effects {
        if effect.resume {
            subscription::pause(conn, id, None).await?;
        }
        if effect.pause.is_some() {
            subscription::pause(conn, id, effect.pause).await?;
        }
        if let Some(tenant) = effect.gone {
            subscription::disable_gone(conn, tenant, id, now).await?;
        }
    }
    Ok(())
}

async fn release(conn: &mut SqliteConnection, releases: &[Release]) -> Result<(), Fault> {
    let releases: Vec<_> = releases
        .iter()
        .map(|release| (bulk::hex(release.delivery.as_uuid()), release.token.get(), release.due.as_millis()))
        .collect();
    sqlx::query(
        "UPDATE webhook_delivery AS d SET next_at = j.due, leased = 0
         FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS token, value ->> 2 AS due FROM json_each(?1)) AS j
         WHERE d.id = j.id AND d.token = j.token AND d.leased = 1 AND d.state = 0",
    )
    .bind(bulk::json(&releases)?)
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends all leases at `now`. They still count as lost: the rows stay marked, and the next claim sees it.
pub(crate) async fn free_leases(conn: &mut SqliteConnection, now: Timestamp) -> Result<u64, Fault> {
    let freed = sqlx::query("UPDATE webhook_delivery SET next_at = ?1 WHERE state = 0 AND leased = 1 AND next_at > ?1")
        .bind(now.as_millis())
        .execute(conn)
        .await?;
    Ok(freed.rows_affected())
}
