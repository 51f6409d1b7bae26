//! What a claim, loading and recording cost on PostgreSQL, however many rows there are and whoever owns them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::Instant;
use uuid::Uuid;
use webhook_core::store::{
    ClaimRequest, DeliveryStore, EventStore, Inserted, LeaseToken, MaintenanceStore, NextStep, Outcome, Room,
    SubscriptionStore,
};
use webhook_core::{
    Attempt, AttemptId, DeliveryState, EventId, Sealed, SubscriptionId, SubscriptionRecord, SubscriptionSettings,
    TenantId, Timestamp,
};
use webhook_store_postgres::PostgresStore;

use crate::database::Databases;
use crate::{Error, StoreKind};

const SUBSCRIPTIONS: u64 = 500;
const LEASES: u32 = 64;
const ROUNDS: usize = 60;
/// Deliveries that are due first have events; the others are never loaded.
const LOADED: u64 = 20_000;
/// A snapshot has been held for so long before anything is measured.
const SNAPSHOT: Duration = Duration::from_secs(60);
/// Deliveries of one event that share a row.
const SHARING: u64 = 50;

/// Which rows there are.
struct Scenario {
    name: String,
    open: u64,
    ended: u64,
    /// Of a thousand open deliveries, so many belong to one subscription, or of a thousand shared rows to the same ones.
    owned: u64,
    /// A transaction of somebody else holds a snapshot from the beginning on, and so many rows pass meanwhile.
    passing: u64,
    /// The open deliveries are those of large events, which share rows.
    shared: bool,
}

impl Scenario {
    fn new(open: u64, ended: u64) -> Self {
        Self { name: format!("{open} open, {ended} ended"), open, ended, owned: 0, passing: 0, shared: false }
    }

    fn owned(mut self) -> Self {
        self.name += ", one owns 99 %";
        self.owned = 990;
        self
    }

    fn passing(mut self, rows: u64) -> Self {
        self.name = format!("{} open, old snapshot, {rows} passed", self.open);
        self.open += rows;
        self.passing = rows;
        self
    }

    fn shared(mut self) -> Self {
        self.name = format!("fan-out {SHARING}: {}", self.name);
        self.shared = true;
        self
    }
}

/// Microseconds of each round, by step.
#[derive(Default)]
struct Times {
    claim: Vec<u128>,
    load: Vec<u128>,
    record: Vec<u128>,
}

/// Measures those scenarios that have `only` in their names.
pub(crate) async fn all(folder: Option<&Path>, rows: u64, only: &str) -> Result<(), Error> {
    let databases = Databases::start(folder, &[StoreKind::Postgres], &[])?;
    let few = || Scenario::new(10_000, 10_000);
    let many = || Scenario::new(rows, rows);
    let scenarios = [
        few(),
        many(),
        many().owned(),
        few().passing(200_000),
        few().passing(200_000).owned(),
        many().passing(200_000),
        few().shared(),
        many().shared(),
        many().owned().shared(),
        few().passing(200_000).shared(),
        many().passing(200_000).shared(),
    ];
    println!("{ROUNDS} rounds of {LEASES} leases, {SUBSCRIPTIONS} subscriptions; p50 / p99 in ms");
    println!("{:<64} {:>15} {:>15} {:>15}", "rows", "claim", "load", "record");
    for scenario in scenarios.iter().filter(|scenario| scenario.name.contains(only)) {
        let url = databases.postgres().ok_or("there is no PostgreSQL server")?;
        let mut times = measure(scenario, &url).await?;
        let [claim, load, record] = [&mut times.claim, &mut times.load, &mut times.record].map(|all| percentiles(all));
        println!("{:<64} {claim:>15} {load:>15} {record:>15}", scenario.name);
    }
    Ok(())
}

fn percentiles(times: &mut [u128]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or(0);
    format!("{:.1} / {:.1}", at(50) as f64 / 1e3, at(99) as f64 / 1e3)
}

async fn measure(scenario: &Scenario, url: &str) -> Result<Times, Error> {
    let store = PostgresStore::open(url).await?;
    let now = store.clock().now();
    let subscriptions = subscribe(&store, now).await?;
    let mut host = PgConnection::connect(url).await?;
    fill(&mut host, scenario, &subscriptions, now).await?;
    let mut old = PgConnection::connect(url).await?;
    if scenario.passing > 0 {
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM webhook.tenant")
            .execute(&mut old)
            .await?;
        let begun = Instant::now();
        let rounds = scenario.passing / 1_000;
        rounds_of(&store, now, rounds as usize, 1_000, &mut Times::default()).await?;
        tokio::time::sleep_until(begun + SNAPSHOT).await;
    }
    // Unmeasured: connections and plans.
    rounds_of(&store, now, 5, LEASES, &mut Times::default()).await?;
    let mut times = Times::default();
    rounds_of(&store, now, ROUNDS, LEASES, &mut times).await?;
    Ok(times)
}

async fn subscribe(store: &PostgresStore, now: Timestamp) -> Result<Vec<Uuid>, Error> {
    let mut ids = Vec::new();
    for number in 0..SUBSCRIPTIONS {
        let id = Uuid::from_u128((1 << 80) + u128::from(number));
        let settings = SubscriptionSettings::new("https://example.com/hook");
        let secrets = Sealed::from_bytes(vec![1]);
        let record =
            SubscriptionRecord::new(SubscriptionId::from_uuid(id), TenantId::default(), settings, secrets, now);
        match store.insert_subscription(&record, None).await? {
            Inserted::Created(_) => ids.push(id),
            other => return Err(format!("not created: {other:?}").into()),
        }
    }
    Ok(ids)
}

/// Puts the rows in without their indexes, which are made again afterwards.
async fn fill(host: &mut PgConnection, scenario: &Scenario, ids: &[Uuid], now: Timestamp) -> Result<(), Error> {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname, indexdef FROM pg_indexes
         WHERE schemaname = 'webhook' AND tablename = 'delivery' AND indexname <> 'delivery_pkey'",
    )
    .fetch_all(&mut *host)
    .await?;
    for (name, _) in &indexes {
        sqlx::query(AssertSqlSafe(format!("DROP INDEX webhook.{name}"))).execute(&mut *host).await?;
    }
    let loaded = LOADED.max(scenario.passing + LOADED);
    sqlx::query(
        "INSERT INTO webhook.event (id, tenant, event_type, content_type, payload, direct, deliveries, created_at)
         SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'default', 'a.b', 'application/json',
           convert_to(repeat('x', 500), 'UTF8'), false, 1, $2 FROM generate_series(1, $1) AS n",
    )
    .bind(loaded as i64)
    .bind(now.as_millis())
    .execute(&mut *host)
    .await?;
    // What is due first has an event; what ended stands between what is open.
    sqlx::query(
        "INSERT INTO webhook.delivery
           (id, tenant, event_id, target_id, subscription_id, next_at, payload_bytes, created_at, state, completed_at)
         SELECT ('00000000-0000-7000-' || CASE WHEN ended THEN '9' ELSE '8' END || '000-' || lpad(to_hex(n), 12, '0'))::uuid,
           'default', ('00000000-0000-7000-' || CASE WHEN ended THEN '9' ELSE '8' END || '000-' || lpad(to_hex(n), 12, '0'))::uuid,
           t, t, $3 - 1000000000 + n, 500, $3 - 1000000000 + n, ended::int, CASE WHEN ended THEN $3 END
         FROM (
           SELECT n, ended,
             ($4::uuid[])[CASE WHEN n % 1000 < $5 THEN 250 ELSE 1 + n % cardinality($4) END] AS t
           FROM (SELECT n, false FROM generate_series(1, $1) AS n UNION ALL SELECT n, true FROM generate_series(1, $2) AS n)
             AS r (n, ended)
         ) AS r",
    )
    .bind(if scenario.shared { 0 } else { scenario.open as i64 })
    .bind(scenario.ended as i64)
    .bind(now.as_millis())
    .bind(ids)
    .bind(scenario.owned as i64)
    .execute(&mut *host)
    .await?;
    for (_, definition) in indexes {
        sqlx::query(AssertSqlSafe(definition)).execute(&mut *host).await?;
    }
    if scenario.shared {
        share(host, scenario, ids, now).await?;
    }
    for sql in ["VACUUM ANALYZE webhook.delivery", "VACUUM ANALYZE webhook.fan_out", "CHECKPOINT"] {
        sqlx::query(sql).execute(&mut *host).await?;
    }
    Ok(())
}

/// Puts open deliveries in, each row with those of one event to neighbouring subscriptions.
async fn share(host: &mut PgConnection, scenario: &Scenario, ids: &[Uuid], now: Timestamp) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO webhook.fan_out
           (id, event_id, line, open, next_at, created_at, payload_bytes, tenant, targets)
         SELECT id, event, webhook.fan_out_line(id, open, targets), open, due, due, 500, 'default', targets
         FROM (
           SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(64 * n), 12, '0'))::uuid AS id,
             ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS event,
             (1::bigint << $3) - 1 AS open, $4 - 1000000000 + n AS due, g.targets
           FROM generate_series(1, $1) AS n
           JOIN (
             SELECT first, (SELECT string_agg(uuid_send(t), NULL ORDER BY t)
               FROM unnest(($2::uuid[])[1 + first : first + $3]) AS t) AS targets
             FROM generate_series(0, cardinality($2) - $3) AS first
           ) AS g ON g.first = CASE WHEN n % 1000 < $5 THEN 250 ELSE n % (1 + cardinality($2) - $3) END
         ) AS r",
    )
    .bind((scenario.open / SHARING) as i64)
    .bind(ids)
    .bind(SHARING as i32)
    .bind(now.as_millis())
    .bind(scenario.owned as i64)
    .execute(host)
    .await?;
    Ok(())
}

/// Claims, loads and records as a worker does.
async fn rounds_of(
    store: &PostgresStore,
    start: Timestamp,
    rounds: usize,
    leases: u32,
    times: &mut Times,
) -> Result<(), Error> {
    let (room, mut cursor) = (Room::all(1_000), None);
    let lease = Duration::from_secs(45);
    for round in 0..rounds {
        let now = store.clock().now().max(start);
        let token = LeaseToken::new(Uuid::new_v4().as_u128() as u64);
        let begun = Instant::now();
        let request = ClaimRequest::new(now, now + lease, token, leases, &room).with_cursor(cursor);
        let claimed = store.claim(request).await?;
        times.claim.push(begun.elapsed().as_micros());
        if claimed.leases.is_empty() {
            return Err(format!("round {round} found nothing").into());
        }
        cursor = claimed.cursor;
        let ids: Vec<(TenantId, EventId)> =
            claimed.leases.iter().map(|lease| (lease.tenant.clone(), lease.event)).collect();
        let begun = Instant::now();
        let events: HashMap<_, _> = store.load_events(&ids).await?.into_iter().map(|event| (event.id, event)).collect();
        times.load.push(begun.elapsed().as_micros());
        let outcomes: Vec<_> = claimed
            .leases
            .iter()
            .map(|lease| {
                let id = AttemptId::from_uuid(Uuid::new_v4());
                let mut attempt = Attempt::new(id, lease.tenant.clone(), lease.delivery, lease.event, now);
                attempt.number = lease.attempts + 1;
                attempt.subscription_id = lease.target.subscription();
                attempt.status_code = Some(200);
                attempt.event_type = events.get(&lease.event).and_then(|event| event.event_type.clone());
                let next = NextStep::End(DeliveryState::Delivered, None);
                let mut outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, next);
                outcome.attempt = Some(Arc::new(attempt));
                outcome
            })
            .collect();
        let begun = Instant::now();
        store.record(now, &outcomes).await?;
        times.record.push(begun.elapsed().as_micros());
    }
    Ok(())
}
