//! Recording what came of leases.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use sqlx::Row;
use uuid::Uuid;
use webhook_core::store::{ClaimRequest, Claimed, DeliveryStore, NextStep, Outcome, Recorded, Release, TargetEffect};
use webhook_core::{DeliveryId, EventId, EventType, Reason, StoreError, SubscriptionId, TenantId, Timestamp};

use crate::error::Fault;
use crate::fan_out::{self, rows_between};
use crate::session::{Begin, Conn};
use crate::store::PostgresStore;
use crate::tenant::{self, Line};
use crate::{claim, rows, subscription};

#[async_trait]
impl DeliveryStore for PostgresStore {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<Claimed, StoreError> {
        // Claims do not wait for the disk: a lease that a crash of the server takes back was never acted upon by
        // anybody else, and its token comes no second time.
        let mut session = self.worker_writer(Begin::Relaxed).await?;
        let claimed = async {
            let mut conn = session.conn();
            self.clock.keep_up(conn.inner).await?;
            claim::claim(&mut conn, &self.progress, &request).await
        };
        let claimed = claimed.await;
        let (claimed, rescued) = self.end(session, claimed).await?;
        if let Some(rescued) = rescued {
            // Not before it is committed: what is rolled back is found again.
            self.progress.rescued(request.now, rescued.more);
        }
        Ok(claimed)
    }

    async fn claim_ids(&self, request: ClaimRequest<'_>, ids: &[DeliveryId]) -> Result<Claimed, StoreError> {
        let mut session = self.worker_writer(Begin::Relaxed).await?;
        let claimed = claim::claim_ids(&mut session.conn(), &request, ids).await;
        self.end(session, claimed).await
    }

    async fn record(&self, now: Timestamp, outcomes: &[Outcome]) -> Result<Vec<Recorded>, StoreError> {
        // An attempt tells the target; a delivery that shares a row and ends without one gets a row of its own first. In a
        // transaction of its own: in each, shared rows are locked in the order of their ids.
        let unattempted = outcomes.iter().filter(|outcome| outcome.attempt.is_none());
        let unattempted: Vec<Uuid> = unattempted.map(|outcome| outcome.delivery.as_uuid()).collect();
        if !unattempted.is_empty() {
            let mut session = self.worker_reader().await?;
            let spilled = fan_out::spill(&mut session.conn(), &unattempted).await;
            self.end(session, spilled).await?;
        }
        if outcomes.iter().all(|outcome| outcome.effect == TargetEffect::None) {
            let mut session = self.worker_reader().await?;
            let done = update(&mut session.conn(), now, outcomes).await;
            let done = self.end(session, done).await?;
            return Ok(recorded(outcomes, &done));
        }
        let mut session = self.worker_writer(Begin::Durable).await?;
        let done = record_with_effects(&mut session.conn(), now, outcomes, &self.line).await;
        let done = self.end(session, done).await?;
        Ok(recorded(outcomes, &done))
    }

    async fn release(&self, releases: &[Release]) -> Result<(), StoreError> {
        let mut session = self.worker_writer(Begin::Durable).await?;
        let released = release(&mut session.conn(), releases).await;
        self.end(session, released).await
    }
}

/// The positions of the outcomes that count, each with its delivery's subscription.
type Done = HashMap<usize, Option<SubscriptionId>>;

fn recorded(outcomes: &[Outcome], done: &Done) -> Vec<Recorded> {
    let one = |position| if done.contains_key(&position) { Recorded::Done } else { Recorded::Fenced };
    (0..outcomes.len()).map(one).collect()
}

async fn record_with_effects(
    conn: &mut Conn<'_>,
    now: Timestamp,
    outcomes: &[Outcome],
    line: &Line,
) -> Result<Done, Fault> {
    // Before any row is locked: who changes a subscription locks the tenant first.
    let gone = outcomes.iter().filter(|outcome| outcome.effect == TargetEffect::DisableGone);
    let gone: Vec<&TenantId> = gone.map(|outcome| &outcome.tenant).collect();
    if !gone.is_empty() {
        tenant::lock_all(conn, gone.into_iter(), line).await?;
    }
    let done = update(conn, now, outcomes).await?;
    apply_effects(conn, now, outcomes, &done).await?;
    Ok(done)
}

/// Writes attempts and deliveries, as far as the leases are the current ones.
async fn update(conn: &mut Conn<'_>, now: Timestamp, outcomes: &[Outcome]) -> Result<Done, Fault> {
    let mut seen = HashSet::with_capacity(outcomes.len());
    // In the order of the ids: rows that share a page or are locked by others too come one after the other.
    let mut ordered: Vec<_> = outcomes.iter().enumerate().collect();
    ordered.sort_by_key(|(_, outcome)| outcome.delivery);
    // Of two outcomes of one lease the first counts.
    ordered.retain(|(_, outcome)| seen.insert((outcome.delivery, outcome.token)));
    let mut done = write(conn, now, &ordered).await?;
    if done.len() < ordered.len() {
        // A delivery that was given its own row while the statement waited for the one it shared was not seen in either.
        ordered.retain(|(position, _)| !done.contains_key(position));
        done.extend(write(conn, now, &ordered).await?);
    }
    Ok(done)
}

/// Does so in one statement, which sees what was there when it began.
///
/// What is left of a row that is shared is told by what `held` found under its lock: others may have recorded outcomes of
/// the same row since the statement began, and of the row itself it sees what was before that.
///
/// `state + 0` keeps the planner from the partial indexes: it would go through all leases for each outcome, instead of
/// from the outcomes to their deliveries.
async fn write(conn: &mut Conn<'_>, now: Timestamp, outcomes: &[(usize, &Outcome)]) -> Result<Done, Fault> {
    let mut columns = Columns::default();
    for (position, outcome) in outcomes {
        columns.push(*position, outcome)?;
    }
    let found = sqlx::query(concat!(
        "WITH locked AS MATERIALIZED (
           SELECT p.a, f.*
           FROM (SELECT DISTINCT a, b FROM unnest($27::uuid[], $28::uuid[]) AS p (a, b) ORDER BY a) AS p ",
        rows_between!("p.a", "p.b", "x.leased::int = 1 AND x.token = ANY ($29)", "FOR UPDATE"),
        "), held AS MATERIALIZED (
           SELECT g.n::int AS n, f.id, f.open, f.created_at, f.payload_bytes
           FROM locked AS f
           JOIN unnest($27::uuid[], $28::uuid[], $29::bigint[], $30::text[], $31::uuid[]) WITH ORDINALITY
             AS g (a, b, token, tenant, event_id, n)
             ON g.a = f.a AND g.token = f.token AND g.tenant = f.tenant AND g.event_id = f.event_id
         ), h AS MATERIALIZED (
           SELECT array_agg(n) AS ns, array_agg(id) AS ids, array_agg(open) AS opens, array_agg(created_at) AS created,
             array_agg(payload_bytes) AS sizes FROM held
         ), i AS MATERIALIZED (
           SELECT i.*, h.ids[p.k] AS fan_out, h.created[p.k] AS created_at, h.sizes[p.k] AS payload_bytes,
             h.opens[p.k] AS open, h.opens[p.k] >> i.bit & 1 = 1 AS shared
           FROM unnest($1::int[], $2::uuid[], $3::text[], $4::bigint[], $5::smallint[], $6::smallint[], $7::bigint[],
             $8::int[], $9::smallint[], $10::text[], $11::bigint[], $12::uuid[], $13::uuid[], $14::uuid[], $15::text[],
             $16::text[], $17::bigint[], $18::text[], $19::bool[], $20::text[], $21::text[], $22::bytea[], $23::bool[],
             $25::int[], $26::int[])
             AS i (position, id, tenant, token, state, reason, due, number, status, error, started_at, attempt_id,
               event_id, subscription_id, event_type, target_url, duration_ms, error_message, will_retry,
               request_headers, response_headers, response_body, response_truncated, place, bit)
           CROSS JOIN h CROSS JOIN LATERAL (SELECT array_position(h.ns, i.place) AS k) AS p
         ), done AS (
           UPDATE webhook.delivery AS d SET
             state = i.state,
             reason = i.reason,
             next_at = coalesce(i.due, $24),
             leased = false,
             attempts = coalesce(i.number, d.attempts),
             last_status = CASE WHEN i.number IS NULL THEN d.last_status ELSE i.status END,
             last_error = CASE WHEN i.number IS NULL THEN d.last_error ELSE i.error END,
             last_attempt_at = coalesce(i.started_at, d.last_attempt_at),
             completed_at = CASE WHEN i.state <> 0 THEN $24 END,
             reopened_state = CASE WHEN i.state = 0 THEN d.reopened_state END,
             reopened_reason = CASE WHEN i.state = 0 THEN d.reopened_reason END
           FROM i
           WHERE i.shared IS NOT TRUE AND d.id = i.id AND d.tenant = i.tenant AND d.token = i.token AND d.leased
             AND d.state + 0 = 0
           RETURNING i.*, d.subscription_id AS subscription
         ), gone AS MATERIALIZED (
           SELECT fan_out AS id, min(open) & ~bit_or(1::bigint << bit) AS rest FROM i WHERE shared GROUP BY fan_out
         ), emptied AS (
           DELETE FROM webhook.fan_out AS f USING gone AS g WHERE f.id = g.id AND g.rest = 0
         ), left_over AS (
           UPDATE webhook.fan_out AS f SET open = g.rest FROM gone AS g WHERE f.id = g.id AND g.rest <> 0
         ), opened AS (
           INSERT INTO webhook.delivery
             (id, tenant, event_id, target_id, subscription_id, next_at, token, created_at, last_attempt_at,
              completed_at, attempts, payload_bytes, state, reason, last_status, last_error)
           SELECT id, tenant, event_id, subscription_id, subscription_id, coalesce(due, $24), token, created_at,
             started_at, CASE WHEN state <> 0 THEN $24 END, number, payload_bytes, state, reason, status, error
           FROM i WHERE shared
         ), logged AS (
           INSERT INTO webhook.attempt
             (delivery_id, number, id, tenant, subscription_id, event_id, event_type, target_url, started_at,
              duration_ms, error, error_message, will_retry, status_code, request_headers, response_headers,
              response_body, response_truncated)
           SELECT id, number, attempt_id, tenant, subscription_id, event_id, event_type, target_url, started_at,
             duration_ms, error, error_message, will_retry, status, request_headers, response_headers, response_body,
             response_truncated
           FROM done WHERE number IS NOT NULL
           UNION ALL
           SELECT id, number, attempt_id, tenant, subscription_id, event_id, event_type, target_url, started_at,
             duration_ms, error, error_message, will_retry, status, request_headers, response_headers, response_body,
             response_truncated
           FROM i WHERE shared
         )
         SELECT position, subscription FROM done
         UNION ALL
         SELECT position, subscription_id FROM i WHERE shared"
    ));
    let found = columns.bind(found, now).persistent(conn.persistent).fetch_all(&mut *conn.inner).await?;
    found
        .iter()
        .map(|row| {
            let position = usize::try_from(row.try_get::<i32, _>("position")?).unwrap_or(usize::MAX);
            Ok((position, rows::id_opt(row, "subscription")?.map(SubscriptionId::from_uuid)))
        })
        .collect()
}

/// Outcomes, column by column. Those without an attempt have no number, and nothing in the attempt's columns.
#[derive(Default)]
struct Columns<'a> {
    positions: Vec<i32>,
    ids: Vec<Uuid>,
    tenants: Vec<&'a str>,
    tokens: Vec<i64>,
    states: Vec<i16>,
    reasons: Vec<Option<i16>>,
    due: Vec<Option<i64>>,
    numbers: Vec<Option<i32>>,
    statuses: Vec<Option<i16>>,
    errors: Vec<Option<&'static str>>,
    started: Vec<Option<i64>>,
    attempt_ids: Vec<Option<Uuid>>,
    events: Vec<Option<Uuid>>,
    subscriptions: Vec<Option<Uuid>>,
    event_types: Vec<Option<&'a str>>,
    target_urls: Vec<Option<&'a str>>,
    durations: Vec<Option<i64>>,
    messages: Vec<Option<String>>,
    will_retry: Vec<Option<bool>>,
    request_headers: Vec<Option<String>>,
    response_headers: Vec<Option<String>>,
    response_bodies: Vec<Option<&'a [u8]>>,
    truncated: Vec<Option<bool>>,
    /// Where a shared row of each would be, from 1 on, and which of its deliveries each would be.
    places: Vec<i32>,
    bits: Vec<i32>,
    shared: Vec<Place<'a>>,
    known: HashMap<Place<'a>, i32>,
}

/// Where deliveries of one lease share a row, if they do.
type Place<'a> = (Uuid, i64, &'a str, Option<Uuid>);

type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl<'a> Columns<'a> {
    fn push(&mut self, position: usize, outcome: &'a Outcome) -> Result<(), Fault> {
        let (state, reason, due) = match outcome.next {
            NextStep::RetryAt(due) => (0, None, Some(due.as_millis())),
            NextStep::End(state, reason) => (state.code(), reason.map(Reason::code), None),
        };
        self.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
        self.ids.push(outcome.delivery.as_uuid());
        self.tenants.push(outcome.tenant.as_str());
        self.tokens.push(outcome.token.get());
        self.states.push(state);
        self.reasons.push(reason);
        self.due.push(due);
        let attempt = outcome.attempt.as_ref();
        let failure = attempt.and_then(|attempt| attempt.failure.as_ref());
        self.numbers.push(attempt.map(|attempt| i32::try_from(attempt.number).unwrap_or(i32::MAX)));
        // A status has three digits.
        self.statuses.push(attempt.and_then(|attempt| attempt.status_code).and_then(|code| i16::try_from(code).ok()));
        self.errors.push(failure.map(|failure| failure.kind.as_str()));
        self.started.push(attempt.map(|attempt| attempt.started_at.as_millis()));
        self.attempt_ids.push(attempt.map(|attempt| attempt.id.as_uuid()));
        self.events.push(attempt.map(|attempt| attempt.event_id.as_uuid()));
        self.subscriptions.push(attempt.and_then(|attempt| attempt.subscription_id).map(SubscriptionId::as_uuid));
        self.event_types.push(attempt.and_then(|attempt| attempt.event_type.as_ref()).map(EventType::as_str));
        self.target_urls.push(attempt.map(|attempt| attempt.target_url.as_str()));
        self.durations.push(attempt.map(|attempt| i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX)));
        // A PostgreSQL text holds no NUL.
        self.messages.push(failure.map(|failure| failure.message.replace('\0', "\u{fffd}")));
        self.will_retry.push(attempt.map(|attempt| attempt.will_retry));
        let json = |headers| serde_json::to_string(headers);
        self.request_headers.push(attempt.map(|attempt| json(&attempt.request_headers)).transpose()?);
        self.response_headers.push(attempt.map(|attempt| json(&attempt.response_headers)).transpose()?);
        self.response_bodies.push(attempt.map(|attempt| &*attempt.response_body));
        self.truncated.push(attempt.map(|attempt| attempt.response_truncated));
        let (first, event) = (fan_out::places(outcome.delivery.as_uuid()).0, attempt.map(|attempt| attempt.event_id));
        let place = (first, outcome.token.get(), outcome.tenant.as_str(), event.map(EventId::as_uuid));
        let number = *self.known.entry(place).or_insert_with(|| {
            self.shared.push(place);
            i32::try_from(self.shared.len()).unwrap_or(i32::MAX)
        });
        self.places.push(number);
        self.bits.push(fan_out::bit(outcome.delivery.as_uuid()).cast_signed());
        Ok(())
    }

    fn bind<'q>(self, query: PgQuery<'q>, now: Timestamp) -> PgQuery<'q>
    where
        'a: 'q,
    {
        let shared = self.shared.iter();
        query
            .bind(self.positions)
            .bind(self.ids)
            .bind(self.tenants)
            .bind(self.tokens)
            .bind(self.states)
            .bind(self.reasons)
            .bind(self.due)
            .bind(self.numbers)
            .bind(self.statuses)
            .bind(self.errors)
            .bind(self.started)
            .bind(self.attempt_ids)
            .bind(self.events)
            .bind(self.subscriptions)
            .bind(self.event_types)
            .bind(self.target_urls)
            .bind(self.durations)
            .bind(self.messages)
            .bind(self.will_retry)
            .bind(self.request_headers)
            .bind(self.response_headers)
            .bind(self.response_bodies)
            .bind(self.truncated)
            .bind(now.as_millis())
            .bind(self.places)
            .bind(self.bits)
            .bind(shared.clone().map(|(first, ..)| *first).collect::<Vec<_>>())
            .bind(shared.clone().map(|(first, ..)| fan_out::places(*first).1).collect::<Vec<_>>())
            .bind(shared.clone().map(|(_, token, ..)| *token).collect::<Vec<_>>())
            .bind(shared.clone().map(|(.., tenant, _)| *tenant).collect::<Vec<_>>())
            .bind(shared.map(|(.., event)| *event).collect::<Vec<_>>())
    }
}

/// What all the outcomes together mean for one subscription.
#[derive(Default)]
struct Effect<'a> {
    resume: bool,
    pause: Option<Timestamp>,
    gone: Option<&'a TenantId>,
}

async fn apply_effects(conn: &mut Conn<'_>, now: Timestamp, outcomes: &[Outcome], done: &Done) -> Result<(), Fault> {
    // In order, so that nobody waits for somebody who waits for them.
    let mut effects: BTreeMap<SubscriptionId, Effect<'_>> = BTreeMap::new();
    for (position, outcome) in outcomes.iter().enumerate() {
        let Some(Some(subscription)) = done.get(&position).copied() else { continue };
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

async fn release(conn: &mut Conn<'_>, releases: &[Release]) -> Result<(), Fault> {
    // Each is due again for its own sake.
    fan_out::spill(conn, &releases.iter().map(|release| release.delivery.as_uuid()).collect::<Vec<_>>()).await?;
    sqlx::query(
        "UPDATE webhook.delivery AS d SET next_at = i.due, leased = false
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS i (id, token, due)
         WHERE d.id = i.id AND d.token = i.token AND d.leased AND d.state + 0 = 0",
    )
    .bind(releases.iter().map(|release| release.delivery.as_uuid()).collect::<Vec<_>>())
    .bind(releases.iter().map(|release| release.token.get()).collect::<Vec<_>>())
    .bind(releases.iter().map(|release| release.due.as_millis()).collect::<Vec<_>>())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(())
}
