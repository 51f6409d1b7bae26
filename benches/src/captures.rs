//! Requests captured a second, beside bare inserts of the same rows.

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
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::Instant;
use webhook_core::{IncomingRequest, PathDraft, PathId, TenantId, Webhooks};

use crate::child::{Part, Usage};
use crate::database::Databases;
use crate::engine::Queue;
use crate::receiver::payload;
use crate::{Error, StoreKind, Way, engine};

/// Requests before anything is measured.
const WARM: usize = 2_000;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Where requests are kept.
    #[arg(long, value_enum, default_values = ["memory", "sqlite"], value_delimiter = ',')]
    store: Vec<StoreKind>,
    /// Through the library, or through HTTP, one request per POST /webhook/{path_id}.
    #[arg(long, value_enum, default_values = ["library", "http"], value_delimiter = ',')]
    through: Vec<Way>,
    /// Callers at the same time.
    #[arg(long, default_values = ["64"], value_delimiter = ',')]
    concurrency: Vec<usize>,
    /// Requests of each run.
    #[arg(long, default_value_t = 50_000)]
    captures: usize,
    /// Bytes of a request's body, at least 64.
    #[arg(long, default_value_t = 512)]
    body: usize,
    /// The folder for database files: its disk decides what a durable commit costs.
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
}

/// Someone who sends requests to one path.
#[derive(Clone)]
enum Sender {
    Library(Webhooks, PathId),
    Http(Box<Client<HttpConnector, Full<Bytes>>>, http::Uri),
}

pub(crate) async fn all(plan: Plan) -> Result<(), Error> {
    let databases = Databases::start(plan.folder.as_deref(), &plan.store, &[])?;
    println!("{} requests a run, {} bytes of body", plan.captures, plan.body);
    println!(
        "{:<34} {:>10} {:>16} {:>20} {:>12} {:>9}",
        "run", "captured/s", "of insert floor", "latency p50/p99", "CPU s/1000", "peak MiB"
    );
    for &concurrency in &plan.concurrency {
        for &store in &plan.store {
            for &through in &plan.through {
                // Beside each run, as the machine's speed changes with whatever else it does.
                let floor = match store {
                    StoreKind::Postgres => inserts_postgres(&plan, &databases.fresh(store)?).await?,
                    StoreKind::Memory | StoreKind::Sqlite => inserts(&plan, &databases.file()).await?,
                };
                run(&plan, store, through, concurrency, &databases.fresh(store)?, floor).await?;
            }
        }
    }
    Ok(())
}

async fn run(
    plan: &Plan,
    store: StoreKind,
    through: Way,
    concurrency: usize,
    database: &str,
    floor: f64,
) -> Result<(), Error> {
    let name = format!("{}, {through:?}, {concurrency} callers", store.name()).to_lowercase();
    let tenant = TenantId::default();
    let (sender, part) = match through {
        Way::Library => {
            let webhooks = engine::build(store, &Queue::None, database).await?;
            let path = webhooks.create_path(&tenant, PathDraft::new()).await?;
            (Sender::Library(webhooks, path.path_id), None)
        }
        Way::Http => {
            let arguments =
                ["engine", "--store", store.name(), "--queue", "none", "--role", "all", "--database", database];
            let part = Part::start(&arguments).await?;
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            let client = Client::builder(TokioExecutor::new()).build(connector);
            let create = http::Request::post(format!("http://{}/api/paths", part.addr))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from_static(b"{\"path_id\":\"bench\"}")))?;
            let answer = client.request(create).await?;
            if answer.status() != 201 {
                return Err(format!("the path was not created: {}", answer.status()).into());
            }
            let uri = format!("http://{}/webhook/bench/orders?source=bench", part.addr).parse()?;
            (Sender::Http(Box::new(client), uri), Some(part))
        }
    };
    flood(&sender, WARM, concurrency, plan.body).await?;
    let usage = || part.as_ref().map_or_else(Usage::of_this_process, Part::usage);
    let before = usage();
    let (took, mut latencies) = flood(&sender, plan.captures, concurrency, plan.body).await?;
    let after = usage();
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)].as_secs_f64() * 1e3;
    let rate = plan.captures as f64 / took.as_secs_f64();
    println!(
        "{name:<34} {rate:>10.0} {:>16} {:>20} {:>12.3} {:>9.0}",
        format!("{:.0} % of {floor:.0}", rate * 100.0 / floor),
        format!("{:.1} / {:.1} ms", at(50), at(99)),
        (after.cpu_seconds - before.cpu_seconds) * 1000.0 / plan.captures as f64,
        after.peak_mib,
    );
    let kept = sender.kept().await?;
    if kept == (WARM + plan.captures) as u64 { Ok(()) } else { Err(format!("only {kept} requests are kept").into()) }
}

/// Sends so many requests from `concurrency` callers; how long that took, and each of them.
async fn flood(
    sender: &Sender,
    requests: usize,
    concurrency: usize,
    size: usize,
) -> Result<(Duration, Vec<Duration>), Error> {
    let left = Arc::new(AtomicUsize::new(requests));
    let start = Instant::now();
    let callers = (0..concurrency).map(|_| {
        let (sender, left) = (sender.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let start = Instant::now();
                sender.send(size).await?;
                latencies.push(start.elapsed());
            }
            Ok::<_, Error>(latencies)
        })
    });
    let mut latencies = Vec::with_capacity(requests);
    for caller in futures_util::future::join_all(callers).await {
        latencies.extend(caller??);
    }
    Ok((start.elapsed(), latencies))
}

impl Sender {
    async fn send(&self, size: usize) -> Result<(), Error> {
        match self {
            Self::Library(webhooks, path) => {
                let mut request = IncomingRequest::new("POST", "/webhook/bench/orders").with_body(payload(size));
                request.query = Some("source=bench".to_owned());
                request.headers = HEADERS.map(|(name, value)| (name.to_owned(), Bytes::from_static(value))).to_vec();
                webhooks.capture(path, request, None).await?;
            }
            Self::Http(client, uri) => {
                let mut request = http::Request::post(uri.clone());
                for (name, value) in HEADERS.iter().skip(1) {
                    request = request.header(*name, *value);
                }
                let answer = client.request(request.body(Full::new(Bytes::from(payload(size))))?).await?;
                let status = answer.status();
                answer.into_body().collect().await?;
                if status != 200 {
                    return Err(format!("a request was answered {status}").into());
                }
            }
        }
        Ok(())
    }

    /// How many requests the path holds.
    async fn kept(&self) -> Result<u64, Error> {
        match self {
            Self::Library(webhooks, path) => {
                Ok(webhooks.capture_path(&TenantId::default(), path).await?.usage.requests)
            }
            Self::Http(client, uri) => {
                let authority = uri.authority().ok_or("no authority")?;
                let answer = client.get(format!("http://{authority}/api/paths/bench").parse()?).await?;
                let body = answer.into_body().collect().await?.to_bytes();
                let path: serde_json::Value = serde_json::from_slice(&body)?;
                path["request_count"].as_u64().ok_or_else(|| "the path does not tell what it holds".into())
            }
        }
    }
}

/// What a sender of webhooks typically adds; the first of them is made by the client itself.
const HEADERS: [(&str, &[u8]); 8] = [
    ("host", b"127.0.0.1:8080"),
    ("content-type", b"application/json"),
    ("user-agent", b"bench/1.0"),
    ("accept", b"*/*"),
    ("webhook-id", b"01a200ee-d97f-7000-9350-21a80b20a457"),
    ("webhook-timestamp", b"1767323045"),
    ("webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ("x-event-type", b"bench.event"),
];

/// Rows of the same size a second, in bare transactions of 512 by one connection.
async fn inserts(plan: &Plan, file: &Path) -> Result<f64, Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    let table = "CREATE TABLE captured (id BLOB PRIMARY KEY, path BLOB, tenant TEXT, method TEXT, target TEXT,
                   received_at INTEGER, headers BLOB, body BLOB);
                 CREATE INDEX captured_list ON captured (path, id)";
    sqlx::raw_sql(table).execute(&mut connection).await?;
    let headers: usize = HEADERS.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    let (headers, body) = (vec![b'h'; headers], payload(plan.body));
    let rows = plan.captures as u128;
    let start = Instant::now();
    for first in (0..rows).step_by(512) {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for chunk in (first..(first + 512).min(rows)).step_by(64) {
            insert(&mut transaction, chunk..(chunk + 64).min(rows), &headers, body.as_ref()).await?;
        }
        transaction.commit().await?;
    }
    Ok(plan.captures as f64 / start.elapsed().as_secs_f64())
}

/// The same on PostgreSQL.
async fn inserts_postgres(plan: &Plan, url: &str) -> Result<f64, Error> {
    let mut connection = PgConnection::connect(url).await?;
    let table = "CREATE TABLE captured (id uuid PRIMARY KEY, path uuid, tenant text, method text, target text,
                   received_at bigint, headers bytea, body bytea);
                 CREATE INDEX captured_list ON captured (path, id)";
    sqlx::raw_sql(table).execute(&mut connection).await?;
    let headers: usize = HEADERS.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    let (headers, body) = (vec![b'h'; headers], payload(plan.body));
    let rows = plan.captures as u128;
    let start = Instant::now();
    for first in (0..rows).step_by(512) {
        let ids: Vec<_> = (first..(first + 512).min(rows)).map(uuid::Uuid::from_u128).collect();
        sqlx::query(
            "INSERT INTO captured SELECT i, '00000000-0000-7000-8000-000000000000', 'default', 'POST',
               '/webhook/bench/orders?source=bench', 1767323045678, h, b FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS u (i, h, b)",
        )
        .bind(&ids)
        .bind(vec![headers.as_slice(); ids.len()])
        .bind(vec![body.as_bytes(); ids.len()])
        .execute(&mut connection)
        .await?;
    }
    Ok(plan.captures as f64 / start.elapsed().as_secs_f64())
}

async fn insert(
    connection: &mut SqliteConnection,
    ids: std::ops::Range<u128>,
    headers: &[u8],
    body: &[u8],
) -> Result<(), Error> {
    let mut rows = sqlx::QueryBuilder::new("INSERT INTO captured ");
    rows.push_values(ids, |mut row, id| {
        row.push_bind(id.to_be_bytes().to_vec()).push_bind(vec![7_u8; 16]).push_bind("default").push_bind("POST");
        row.push_bind("/webhook/bench/orders?source=bench").push_bind(1_767_323_045_678_i64);
        row.push_bind(headers.to_vec()).push_bind(body.to_vec());
    });
    rows.build().execute(connection).await?;
    Ok(())
}
