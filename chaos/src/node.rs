//! One server: the engine and its HTTP API, assembled from the public parts, with seams that can be made to fail.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use webhook_axum::{Api, ApiKeys, ServeOptions, not_found};
use webhook_core::{AddressGuard, EncryptionKey, HttpTransport, Keyring, Options, Role, Store, Webhooks};
use webhook_queue_redis::{Redis, RedisCache, RedisNotifier, RedisOptions, RedisQueue, RedisRateLimiter};
use webhook_store_postgres::{PostgresStore, PostgresStoreOptions};
use webhook_store_sqlite::{SqliteStore, SqliteStoreOptions};

use crate::seams::{Fuse, OffsetClock, SeamQueue, SeamStore, SeamTransport};
use crate::settings::{NodeSettings, Plant};

/// The deadline of every attempt.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(2);
/// Connections to the database.
pub(crate) const CONNECTIONS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

enum Opened {
    Postgres(PostgresStore),
    Sqlite(SqliteStore),
}

pub(crate) async fn run(settings: &NodeSettings) -> ExitCode {
    let filter = EnvFilter::new("warn,webhook_axum=info,webhook_core=info,webhook_store_postgres=info");
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: &NodeSettings) -> Result<(), Box<dyn Error>> {
    let figures = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let opened = open(settings).await?;
    let inner: Arc<dyn Store> = match &opened {
        Opened::Postgres(store) => Arc::new(store.clone()),
        Opened::Sqlite(store) => Arc::new(store.clone()),
    };
    let fuse = Fuse::new(settings.abort.clone());
    let tokens = match settings.plant {
        Some(Plant::NoToken) => Some(PgPool::connect(&settings.database_url).await?),
        _ => None,
    };
    let clock = Arc::new(OffsetClock { inner: inner.clock(), millis: settings.clock_offset_ms });
    let store = Arc::new(SeamStore { inner, fuse: Arc::clone(&fuse), plant: settings.plant, tokens });
    // The receivers' address and no other: the rest of loopback is what nobody may reach.
    let guard = AddressGuard::new().allow_network("127.0.0.1/32".parse()?);
    let inner = Arc::new(HttpTransport::builder(guard.clone()).build()?);
    let transport = Arc::new(SeamTransport { inner, fuse: Arc::clone(&fuse), plant: settings.plant });
    let mut builder =
        Webhooks::builder(store).guard(guard).transport(transport).clock(clock).options(options(settings));
    if let Some(key) = &settings.encryption_key {
        builder = builder.keyring(Keyring::new([key.parse::<EncryptionKey>()?])?);
    }
    if let Some(url) = &settings.redis_url {
        let redis = Redis::new(&RedisOptions::new(url)?);
        builder = builder
            .queue(Arc::new(SeamQueue { inner: Arc::new(RedisQueue::new(redis.clone())), fuse }))
            .notifier(Arc::new(RedisNotifier::new(redis.clone())))
            .rate_limiter(Arc::new(RedisRateLimiter::new(redis.clone())))
            .shared_cache(Arc::new(RedisCache::new(redis)));
    }
    let webhooks = builder.build()?;
    let mut keys = ApiKeys::new();
    for spec in &settings.api_keys {
        keys = keys.with_spec(spec)?;
    }
    let api = Api::new(webhooks.clone()).metrics(move || figures.render()).authenticator(Arc::new(keys));
    let router = api.router().fallback(not_found);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);

    let shutdown = CancellationToken::new();
    let engine = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { webhooks.run(Role::Worker, shutdown).await }
    });
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            terminate.recv().await;
            shutdown.cancel();
        }
    });
    webhook_axum::serve(listener, router, shutdown, ServeOptions::default()).await;
    engine.await?;
    match opened {
        Opened::Postgres(store) => store.close().await,
        Opened::Sqlite(store) => store.close().await?,
    }
    Ok(())
}

fn options(settings: &NodeSettings) -> Options {
    let mut options = Options::default();
    options.concurrency = settings.concurrency;
    options.timeout = ATTEMPT;
    options.max_timeout = ATTEMPT;
    options.lease_margin = Duration::from_secs(settings.lease).saturating_sub(ATTEMPT);
    options.grace = Duration::from_secs(settings.lease / 3);
    if let Some(keep) = settings.keep {
        options.retention = Duration::from_secs(keep);
        options.cleanup_interval = Duration::from_millis(500);
    }
    options
}

/// Waits for the database, and brings its schema up to date.
async fn open(settings: &NodeSettings) -> Result<Opened, Box<dyn Error>> {
    let start = Instant::now();
    loop {
        match try_open(&settings.database_url).await {
            Err(error) if start.elapsed() < PATIENCE => {
                tracing::warn!(?error, "the database is not available yet; trying on");
                sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn try_open(url: &str) -> Result<Opened, Box<dyn Error>> {
    if url.starts_with("sqlite:") {
        let store = SqliteStore::connect(url.parse::<SqliteStoreOptions>()?).await?;
        store.migrate().await?;
        return Ok(Opened::Sqlite(store));
    }
    let options: PostgresStoreOptions = url.parse()?;
    let store = PostgresStore::connect(options.with_max_connections(CONNECTIONS)).await?;
    store.migrate().await?;
    Ok(Opened::Postgres(store))
}
