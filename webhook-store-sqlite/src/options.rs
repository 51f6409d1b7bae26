//! Where the database is and how it is opened.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use webhook_core::StoreError;

use crate::OpenError;

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// For the disk: what was accepted survives a power cut.
    #[default]
    Full,
    /// Not for the disk: what was accepted survives the end of the process, but a power cut may take the last commits.
    Normal,
}

/// Where the database is and how it is opened.
#[derive(Clone, Debug)]
pub struct SqliteStoreOptions {
    pub(crate) path: PathBuf,
    create: bool,
    readers: u32,
    synchronous: Synchronous,
    statement_cache: usize,
}

/// How long a statement waits for another writer on the same file.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READER_TIMEOUT: Duration = Duration::from_secs(5);
const WAL_AUTOCHECKPOINT_PAGES: &str = "4000";
const JOURNAL_SIZE_LIMIT_BYTES: &str = "67108864";

impl SqliteStoreOptions {
    /// The database in that file, which is created if it is missing; four readers, `synchronous=FULL`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            create: true,
            readers: 4,
            synchronous: Synchronous::Full,
            statement_cache: 256,
        }
    }

    /// A missing file is an error.
    #[must_use]
    pub fn existing_only(mut self) -> Self {
        self.create = false;
        self
    }

    /// So many connections for reading, at least one; 4 by default.
    #[must_use]
    pub fn with_readers(mut self, readers: u32) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// What a commit waits for.
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Each connection keeps so many prepared statements; 256 by default.
    #[must_use]
    pub fn with_statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = statements;
        self
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connection(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(self.create)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .statement_cache_capacity(self.statement_cache)
            .row_buffer_size(512)
            .disable_statement_logging()
    }

    pub(crate) fn writer(&self) -> SqliteConnectOptions {
        self.connection()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match self.synchronous {
                Synchronous::Full => SqliteSynchronous::Full,
                Synchronous::Normal => SqliteSynchronous::Normal,
            })
            .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES)
            .pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)
            .pragma("cache_size", "-32768")
            .pragma("temp_store", "MEMORY")
            .thread_name(|id| format!("webhook-sqlite-writer-{id}"))
    }

    pub(crate) fn readers(&self) -> (SqlitePoolOptions, SqliteConnectOptions) {
        let pool = SqlitePoolOptions::new()
            .max_connections(self.readers)
            .acquire_timeout(READER_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false);
        let connection = self
            .connection()
            .create_if_missing(false)
            .pragma("query_only", "ON")
            .pragma("temp_store", "MEMORY")
            .thread_name(|id| format!("webhook-sqlite-reader-{id}"));
        (pool, connection)
    }

    /// The path as the system sees it from anywhere.
    pub(crate) fn absolute(mut self) -> Result<Self, OpenError> {
        self.path = std::path::absolute(&self.path).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        Ok(self)
    }
}

impl FromStr for SqliteStoreOptions {
    type Err = OpenError;

    /// Takes a plain path, `sqlite:path`, `sqlite://path` (so `sqlite:///var/lib/hooks.db` is absolute), and as
    /// SQLAlchemy writes it `sqlite+aiosqlite:///relative` or `sqlite+aiosqlite:////absolute`. A URL may end with
    /// `?mode=rwc`, which is the default, or `?mode=rw` for [`SqliteStoreOptions::existing_only`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = ["sqlite+aiosqlite:///", "sqlite://", "sqlite:"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let (path, parameters) = match rest {
            Some(rest) => rest.split_once('?').unwrap_or((rest, "")),
            None => (text, ""),
        };
        let no_file = || OpenError::NoFile(text.to_owned());
        if path.is_empty() || path == ":memory:" {
            return Err(no_file());
        }
        let mut options = Self::new(path);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter {
                "mode=rwc" => {}
                "mode=rw" => options = options.existing_only(),
                "mode=memory" => return Err(no_file()),
                _ => return Err(OpenError::Parameter(parameter.to_owned())),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_name_the_same_file() {
        for (text, path) in [
            ("hooks.db", "hooks.db"),
            ("/var/hooks.db", "/var/hooks.db"),
            ("sqlite:hooks.db", "hooks.db"),
            ("sqlite://hooks.db?mode=rwc", "hooks.db"),
            ("sqlite:///var/hooks.db", "/var/hooks.db"),
            ("sqlite+aiosqlite:///./hooks.db", "./hooks.db"),
            ("sqlite+aiosqlite:////var/hooks.db", "/var/hooks.db"),
        ] {
            let options: SqliteStoreOptions = text.parse().expect(text);
            assert_eq!(options.path, Path::new(path), "{text}");
        }
    }

    #[test]
    fn a_database_in_memory_is_refused_with_a_way_out() {
        for text in ["", ":memory:", "sqlite::memory:", "sqlite://", "sqlite://:memory:", "sqlite:x?mode=memory"] {
            let error = text.parse::<SqliteStoreOptions>().expect_err(text);
            assert!(error.to_string().contains("MemoryStore"), "{error}");
        }
        assert!(matches!("sqlite:x?cache=shared".parse::<SqliteStoreOptions>(), Err(OpenError::Parameter(_))));
    }
}
