//! The databases that runs are measured on, each run on one of its own.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use webhook_test_servers::{PostgresServer, RedisServer};

use crate::engine::Queue;
use crate::{Error, QueueKind, StoreKind};

/// How the PostgreSQL server is set, beside its defaults: it waits for the disk, and has room for a run's log.
const SETTINGS: [&str; 6] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=5min",
];

/// A folder for files, and a PostgreSQL and a Redis server where they are needed.
#[derive(Debug)]
pub(crate) struct Databases {
    folder: TempDir,
    postgres: Option<PostgresServer>,
    redis: Option<RedisServer>,
    made: std::cell::Cell<usize>,
}

impl Databases {
    /// In `folder`, or a temporary one; with the servers that the stores and queues need.
    pub(crate) fn start(folder: Option<&Path>, stores: &[StoreKind], queues: &[QueueKind]) -> Result<Self, Error> {
        let folder = match folder {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir()?,
        };
        let wanted = stores.contains(&StoreKind::Postgres);
        let postgres = wanted.then(|| PostgresServer::start_with(&SETTINGS));
        let redis = queues.contains(&QueueKind::Redis).then(RedisServer::start);
        Ok(Self { folder, postgres, redis, made: std::cell::Cell::new(0) })
    }

    /// A file that does not exist yet.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.next()))
    }

    /// The URL of an empty PostgreSQL database, where there is a server.
    pub(crate) fn postgres(&self) -> Option<String> {
        let server = self.postgres.as_ref()?;
        let name = format!("run_{}", self.next());
        server.sql(&server.url(), &format!("create database {name}"));
        let url = server.url();
        let (start, _) = url.rsplit_once('/')?;
        Some(format!("{start}/{name}"))
    }

    /// What a store of that kind opens.
    pub(crate) fn fresh(&self, store: StoreKind) -> Result<String, Error> {
        match store {
            StoreKind::Memory => Ok(String::new()),
            StoreKind::Sqlite => Ok(self.file().to_str().ok_or("the folder's name is not UTF-8")?.to_owned()),
            StoreKind::Postgres => Ok(self.postgres().ok_or("there is no PostgreSQL server")?),
        }
    }

    /// An empty queue of that kind.
    pub(crate) fn queue(&self, queue: QueueKind) -> Result<Queue, Error> {
        Ok(match queue {
            QueueKind::None => Queue::None,
            QueueKind::Memory => Queue::Memory,
            QueueKind::Redis => {
                let server = self.redis.as_ref().ok_or("there is no Redis server")?;
                server.command(&["FLUSHALL"]);
                Queue::Redis(server.url())
            }
        })
    }

    fn next(&self) -> usize {
        self.made.replace(self.made.get() + 1)
    }
}
