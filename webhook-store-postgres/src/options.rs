//! Where the database is and how it is used.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};

use crate::OpenError;
use crate::session::{Trust, answers};

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
pub struct PostgresStoreOptions {
    connection: PgConnectOptions,
    max_connections: u32,
    acquire_timeout: Duration,
    pub(crate) pooled: bool,
    pub(crate) notify: bool,
}

/// How a session is to plan: by the indexes, whatever a table looked like when it was last analyzed. A plan made for a
/// small table would otherwise read all of it when it has grown, until somebody analyzes it again.
const PLANS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
];

/// How long a lock is waited for.
pub(crate) const LOCK_TIMEOUT: &str = "'10s'";

/// How long anything may take before the database gives it up.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "'30s'"), ("lock_timeout", LOCK_TIMEOUT), ("idle_in_transaction_session_timeout", "'60s'")];

impl PostgresStoreOptions {
    /// The database that `connection` leads to, with 30 connections at most.
    pub fn new(connection: PgConnectOptions) -> Self {
        Self {
            connection: connection.application_name("webhook").disable_statement_logging(),
            max_connections: 30,
            acquire_timeout: Duration::from_secs(2),
            pooled: false,
            notify: true,
        }
    }

    /// So many connections at most, at least four; 30 by default. A third of them is kept for the worker, so that
    /// neither callers nor deliveries starve each other. Listening for signals takes one more.
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(4);
        self
    }

    /// How long a call waits for a connection before it fails as unavailable: 2 s.
    #[must_use]
    pub fn with_acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// The database is reached through a pooler in transaction mode, such as PgBouncer: every call is a transaction of
    /// its own, nothing is prepared or set beyond it, and nobody listens for signals.
    #[must_use]
    pub fn behind_pooler(mut self) -> Self {
        self.pooled = true;
        self.notify = false;
        self
    }

    /// Neither sends nor hears signals: deliveries and changes of other processes are found by polling. What goes with a
    /// host's own transaction is the host's choice, by [`PostgresStore::emit_in`] or [`PostgresStore::emit_quietly_in`].
    ///
    /// [`PostgresStore::emit_in`]: crate::PostgresStore::emit_in
    /// [`PostgresStore::emit_quietly_in`]: crate::PostgresStore::emit_quietly_in
    #[must_use]
    pub fn without_notify(mut self) -> Self {
        self.notify = false;
        self
    }

    /// Where the database is, without who uses it: `postgres://host:port/database`.
    pub fn address(&self) -> String {
        let (host, port) = (self.connection.get_host(), self.connection.get_port());
        format!("postgres://{host}:{port}/{}", self.connection.get_database().unwrap_or_default())
    }

    pub(crate) fn connection(&self) -> PgConnectOptions {
        match self.pooled {
            // What sqlx asks for at the start of a session is more than PgBouncer passes on.
            true => self.connection.clone().statement_cache_capacity(0).extra_float_digits(None),
            false => self.connection.clone().statement_cache_capacity(256),
        }
    }

    pub(crate) fn api_pool(&self, trust: &Trust) -> PgPoolOptions {
        self.pool(self.api_connections(), trust)
    }

    pub(crate) fn worker_pool(&self, trust: &Trust) -> PgPoolOptions {
        self.pool(self.worker_connections(), trust)
    }

    pub(crate) fn api_connections(&self) -> u32 {
        self.max_connections - self.worker_connections()
    }

    fn worker_connections(&self) -> u32 {
        (self.max_connections / 3).max(2)
    }

    fn pool(&self, connections: u32, trust: &Trust) -> PgPoolOptions {
        let (pooled, trust) = (self.pooled, trust.clone());
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(self.acquire_timeout)
            .idle_timeout(Duration::from_secs(600))
            .max_lifetime(Duration::from_secs(3600))
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let (outgrown, doubtful) = (trust.is_outgrown(&meta), trust.is_doubtful(&meta));
                Box::pin(async move {
                    if doubtful && !outgrown {
                        answers(connection).await?;
                    }
                    Ok(!outgrown)
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if !pooled {
                        connection.execute(sqlx::AssertSqlSafe(settings("SET"))).await?;
                    }
                    Ok(())
                })
            })
    }
}

/// The statements that set how a session, or with `SET LOCAL` a transaction, plans, how long it may take, and how its
/// later transactions are isolated, whatever the database's default is.
pub(crate) fn settings(set: &str) -> String {
    let isolation = ("default_transaction_isolation", "'read committed'");
    let one = |(name, value): &(&str, &str)| format!("{set} {name} = {value};");
    PLANS.iter().chain(&LIMITS).chain([&isolation]).map(one).collect()
}

impl FromStr for PostgresStoreOptions {
    type Err = OpenError;

    /// Takes what libpq takes as a URL: `postgres://user:password@host:port/database?sslmode=require`. The scheme may be
    /// `postgresql` too, and name a driver, as in SQLAlchemy's `postgresql+asyncpg`. The parameter `pgbouncer=true`
    /// stands for [`PostgresStoreOptions::behind_pooler`], as in Prisma.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = match text.split_once("://") {
            Some((scheme, rest)) => format!("{}://{rest}", scheme.split('+').next().unwrap_or(scheme)),
            None => text.to_owned(),
        };
        let (base, parameters) = text.split_once('?').unwrap_or((&text, ""));
        let pooled = parameters.split('&').any(|parameter| parameter == "pgbouncer=true");
        let parameters: Vec<_> =
            parameters.split('&').filter(|parameter| !parameter.starts_with("pgbouncer=")).collect();
        let url = format!("{base}?{}", parameters.join("&"));
        let connection: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| OpenError::Url(error.into()))?;
        let options = Self::new(connection);
        Ok(if pooled { options.behind_pooler() } else { options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_nonsense_is_refused() {
        assert!("postgres://u:p@localhost:5433/db?sslmode=disable".parse::<PostgresStoreOptions>().is_ok());
        let options: PostgresStoreOptions = "postgresql+asyncpg://u:canary@db.local/x".parse().expect("a URL");
        assert_eq!(options.address(), "postgres://db.local:5432/x");
        assert!(!options.pooled && options.notify);
        let pooled: PostgresStoreOptions = "postgres://u@db/x?pgbouncer=true&sslmode=disable".parse().expect("a URL");
        assert!(pooled.pooled && !pooled.notify);
        assert!("postgresql:///db?host=/run/postgresql".parse::<PostgresStoreOptions>().is_ok());
        assert!(matches!("postgres://[".parse::<PostgresStoreOptions>(), Err(OpenError::Url(_))));
    }

    #[test]
    fn callers_and_the_worker_share_the_connections() {
        let options: PostgresStoreOptions = "postgres://localhost/x".parse().expect("a URL");
        for (connections, worker) in [(1, 2), (4, 2), (30, 10)] {
            let options = options.clone().with_max_connections(connections);
            assert_eq!(options.worker_connections(), worker);
            assert!(options.max_connections > worker);
        }
    }
}
