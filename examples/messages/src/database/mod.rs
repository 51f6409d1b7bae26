//! Where messages are kept: in a SQLite file or in PostgreSQL.

mod location;
mod postgres;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use webhook_core::{BatchLost, Clock as _, GroupCommit, SystemClock};

pub(crate) use location::Location;
use postgres::Postgres;
use sqlite::Sqlite;

use crate::filter::Filter;
use crate::message::Message;

/// Messages that one transaction takes at most.
const BATCH: usize = 500;
/// Senders that the statistics list at most.
const MAX_SENDERS: i64 = 100_000;
/// How long a database may take for one call.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("the database cannot be used")]
    Sql(#[source] Arc<sqlx::Error>),
    #[error("the folder of the database cannot be created")]
    Folder(#[source] Arc<std::io::Error>),
    #[error("the table `messages` cannot be used: another program may own one of this name in the same database")]
    Schema(#[source] Arc<sqlx::Error>),
    #[error("the database gave no answer in {} s", PATIENCE.as_secs())]
    Silent,
    #[error(transparent)]
    Lost(#[from] BatchLost),
}

impl DatabaseError {
    /// What creating the tables came to: what the database says about them, or whatever keeps it from answering.
    fn of_schema(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::Schema(Arc::new(error)),
            other => other.into(),
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(Arc::new(error))
    }
}

/// Whether a message was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Created,
    Duplicate,
}

/// A page of messages, newest first, and how many there are in all.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) data: Vec<Message>,
    pub(crate) total: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    pub(crate) total_messages: i64,
    pub(crate) senders_count: i64,
    pub(crate) messages_per_sender: Vec<Sender>,
    pub(crate) first_message_ts: Option<String>,
    pub(crate) last_message_ts: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sender {
    pub(crate) from_msisdn: String,
    pub(crate) count: i64,
}

#[derive(Clone)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Messages, each of which is there once, whoever sends it how often at the same time.
pub(crate) struct Database {
    backend: Backend,
    /// While one transaction waits for the disk, the next one gathers.
    inserts: GroupCommit<Message, Result<Inserted, DatabaseError>>,
}

impl Database {
    /// Creates what is missing: the file and its folder, and the table.
    pub(crate) async fn open(location: &Location) -> Result<Self, DatabaseError> {
        let backend = match location {
            Location::Sqlite(path) => Backend::Sqlite(Sqlite::open(path).await?),
            Location::Postgres(options) => Backend::Postgres(Postgres::open(options).await?),
        };
        let inserts = GroupCommit::new(BATCH, {
            let backend = backend.clone();
            move |messages| {
                let backend = backend.clone();
                async move { backend.insert(messages).await }
            }
        });
        Ok(Self { backend, inserts })
    }

    /// Returns when the message is committed.
    pub(crate) async fn insert(&self, message: Message) -> Result<Inserted, DatabaseError> {
        self.inserts.submit(message, 1).await?
    }

    pub(crate) async fn list(&self, filter: &Filter) -> Result<Page, DatabaseError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Ok(sqlite.list(filter).await?),
            Backend::Postgres(postgres) => postgres.list(filter).await,
        }
    }

    pub(crate) async fn stats(&self) -> Result<Stats, DatabaseError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Ok(sqlite.stats().await?),
            Backend::Postgres(postgres) => postgres.stats().await,
        }
    }

    /// Whether it answers.
    pub(crate) async fn ping(&self) -> Result<(), DatabaseError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Ok(sqlite.ping().await?),
            Backend::Postgres(postgres) => postgres.ping().await,
        }
    }

    /// Closes what can be closed soon.
    pub(crate) async fn close(&self) {
        let closed = async {
            match &self.backend {
                Backend::Sqlite(sqlite) => sqlite.close().await,
                Backend::Postgres(postgres) => postgres.close().await,
            }
        };
        if tokio::time::timeout(PATIENCE, closed).await.is_err() {
            tracing::warn!("connections to the database are left open: it does not answer");
        }
    }
}

impl Backend {
    async fn insert(&self, messages: Vec<Message>) -> Vec<Result<Inserted, DatabaseError>> {
        let now = SystemClock.now().as_millis();
        let outcome = match self {
            Self::Sqlite(sqlite) => sqlite.insert(&messages, now).await.map_err(DatabaseError::from),
            Self::Postgres(postgres) => postgres.insert(&messages, now).await,
        };
        match outcome {
            Ok(inserted) => inserted.into_iter().map(Ok).collect(),
            Err(error) => messages.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}
