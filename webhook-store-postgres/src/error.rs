//! From the driver's errors to the store's.

use webhook_core::StoreError;

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL cannot be read.
    #[error("the database URL cannot be read")]
    Url(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database could not be reached or asked.
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

/// Whether the connection is of no use any more, and others of that age may not be either.
pub(crate) fn breaks_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => {
            // And one on which somebody left a transaction that failed.
            let broken = |code: &str| code.starts_with("57P") || code.starts_with("08") || code == "25P02";
            database.code().is_some_and(|code| broken(&code))
        }
        _ => false,
    }
}

/// Whether the session may only read: of a standby, of a server that was demoted, or as the database is set.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "25006")
}

/// Whether a lock was not to be had in time.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

/// By SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn classify(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => StoreError::Unavailable(Box::new(error)),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or_default() {
            // No such table, column, function or schema.
            "42P01" | "42703" | "42883" | "3F000" => {
                StoreError::Schema(format!("{}; run the migrations", database.message()))
            }
            "XX001" | "XX002" => StoreError::Corrupt(error.to_string()),
            // Read-only (a standby, or one that was demoted), in a transaction that failed before, a cancelled statement,
            // a lock that was not to be had, a database that is dropped or starts up.
            "25006" | "25P02" | "57014" | "55P03" | "55006" => StoreError::Unavailable(Box::new(error)),
            // Connections, rollbacks by deadlock or serialization, resources, operators, the system below.
            code if ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
                StoreError::Unavailable(Box::new(error))
            }
            _ => StoreError::Other(Box::new(error)),
        },
        _ => StoreError::Other(Box::new(error)),
    }
}
