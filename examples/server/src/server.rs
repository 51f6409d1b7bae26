//! The engine and its HTTP API in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use webhook_axum::{Api, ApiOptions, Duty, Readiness, ServeOptions, access_log, not_found};
use webhook_core::{BuildError, Role, Webhooks};
use webhook_queue_redis::{Redis, RedisCache, RedisNotifier, RedisQueue, RedisRateLimiter};

use crate::config::Config;
use crate::database::{DatabaseError, OpenDatabase};
use crate::flags::RoleFlag;

/// Stopping takes no longer, whatever callers do: less than the 30 s that containers are given.
const LONGEST_STOP: Duration = Duration::from_secs(25);

/// A server that listens, but does not answer before it runs.
pub(crate) struct Server {
    addr: SocketAddr,
    public_url: String,
    listener: TcpListener,
    router: Router,
    readiness: Readiness,
    webhooks: Webhooks,
    role: Role,
    database: OpenDatabase,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the engine cannot be built")]
    Engine(#[from] BuildError),
    #[error("cannot listen on {addr}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("the worker broke down")]
    Worker(#[source] JoinError),
}

impl Server {
    /// Opens the database, and listens only then.
    pub(crate) async fn start(config: &Config, figures: PrometheusHandle) -> Result<Self, ServerError> {
        let database = config.database.open(config.migrations, config.startup_timeout).await?;
        let mut builder = Webhooks::builder(database.store())
            .guard(config.guard.clone())
            .keyring(config.keyring.clone())
            .retry(Arc::clone(&config.retry))
            .options(config.options.clone());
        if let Some(options) = &config.redis {
            // It connects when it is first used: the server starts, and goes on, without its Redis.
            let redis = Redis::new(options);
            builder = builder
                .queue(Arc::new(RedisQueue::new(redis.clone())))
                .notifier(Arc::new(RedisNotifier::new(redis.clone())))
                .rate_limiter(Arc::new(
                    RedisRateLimiter::new(redis.clone()).with_processes(config.rate_limit_processes),
                ))
                .shared_cache(Arc::new(RedisCache::new(redis)));
        }
        let webhooks = builder.build()?;
        let listen = |source| ServerError::Listen { addr: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let public_url = config.public_url.as_ref().map_or_else(|| format!("http://{addr}"), ToString::to_string);
        let options = ApiOptions::default()
            .with_service("webhook-server", env!("CARGO_PKG_VERSION"))
            .with_public_url(public_url.clone())
            .with_trusted_proxies(config.trusted_proxies.iter().copied());
        let api = Api::new(webhooks.clone()).options(options).metrics(move || figures.render());
        let api = match config.role {
            RoleFlag::Worker => api.duty(Duty::Deliveries),
            RoleFlag::All | RoleFlag::Api => api,
        };
        let readiness = api.readiness();
        let api = match config.api_keys.is_empty() {
            true => api.danger_no_auth(),
            false => api.authenticator(Arc::new(config.api_keys.clone())),
        };
        let routes = match config.role {
            RoleFlag::Worker => api.health_router(),
            RoleFlag::All | RoleFlag::Api => api.router(),
        };
        let router = routes.fallback(not_found).layer(access_log());
        let role = match config.role {
            RoleFlag::All | RoleFlag::Worker => Role::Worker,
            RoleFlag::Api => Role::Api,
        };
        Ok(Self { addr, public_url, listener, router, readiness, webhooks, role, database })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address that others know it by.
    pub(crate) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Answers and delivers until `shutdown`, then ends cleanly: it says that it is not ready, while what is being attempted
    /// ends; then it takes no more requests, those under way end, and the database is closed.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self { listener, router, readiness, webhooks, role, database, .. } = self;
        let delivered = CancellationToken::new();
        let deliver = async {
            let token = shutdown.clone();
            let outcome = tokio::spawn(async move { webhooks.run(role, token).await }).await;
            // Whatever ended it: to accept what nobody delivers would help nobody.
            shutdown.cancel();
            delivered.cancel();
            outcome
        };
        let answer = webhook_axum::serve(listener, router, delivered.clone(), ServeOptions::default());
        let not_ready = async {
            shutdown.cancelled().await;
            readiness.stop();
            tokio::time::sleep(LONGEST_STOP).await;
        };
        let answer = async {
            tokio::select! {
                () = answer => {}
                () = not_ready => tracing::warn!("requests take too long to end: they are cut off"),
            }
        };
        let (outcome, ()) = tokio::join!(deliver, answer);
        database.close().await?;
        outcome.map_err(ServerError::Worker)
    }
}
