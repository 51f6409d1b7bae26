//! What the flags and variables come to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;
use webhook_axum::{ApiKeys, ParseApiKeyError};
use webhook_core::{
    AddressGuard, Keyring, KeyringConfigError, Options, ParseEncryptionKeyError, RetryPolicy, RetryPolicyError,
};
use webhook_queue_redis::{PrefixError, RedisOptions, RedisUrlError};
use webhook_store_postgres::OpenError as PostgresError;
use webhook_store_sqlite::OpenError as SqliteError;

use crate::database::{Database, Migrations};
use crate::flags::{Flags, RoleFlag};
use crate::lists::Networks;
use crate::{keys, listen, retries};

const HOUR: Duration = Duration::from_secs(3600);

/// What the server runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: Option<Url>,
    pub(crate) role: RoleFlag,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) database: Database,
    pub(crate) redis: Option<RedisOptions>,
    pub(crate) rate_limit_processes: u32,
    pub(crate) migrations: Migrations,
    pub(crate) startup_timeout: Duration,
    pub(crate) guard: AddressGuard,
    pub(crate) retry: Arc<dyn RetryPolicy>,
    pub(crate) options: Options,
    pub(crate) keyring: Keyring,
    pub(crate) key_ids: Vec<String>,
    pub(crate) api_keys: ApiKeys,
    allowed: Vec<IpNet>,
    allow_http: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("`{0}` is no address to listen on, such as 127.0.0.1:8080")]
    Listen(String),
    #[error("PORT is `{0}`, which is no port")]
    Port(String),
    #[error(
        "without API keys the server listens on this machine only, and {0} reaches further: give --api-key or API_KEYS, \
         or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    #[error("the database URL is none of postgres://…, sqlite://PATH, sqlite+aiosqlite:///PATH and memory:")]
    Database,
    #[error("the database URL is not one for SQLite")]
    Sqlite(#[source] SqliteError),
    #[error("the database URL is not one for PostgreSQL")]
    Postgres(#[source] PostgresError),
    #[error("the Redis URL is none of redis://…, rediss://…, redis+cluster://HOST,HOST,… and rediss+cluster://…")]
    Redis(#[source] RedisUrlError),
    #[error("the Redis prefix is not valid")]
    RedisPrefix(#[source] PrefixError),
    #[error("the roles api and worker need a database that processes share, which SQLite and memory are not")]
    Alone,
    #[error("API key number {number} is not valid")]
    ApiKey { number: usize, source: ParseApiKeyError },
    #[error("encryption key number {number} is not valid")]
    EncryptionKey { number: usize, source: ParseEncryptionKeyError },
    #[error("the encryption keys do not fit together")]
    Keyring(#[from] KeyringConfigError),
    #[error("the retry settings are not valid")]
    Retry(#[from] RetryPolicyError),
    #[error("{0} must be more than zero")]
    Zero(&'static str),
}

impl Config {
    /// `port` is what the variable `PORT` says.
    pub(crate) fn resolve(flags: &Flags, port: Option<&str>) -> Result<Self, ConfigError> {
        let listen = listen::resolve(flags.listen.as_deref(), port)?;
        let api_keys = keys::api_keys(&flags.api_keys)?;
        if api_keys.is_empty() && !listen.ip().is_loopback() {
            return Err(ConfigError::Open(listen));
        }
        let database = Database::parse(&flags.database_url, flags.database_max_connections)?;
        if flags.role != RoleFlag::All && !database.is_shared() {
            return Err(ConfigError::Alone);
        }
        let (key_ids, keyring) = keys::keyring(&flags.encryption_keys)?;
        let allowed = networks(&flags.allow_networks);
        Ok(Self {
            listen,
            public_url: flags.public_url.clone(),
            role: flags.role,
            trusted_proxies: networks(&flags.trusted_proxies),
            database,
            redis: redis(flags)?,
            rate_limit_processes: flags.rate_limit_processes,
            migrations: if flags.no_migrate { Migrations::Require } else { Migrations::Apply },
            startup_timeout: flags.startup_timeout,
            guard: guard(&allowed, flags.allow_http),
            retry: retries::policy(flags)?,
            options: options(flags)?,
            keyring,
            key_ids,
            api_keys,
            allowed,
            allow_http: flags.allow_http,
        })
    }

    /// Logs what the server runs with; of secrets how many there are.
    pub(crate) fn log(&self, flags: &Flags) {
        let list = |networks: &mut dyn Iterator<Item = String>| networks.collect::<Vec<_>>().join(",");
        tracing::info!(
            listen = %self.listen,
            public_url = self.public_url.as_ref().map(Url::as_str),
            role = ?self.role,
            database_url = %self.database,
            redis_url = self.redis.as_ref().map(RedisOptions::address),
            rate_limit_processes = self.redis.as_ref().map(|_| self.rate_limit_processes),
            redis_prefix = self.redis.as_ref().map(|_| &flags.redis_prefix),
            no_migrate = self.migrations == Migrations::Require,
            allow_networks = list(&mut self.allowed.iter().map(ToString::to_string)),
            allow_http = self.allow_http,
            trusted_proxies = list(&mut self.trusted_proxies.iter().map(ToString::to_string)),
            retry = ?self.retry,
            delivery_timeout_seconds = self.options.timeout.as_secs_f64(),
            retention_hours = flags.retention_hours,
            capture_retention_hours = flags.capture_retention_hours,
            cleanup_interval_seconds = self.options.cleanup_interval.as_secs_f64(),
            cache_ttl_seconds = self.options.cache_ttl.as_secs_f64(),
            concurrency = self.options.concurrency,
            max_payload = self.options.max_payload,
            capture_max_body = self.options.capture_max_body,
            encryption_keys = list(&mut self.key_ids.iter().map(|id| format!("{id}=***"))),
            api_keys = if self.api_keys.is_empty() { "none" } else { "***" },
            "configuration"
        );
        if self.key_ids.is_empty() {
            tracing::warn!("secrets are stored in clear: give --encryption-key to seal them");
        }
        if self.redis.is_some() && self.key_ids.is_empty() {
            tracing::warn!(
                "subscriptions are not shared through Redis: give --encryption-key, as only what is sealed is"
            );
        }
        if self.redis.is_some() && !self.database.is_shared() {
            tracing::warn!(
                "Redis gains nothing here: this database belongs to one process, which could be its own queue"
            );
        }
        if self.api_keys.is_empty() {
            tracing::warn!("the API is open to everybody on this machine: give --api-key to close it");
        }
    }
}

fn redis(flags: &Flags) -> Result<Option<RedisOptions>, ConfigError> {
    let Some(url) = &flags.redis_url else { return Ok(None) };
    let options = RedisOptions::new(url).map_err(ConfigError::Redis)?;
    options.with_prefix(&flags.redis_prefix).map(Some).map_err(ConfigError::RedisPrefix)
}

fn networks(given: &[Networks]) -> Vec<IpNet> {
    given.iter().flat_map(|networks| networks.0.iter().copied()).collect()
}

fn guard(allowed: &[IpNet], allow_http: bool) -> AddressGuard {
    let guard = if allow_http { AddressGuard::new().allow_http() } else { AddressGuard::new() };
    allowed.iter().fold(guard, |guard, network| guard.allow_network(*network))
}

fn options(flags: &Flags) -> Result<Options, ConfigError> {
    for (name, value) in
        [("--delivery-timeout", flags.delivery_timeout), ("--cleanup-interval", flags.cleanup_interval)]
    {
        if value.is_zero() {
            return Err(ConfigError::Zero(name));
        }
    }
    let mut options = Options::default();
    options.concurrency = flags.concurrency as usize;
    options.timeout = flags.delivery_timeout;
    options.max_timeout = options.max_timeout.max(flags.delivery_timeout);
    options.retention = HOUR * flags.retention_hours;
    options.cleanup_interval = flags.cleanup_interval;
    options.cache_ttl = flags.cache_ttl;
    options.max_payload = flags.max_payload as usize;
    options.capture_max_body = flags.capture_max_body as usize;
    options.capture_retention = HOUR * flags.capture_retention_hours;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
        Config::resolve(&Flags::of(arguments).unwrap(), None)
    }

    #[test]
    fn without_keys_it_stays_on_this_machine() {
        assert!(resolve(&[]).is_ok());
        assert!(resolve(&["--listen=[::1]:80"]).is_ok());
        for listen in ["--listen=0.0.0.0:80", "--listen=[::]:80", "--listen=10.0.0.1:80"] {
            assert!(matches!(resolve(&[listen]), Err(ConfigError::Open(_))), "{listen}");
            assert!(resolve(&[listen, "--api-key=key=acme"]).is_ok(), "{listen}");
        }
        assert!(matches!(Config::resolve(&Flags::of::<&str>(&[]).unwrap(), Some("80")), Err(ConfigError::Open(_))));
    }

    #[test]
    fn roles_are_not_split_on_a_database_of_one_process() {
        for role in ["--role=api", "--role=WORKER"] {
            assert!(matches!(resolve(&[role]), Err(ConfigError::Alone)), "{role}");
        }
        assert!(resolve(&["--role=ALL"]).is_ok());
    }

    #[test]
    fn redis_is_a_server_or_a_cluster() {
        assert!(resolve(&[]).unwrap().redis.is_none());
        for (url, address) in [
            ("redis://user:canary@host/2", "redis://host:6379"),
            ("rediss://:canary@host:1", "rediss://host:1"),
            ("redis+cluster://:canary@a,b:2", "redis+cluster://a:6379,b:2"),
        ] {
            let redis = resolve(&["--redis-prefix=acme", "--redis-url", url]).unwrap().redis.unwrap();
            assert_eq!(redis.address(), address);
            assert!(format!("{redis:?}").contains("acme"));
        }
        let error = |arguments: &[&str]| crate::logs::chain(&resolve(arguments).unwrap_err());
        for url in ["redis://:canary@host:port", "http://:canary@host", "redis+cluster://:canary@"] {
            let text = error(&["--redis-url", url]);
            assert!(text.contains("Redis URL") && !text.contains("canary"), "{text}");
        }
        let text = error(&["--redis-url=redis://host", "--redis-prefix={wh}"]);
        assert!(text.contains("prefix is not valid: a key prefix"), "{text}");
    }

    #[test]
    fn flags_reach_the_engine() {
        let config = resolve(&[
            "--concurrency=3",
            "--delivery-timeout=45",
            "--retention-hours=1",
            "--cleanup-interval=9",
            "--cache-ttl=7",
            "--max-payload=99",
            "--capture-retention-hours=2",
            "--capture-max-body=98",
            "--trusted-proxy=10.0.0.0/8",
        ])
        .unwrap();
        assert_eq!(config.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
        let options = config.options;
        assert_eq!((options.capture_retention, options.capture_max_body), (2 * HOUR, 98));
        assert_eq!((options.concurrency, options.max_payload), (3, 99));
        assert_eq!((options.timeout, options.max_timeout), (Duration::from_secs(45), Duration::from_secs(45)));
        assert_eq!((options.retention, options.cleanup_interval), (HOUR, Duration::from_secs(9)));
        assert_eq!(options.cache_ttl, Duration::from_secs(7));
    }
}
