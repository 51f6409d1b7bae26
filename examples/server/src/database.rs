//! Which database it is, and how it is opened.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use webhook_core::{MemoryStore, Store, StoreError};
use webhook_store_postgres::{OpenError as PostgresError, PostgresStore, PostgresStoreOptions};
use webhook_store_sqlite::{OpenError as SqliteError, SqliteStore, SqliteStoreOptions};

use crate::config::ConfigError;

/// One file is read by few connections at once: more of them only wait for the same disk.
const SQLITE_READERS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// What `--database-url` names.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    Postgres(Box<PostgresStoreOptions>),
    Sqlite { options: SqliteStoreOptions, url: String },
    Memory,
}

/// What opening does about the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Migrations {
    /// It brings it up to date.
    Apply,
    /// It must be up to date already.
    Require,
    /// It may be of any age, and stays so.
    Inspect,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

impl OpenError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Postgres(PostgresError::Store(error)) | Self::Sqlite(SqliteError::Store(error)) => {
                error.is_retryable()
            }
            _ => false,
        }
    }
}

/// A migration and whether it has been applied.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) applied: bool,
}

/// A database that is open, and its schema up to date.
#[derive(Clone, Debug)]
pub(crate) enum OpenDatabase {
    Postgres(PostgresStore),
    Sqlite(SqliteStore),
    Memory(Arc<MemoryStore>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("the database cannot be opened")]
    Open(#[from] OpenError),
    #[error("the database is not available, after {} s of trying", .waited.as_secs_f64().round())]
    Unavailable { waited: Duration, source: OpenError },
    #[error("the schema cannot be brought up to date")]
    Migrate(#[source] StoreError),
    #[error("the schema is older than this version needs: run `webhook-server migrate`, or start without --no-migrate")]
    Older,
    #[error("there is no database {0} yet: run `webhook-server migrate`, or start without --no-migrate")]
    Missing(String),
    #[error("the schema cannot be looked at")]
    Schema(#[source] StoreError),
    #[error("the database cannot be closed")]
    Close(#[source] StoreError),
}

impl DatabaseError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Migrate(error) | Self::Schema(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl Database {
    pub(crate) fn parse(url: &str, max_connections: u32) -> Result<Self, ConfigError> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "memory" => Ok(Self::Memory),
            _ if matches!(scheme.split('+').next(), Some("postgres" | "postgresql")) => {
                let options: PostgresStoreOptions = url.parse().map_err(ConfigError::Postgres)?;
                Ok(Self::Postgres(Box::new(options.with_max_connections(max_connections))))
            }
            "" | "sqlite" | "sqlite+aiosqlite" => {
                let options: SqliteStoreOptions = url.parse().map_err(ConfigError::Sqlite)?;
                // One connection writes.
                let readers = (max_connections - 1).min(SQLITE_READERS);
                Ok(Self::Sqlite { options: options.with_readers(readers), url: url.to_owned() })
            }
            _ => Err(ConfigError::Database),
        }
    }

    /// Whether several processes can work on it together.
    pub(crate) const fn is_shared(&self) -> bool {
        match self {
            Self::Postgres(_) => true,
            Self::Sqlite { .. } | Self::Memory => false,
        }
    }

    /// Waits until it is there, for as long as `patience` lasts.
    pub(crate) async fn open(&self, migrations: Migrations, patience: Duration) -> Result<OpenDatabase, DatabaseError> {
        if self.is_missing() && migrations != Migrations::Apply {
            return Err(DatabaseError::Missing(self.to_string()));
        }
        let start = Instant::now();
        let database = self.wait_for(migrations, patience).await?;
        loop {
            match database.prepare(migrations).await {
                // It may have gone away in the middle; whatever was done is not done again.
                Err(error) if error.is_retryable() && start.elapsed() < patience => {
                    tracing::warn!(error = &error as &dyn Error, "the database is not available any more; trying on");
                    sleep(PAUSE).await;
                }
                outcome => return outcome.map(|()| database),
            }
        }
    }

    /// What another process holds is refused at once: it may hold it for ever.
    async fn wait_for(&self, migrations: Migrations, patience: Duration) -> Result<OpenDatabase, DatabaseError> {
        let start = Instant::now();
        let mut told = false;
        loop {
            match self.connect(migrations).await {
                Err(error) if error.is_retryable() => {
                    let waited = start.elapsed();
                    if waited >= patience {
                        return Err(DatabaseError::Unavailable { waited, source: error });
                    }
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(error = &error as &dyn Error, "the database is not available yet; trying on");
                    }
                    sleep(PAUSE).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn connect(&self, migrations: Migrations) -> Result<OpenDatabase, OpenError> {
        Ok(match self {
            Self::Postgres(options) => {
                OpenDatabase::Postgres(PostgresStore::connect(PostgresStoreOptions::clone(options)).await?)
            }
            Self::Sqlite { options, .. } => {
                let options = match migrations {
                    Migrations::Apply => options.clone(),
                    Migrations::Require | Migrations::Inspect => options.clone().existing_only(),
                };
                OpenDatabase::Sqlite(SqliteStore::connect(options).await?)
            }
            Self::Memory => OpenDatabase::Memory(Arc::default()),
        })
    }

    /// Whether its file is yet to be created.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Sqlite { options, .. } => !options.path().exists(),
            Self::Postgres(_) | Self::Memory => false,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without user and password.
            Self::Postgres(options) => f.write_str(&options.address()),
            Self::Sqlite { url, .. } => f.write_str(url),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

impl OpenDatabase {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Postgres(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Memory(store) => Arc::<MemoryStore>::clone(store),
        }
    }

    /// Brings the schema up to date, or looks whether it is.
    async fn prepare(&self, migrations: Migrations) -> Result<(), DatabaseError> {
        match migrations {
            Migrations::Apply => self.migrate().await,
            Migrations::Require if self.migrations().await?.iter().any(|migration| !migration.applied) => {
                Err(DatabaseError::Older)
            }
            Migrations::Require | Migrations::Inspect => Ok(()),
        }
    }

    async fn migrate(&self) -> Result<(), DatabaseError> {
        let migrated = match self {
            Self::Postgres(store) => store.migrate().await,
            Self::Sqlite(store) => store.migrate().await,
            Self::Memory(_) => Ok(()),
        };
        migrated.map_err(DatabaseError::Migrate)
    }

    /// The known migrations; a database in memory needs none.
    pub(crate) async fn migrations(&self) -> Result<Vec<Migration>, DatabaseError> {
        let migrations = match self {
            Self::Postgres(store) => store.migration_status().await.map(|all| {
                let one = |known: webhook_store_postgres::MigrationStatus| (known.version, known.name, known.applied);
                all.into_iter().map(one).collect::<Vec<_>>()
            }),
            Self::Sqlite(store) => store.migration_status().await.map(|all| {
                let one = |known: webhook_store_sqlite::MigrationStatus| (known.version, known.name, known.applied);
                all.into_iter().map(one).collect()
            }),
            Self::Memory(_) => Ok(Vec::new()),
        };
        let migrations = migrations.map_err(DatabaseError::Schema)?.into_iter();
        Ok(migrations.map(|(version, name, applied)| Migration { version, name, applied }).collect())
    }

    pub(crate) async fn close(self) -> Result<(), DatabaseError> {
        match self {
            Self::Postgres(store) => {
                store.close().await;
                Ok(())
            }
            Self::Sqlite(store) => store.close().await.map_err(DatabaseError::Close),
            Self::Memory(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_cannot_do() {
        for (url, expected) in [
            ("postgres://user:canary@host:port/db", "PostgreSQL"),
            ("mysql://user:canary@host/db", "sqlite://"),
            ("sqlite::memory:", "SQLite"),
        ] {
            let error = Database::parse(url, 30).expect_err(url).to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{url}: {error}");
        }
    }

    #[test]
    fn takes_the_urls_that_it_knows() {
        for url in ["postgres://user:canary@host/db", "postgresql+asyncpg://user:canary@host/db"] {
            let database = Database::parse(url, 30).expect(url);
            assert_eq!(database.to_string(), "postgres://host:5432/db");
            assert!(database.is_shared());
        }
        for url in ["sqlite://hooks.db", "sqlite+aiosqlite:///hooks.db", "hooks.db", "memory:", "memory://"] {
            assert!(Database::parse(url, 2).is_ok(), "{url}");
        }
    }
}
