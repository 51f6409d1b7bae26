//! From the driver's errors to the store's.

use std::io;
use std::path::PathBuf;

use webhook_core::StoreError;

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL names no file.
    #[error("{0:?} names no database file; for a store in memory use webhook_core::MemoryStore")]
    NoFile(String),
    /// The URL asks for something that the store does not know.
    #[error("the URL parameter {0:?} is not supported; only mode=rwc and mode=rw are")]
    Parameter(String),
    /// Another store holds the database's lock, in this process or another.
    #[error("the database {} is in use by another store: only one process may open it", .0.display())]
    InUse(PathBuf),
    /// The lock file could not be created or locked.
    #[error("the lock file {} cannot be used", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What goes wrong inside the adapter; becomes a [`StoreError`] where it leaves.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(sqlx::Error),
    Store(StoreError),
}

impl Fault {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Store(StoreError::Corrupt(what.into()))
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::corrupt(error.to_string())
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sql(error) => classify(error),
            Fault::Store(error) => error,
        }
    }
}

/// Primary result codes, <https://www.sqlite.org/rescode.html>.
pub(crate) mod code {
    pub(crate) const ERROR: i32 = 1;
    pub(crate) const BUSY: i32 = 5;
    pub(crate) const LOCKED: i32 = 6;
    pub(crate) const NO_MEMORY: i32 = 7;
    pub(crate) const INTERRUPT: i32 = 9;
    pub(crate) const IO: i32 = 10;
    pub(crate) const CORRUPT: i32 = 11;
    pub(crate) const FULL: i32 = 13;
    pub(crate) const CANNOT_OPEN: i32 = 14;
    pub(crate) const PROTOCOL: i32 = 15;
    pub(crate) const CONSTRAINT: i32 = 19;
    pub(crate) const MISMATCH: i32 = 20;
    pub(crate) const NOT_A_DATABASE: i32 = 26;
}

/// The primary result code, where it was SQLite that failed.
pub(crate) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(extended & 0xff)
}

fn classify(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => StoreError::Unavailable(Box::new(error)),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        sqlx::Error::Database(database) => match primary_code(&error).unwrap_or(code::ERROR) {
            code::BUSY
            | code::LOCKED
            | code::NO_MEMORY
            | code::INTERRUPT
            | code::IO
            | code::FULL
            | code::CANNOT_OPEN
            | code::PROTOCOL => StoreError::Unavailable(Box::new(error)),
            code::CORRUPT | code::NOT_A_DATABASE => StoreError::Corrupt(error.to_string()),
            code::ERROR if names_schema(database.message()) => {
                StoreError::Schema(format!("{}; run the migrations", database.message()))
            }
            _ => StoreError::Other(Box::new(error)),
        },
        _ => StoreError::Other(Box::new(error)),
    }
}

fn names_schema(message: &str) -> bool {
    ["no such table: webhook_", "no such column", "no such index: webhook_", "has no column named"]
        .iter()
        .any(|text| message.contains(text))
}
