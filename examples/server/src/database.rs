//! Which database it is, and how it is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use webhook_core::{MemoryStore, Store, StoreError};
use webhook_store_sqlite::{OpenError, SqliteStore, SqliteStoreOptions};

use crate::config::ConfigError;

/// One file is read by few connections at once: more of them only wait for the same disk.
const SQLITE_READERS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// What `--database-url` names.
#[derive(Clone, Debug)]
pub(crate) enum Database {
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

/// A database that is open, and its schema up to date.
#[derive(Clone, Debug)]
pub(crate) enum OpenDatabase {
    Sqlite(SqliteStore),
    Memory,
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
    #[error("there is no database {} yet: run `webhook-server migrate`, or start without --no-migrate", .0.display())]
    Missing(PathBuf),
    #[error("the database cannot be closed")]
    Close(#[source] StoreError),
}

impl Database {
    pub(crate) fn parse(url: &str, max_connections: u32) -> Result<Self, ConfigError> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "memory" => Ok(Self::Memory),
            // `postgresql+asyncpg` and the like are how other libraries write it.
            _ if scheme.starts_with("postgres") => Err(ConfigError::NotInThisBuild("postgres:// databases")),
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
            Self::Sqlite { .. } | Self::Memory => false,
        }
    }

    /// Waits until it is there, for as long as `patience` lasts.
    pub(crate) async fn open(&self, migrations: Migrations, patience: Duration) -> Result<OpenDatabase, DatabaseError> {
        let Self::Sqlite { options, .. } = self else { return Ok(OpenDatabase::Memory) };
        if migrations == Migrations::Apply {
            let store = wait_for(options.clone(), patience).await?;
            store.migrate().await.map_err(DatabaseError::Migrate)?;
            return Ok(OpenDatabase::Sqlite(store));
        }
        if self.is_missing() {
            return Err(DatabaseError::Missing(options.path().to_owned()));
        }
        let store = wait_for(options.clone().existing_only(), patience).await?;
        if migrations == Migrations::Require {
            let status = store.migration_status().await.map_err(OpenError::Store)?;
            if !status.iter().all(|migration| migration.applied) {
                return Err(DatabaseError::Older);
            }
        }
        Ok(OpenDatabase::Sqlite(store))
    }

    /// Whether its file is yet to be created.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Sqlite { options, .. } => !options.path().exists(),
            Self::Memory => false,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite { url, .. } => url,
            Self::Memory => "memory:",
        })
    }
}

/// What another process holds is refused at once: it may hold it for ever.
async fn wait_for(options: SqliteStoreOptions, patience: Duration) -> Result<SqliteStore, DatabaseError> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match SqliteStore::connect(options.clone()).await {
            Err(OpenError::Store(error)) if error.is_retryable() => {
                let waited = start.elapsed();
                if waited >= patience {
                    return Err(DatabaseError::Unavailable { waited, source: error.into() });
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "the database is not available yet; trying on");
                }
                sleep(PAUSE).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

impl OpenDatabase {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Memory => Arc::new(MemoryStore::new()),
        }
    }

    pub(crate) async fn close(self) -> Result<(), DatabaseError> {
        match self {
            Self::Sqlite(store) => store.close().await.map_err(DatabaseError::Close),
            Self::Memory => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_cannot_do() {
        for (url, expected) in [
            ("postgres://user:canary@host/db", "not in this build yet"),
            ("postgresql://user:canary@host/db", "not in this build yet"),
            ("postgresql+asyncpg://user:canary@host/db", "not in this build yet"),
            ("mysql://user:canary@host/db", "sqlite://"),
            ("sqlite::memory:", "sqlite"),
        ] {
            let error = Database::parse(url, 30).expect_err(url).to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{url}: {error}");
        }
    }

    #[test]
    fn takes_the_urls_that_it_knows() {
        for url in ["sqlite://hooks.db", "sqlite+aiosqlite:///hooks.db", "hooks.db", "memory:", "memory://"] {
            assert!(Database::parse(url, 2).is_ok(), "{url}");
        }
    }
}
