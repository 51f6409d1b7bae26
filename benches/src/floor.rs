//! What the machine can do: the figures that the engine's own stand beside.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;
use webhook_core::{Message, OsEntropy, Signer, StandardSigner, SystemClock};

use crate::child::Part;
use crate::receiver::payload;
use crate::{Error, Plan};

/// Signed POSTs a second to the receiver by a bare client, with nothing stored.
pub(crate) async fn posts(plan: &Plan, receiver: &Part, concurrency: usize) -> Result<f64, Error> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let secret = Arc::new([StandardSigner.generate_secret(&OsEntropy)]);
    let url: http::Uri = format!("http://{}/", receiver.addr).parse()?;
    let left = Arc::new(AtomicUsize::new(plan.deliveries));
    let start = Instant::now();
    let callers = (0..concurrency).map(|_| {
        let (client, secret, url, left) = (client.clone(), Arc::clone(&secret), url.clone(), Arc::clone(&left));
        let size = plan.payload;
        tokio::spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let body = Bytes::from(payload(size));
                let mut request = http::Request::post(url.clone()).header("content-type", "application/json");
                let now = webhook_core::Clock::now(&SystemClock);
                if let Some(headers) = request.headers_mut() {
                    let message = Message::new("01a200ee-d97f-7000-9350-21a80b20a457", now, &body);
                    StandardSigner.sign(&message, &*secret, headers)?;
                }
                let answer = client.request(request.body(Full::new(body))?).await?;
                answer.into_body().collect().await?;
            }
            Ok::<_, Error>(())
        })
    });
    for caller in futures_util::future::join_all(callers).await {
        caller??;
    }
    Ok(plan.deliveries as f64 / start.elapsed().as_secs_f64())
}

/// What PostgreSQL can do with the least that has to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PostgresFloor {
    /// The median time of one durable commit of one small row.
    pub(crate) commit: Duration,
    /// Rows of an event and its delivery a second, in transactions of 512.
    pub(crate) inserts: f64,
    /// Deliveries ended and attempts logged a second, in transactions of 512.
    pub(crate) records: f64,
}

/// Two tables without further indexes, and a third for attempts.
pub(crate) async fn postgres(plan: &Plan, url: &str) -> Result<PostgresFloor, Error> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let tables = "CREATE TABLE event (id uuid PRIMARY KEY, tenant text, type text, payload bytea, created_at bigint);
         CREATE TABLE delivery (id uuid PRIMARY KEY, event uuid, target uuid, state int, next_at bigint);
         CREATE TABLE attempt (delivery uuid PRIMARY KEY, number int, started_at bigint, status int, headers text);
         SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off;
         SET enable_mergejoin = off";
    sqlx::raw_sql(tables).execute(&mut connection).await?;
    let mut times = Vec::new();
    for number in 0..200_u128 {
        let start = Instant::now();
        sqlx::query("INSERT INTO event VALUES ($1, 'default', 'bench.event', '', 1)")
            .bind(uuid::Uuid::from_u128(number))
            .execute(&mut connection)
            .await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (body, rows) = (vec![b'x'; plan.payload], plan.deliveries as u128);
    let batch = |first: u128| -> Vec<_> {
        (first..(first + 512).min(rows)).map(|id| uuid::Uuid::from_u128(id + 1_000_000)).collect()
    };
    let start = Instant::now();
    for first in (0..rows).step_by(512) {
        let ids = batch(first);
        sqlx::query(
            "WITH e AS (INSERT INTO event SELECT i, 'default', 'bench.event', p, 1
               FROM unnest($1::uuid[], $2::bytea[]) AS u (i, p))
             INSERT INTO delivery SELECT i, i, i, 0, 1 FROM unnest($1::uuid[]) AS u (i)",
        )
        .bind(&ids)
        .bind(vec![body.as_slice(); ids.len()])
        .execute(&mut connection)
        .await?;
    }
    let inserts = plan.deliveries as f64 / start.elapsed().as_secs_f64();
    let headers = "x".repeat(400);
    let start = Instant::now();
    for first in (0..rows).step_by(512) {
        let ids = batch(first);
        sqlx::query(
            "WITH d AS (UPDATE delivery SET state = 1 FROM unnest($1::uuid[]) AS u (i) WHERE id = i)
             INSERT INTO attempt SELECT i, 1, 1, 200, h FROM unnest($1::uuid[], $2::text[]) AS u (i, h)",
        )
        .bind(&ids)
        .bind(vec![headers.as_str(); ids.len()])
        .execute(&mut connection)
        .await?;
    }
    let records = plan.deliveries as f64 / start.elapsed().as_secs_f64();
    Ok(PostgresFloor { commit: times[times.len() / 2], inserts, records })
}

/// The median time of one durable commit of one small row, and rows of an event and its delivery a second in
/// transactions of 512.
pub(crate) async fn sqlite(plan: &Plan, file: &Path) -> Result<(Duration, f64), Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    let tables = "CREATE TABLE event (id BLOB PRIMARY KEY, tenant TEXT, type TEXT, payload BLOB, created_at INTEGER);
         CREATE TABLE delivery (id BLOB PRIMARY KEY, event BLOB, target BLOB, state INTEGER, next_at INTEGER)";
    sqlx::raw_sql(tables).execute(&mut connection).await?;
    let mut times = Vec::new();
    for number in 0..200_u128 {
        let start = Instant::now();
        insert(&mut connection, number, 1, "").await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (body, rows) = ("x".repeat(plan.payload), plan.deliveries as u128);
    let start = Instant::now();
    for first in (0..rows).step_by(512) {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for chunk in (first..(first + 512).min(rows)).step_by(64) {
            insert(&mut transaction, chunk + 1_000_000, 64.min(rows - chunk), &body).await?;
        }
        transaction.commit().await?;
    }
    Ok((times[times.len() / 2], plan.deliveries as f64 / start.elapsed().as_secs_f64()))
}

async fn insert(connection: &mut SqliteConnection, first: u128, count: u128, body: &str) -> Result<(), Error> {
    let ids: Vec<_> = (first..first + count).map(|id| id.to_be_bytes().to_vec()).collect();
    let mut events = sqlx::QueryBuilder::new("INSERT INTO event ");
    events.push_values(&ids, |mut row, id| {
        row.push_bind(id.clone()).push_bind("default").push_bind("bench.event").push_bind(body.as_bytes().to_vec());
        row.push_bind(1_i64);
    });
    let mut deliveries = sqlx::QueryBuilder::new("INSERT INTO delivery ");
    deliveries.push_values(&ids, |mut row, id| {
        row.push_bind(id.clone()).push_bind(id.clone()).push_bind(id.clone()).push_bind(0_i64).push_bind(1_i64);
    });
    if count == 1 {
        events.build().execute(connection).await?;
        return Ok(());
    }
    events.build().execute(&mut *connection).await?;
    deliveries.build().execute(connection).await?;
    Ok(())
}
