//! The store itself: opened, migrated and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use webhook_core::store::{AcceptOutcome, AcceptUnit, SubscriptionChanges};
use webhook_core::{Conflict, Emitted, Error, Generation, Prepared, StoreError, TenantId, Timestamp};

use crate::error::Fault;
use crate::lock::FileLock;
use crate::search::Searches;
use crate::writer::Writer;
use crate::{MigrationStatus, OpenError, SqliteStoreOptions, delivery, event, schema, subscription};

/// A store in one SQLite file. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pub(crate) writer: Arc<Writer>,
    readers: SqlitePool,
    pub(crate) searches: Searches,
    leases_freed: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens the database that a path or URL names, with the default options, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// When another store has the file open, or it cannot be opened or migrated.
    pub async fn open(url_or_path: &str) -> Result<Self, OpenError> {
        let store = Self::connect(url_or_path.parse()?).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens the database, and leaves its schema alone.
    ///
    /// The leases of the process that had it open before are over from now on.
    ///
    /// # Errors
    ///
    /// When another store has the file open, or it cannot be opened.
    pub async fn connect(options: SqliteStoreOptions) -> Result<Self, OpenError> {
        let options = options.absolute()?;
        let lock = FileLock::acquire(&options.path)?;
        let writer = Writer::open(options.writer(), lock).await.map_err(StoreError::from)?;
        let (pool, connection) = options.readers();
        let store = Self {
            writer: Arc::new(writer),
            searches: Searches::new(pool.get_max_connections()),
            readers: pool.connect_lazy_with(connection),
            leases_freed: Arc::new(AtomicBool::new(false)),
        };
        if store.migration_status().await?.iter().all(|migration| migration.applied) {
            store.free_old_leases().await?;
        }
        Ok(store)
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] when the schema is newer than this version of the crate.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.writer.alone(|conn| Box::pin(schema::migrate(conn))).await?;
        self.free_old_leases().await
    }

    /// The known migrations, and which of them have been applied.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        Ok(schema::status(&mut *self.reader().await?).await?)
    }

    /// The number of the last applied migration; none before the first.
    pub async fn schema_version(&self) -> Result<Option<i64>, StoreError> {
        let status = self.migration_status().await?;
        Ok(status.iter().rfind(|migration| migration.applied).map(|migration| migration.version))
    }

    /// Ends all leases at `now`; how many there were. Their deliveries are due at once, and each next claim counts the
    /// lost lease.
    ///
    /// Opening a store does this already for the leases of the process before.
    pub async fn free_leases(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.writer.run(1, now, |conn, now| Box::pin(delivery::free_leases(conn, *now))).await
    }

    /// Nobody else has the file open, so whoever held a lease when it was opened is gone. Must not happen again later.
    async fn free_old_leases(&self) -> Result<(), StoreError> {
        if !self.leases_freed.load(Ordering::Acquire) {
            self.free_leases(Timestamp::EPOCH).await?;
            self.leases_freed.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Writes what is being written, closes all connections and gives up the file. Calls after that are
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        self.writer.close().await
    }

    /// Emits an event inside the host's own transaction, on the host's own connection: it is accepted when that commits,
    /// and leaves nothing behind when it does not. [`Webhooks::prepare`] makes what is emitted; subscriptions that
    /// changed since then are matched here, so that it reaches those that stand when the host commits.
    ///
    /// The connection must be one to the store's file, and the transaction should have begun with `BEGIN IMMEDIATE`
    /// (`begin_with` in sqlx): one that reads first and writes later fails with `SQLITE_BUSY` as soon as somebody else
    /// wrote in between. From here on the transaction holds the file's write lock: commit soon, and call
    /// [`Webhooks::wake`] after it, or the deliveries wait for the next poll.
    ///
    /// # Errors
    ///
    /// [`Conflict::KeyReused`] and [`Error::FanOut`] leave nothing of the event behind. After any other error the host
    /// should roll its transaction back.
    ///
    /// [`Webhooks::prepare`]: webhook_core::Webhooks::prepare
    /// [`Webhooks::wake`]: webhook_core::Webhooks::wake
    pub async fn emit_in(conn: &mut SqliteConnection, prepared: &Prepared) -> Result<Emitted, Error> {
        let outcomes = match Self::accept_in(conn, prepared.now(), prepared.unit()).await? {
            // The write lock is held by now, so one look at the changes is enough.
            AcceptOutcome::Stale => {
                let changes = Self::changes_in(conn, &prepared.unit().tenant, prepared.generation(), u32::MAX).await?;
                let prepared = prepared.rematch(&changes)?;
                Self::accept_in(conn, prepared.now(), prepared.unit()).await?
            }
            outcome => outcome,
        };
        match outcomes {
            AcceptOutcome::Done(outcomes) => match outcomes.into_iter().next() {
                Some(outcome) => outcome.try_into(),
                None => Err(StoreError::Other("an event was left without an outcome".into()).into()),
            },
            AcceptOutcome::Conflict => Err(Conflict::KeyReused.into()),
            AcceptOutcome::Stale => {
                let reason = "the event was matched by another database than the one it is emitted in";
                Err(StoreError::Other(reason.into()).into())
            }
        }
    }

    /// Accepts a unit inside the host's own transaction, as it was matched: what [`SqliteStore::emit_in`] is made of.
    ///
    /// [`AcceptOutcome::Stale`] asks for [`SqliteStore::changes_in`] and another try.
    ///
    /// # Errors
    ///
    /// After an error the host should roll its transaction back.
    pub async fn accept_in(
        conn: &mut SqliteConnection,
        now: Timestamp,
        unit: &AcceptUnit,
    ) -> Result<AcceptOutcome, StoreError> {
        Ok(event::accept_in(conn, now, unit).await?)
    }

    /// What changed in the tenant's subscriptions after a generation, as the host's own transaction sees it; at most
    /// `limit` entries.
    pub async fn changes_in(
        conn: &mut SqliteConnection,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError> {
        Ok(subscription::changes(conn, tenant, after, limit).await?)
    }

    pub(crate) async fn reader(&self) -> Result<PoolConnection<Sqlite>, Fault> {
        Ok(self.readers.acquire().await?)
    }
}
