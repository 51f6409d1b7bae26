//! The store itself: opened, migrated and closed.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{Connection, PgConnection};
use webhook_core::store::{AcceptOutcome, AcceptUnit, SubscriptionChanges};
use webhook_core::{Conflict, Emitted, Error, Generation, Prepared, StoreError, TenantId, Timestamp};

use crate::clock::PostgresClock;
use crate::error::{Fault, breaks_connection, is_read_only};
use crate::progress::Progress;
use crate::search::Searches;
use crate::session::{Begin, Conn, Session, Trust};
use crate::tenant::Line;
use crate::{MigrationStatus, OpenError, PostgresStoreOptions, event, notifier, schema, subscription};

/// Connections that are in use when the store is closed are waited for no longer than this.
const CLOSING: Duration = Duration::from_secs(5);

/// A store in a PostgreSQL database, shared by any number of processes. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pub(crate) options: Arc<PostgresStoreOptions>,
    pub(crate) clock: PostgresClock,
    pub(crate) progress: Arc<Progress>,
    api: PgPool,
    worker: PgPool,
    pub(crate) searches: Searches,
    pub(crate) line: Arc<Line>,
    trust: Trust,
}

impl PostgresStore {
    /// Opens the database that a URL names, with the default options, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or migrated.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let store = Self::connect(url.parse()?).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens the database, and leaves its schema alone.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached.
    pub async fn connect(options: PostgresStoreOptions) -> Result<Self, OpenError> {
        let trust = Trust::default();
        let api = options.api_pool(&trust).connect_lazy_with(options.connection());
        let worker = options.worker_pool(&trust).connect_lazy_with(options.connection());
        let mut session = Session::plain(&api, options.pooled, &trust).await.map_err(StoreError::from)?;
        let clock = PostgresClock::new(session.conn().inner).await.map_err(StoreError::from)?;
        session.commit().await.map_err(StoreError::from)?;
        let searches = Searches::new(options.api_connections());
        let line = Arc::new(Line::new(options.api_connections()));
        Ok(Self { options: Arc::new(options), clock, progress: Arc::default(), api, worker, searches, line, trust })
    }

    /// Brings the schema up to date. Any number of processes may do so at the same time, and others may go on working
    /// with the schema meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] when the schema is newer than this version of the crate.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        // On a connection of its own, without the limits that the pools' connections have.
        let mut conn = PgConnection::connect_with(&self.options.connection()).await.map_err(Fault::from)?;
        let migrated = schema::migrate(&mut conn).await;
        // It is gone, in order or not.
        let _ = conn.close().await;
        Ok(migrated?)
    }

    /// The known migrations, and which of them have been applied.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        let mut session = self.reader().await?;
        let status = schema::status(session.conn().inner).await;
        self.end(session, status).await
    }

    /// The number of the last applied migration; none before the first.
    pub async fn schema_version(&self) -> Result<Option<i64>, StoreError> {
        let status = self.migration_status().await?;
        Ok(status.iter().rfind(|migration| migration.applied).map(|migration| migration.version))
    }

    /// Closes all connections. Calls after that are [`StoreError::Unavailable`]. Those that are under way are waited for,
    /// but no longer than 5 s: a connection that the network has forgotten gives no answer.
    pub async fn close(&self) {
        let closing = async { tokio::join!(self.worker.close(), self.api.close()) };
        if tokio::time::timeout(CLOSING, closing).await.is_err() {
            tracing::warn!("connections do not answer; they are left as they are");
        }
    }

    /// Emits an event inside the host's own transaction, on the host's own connection: it is accepted when that commits,
    /// and leaves nothing behind when it does not. [`Webhooks::prepare`] makes what is emitted; subscriptions that
    /// changed since then are matched here, so that it reaches those that stand when the host commits. Workers are
    /// woken by a `NOTIFY` that goes with the commit: one, however many events the transaction emits, and whatever the
    /// options of the store are.
    ///
    /// The connection must be one to the store's database, and its transaction at the isolation level `READ COMMITTED`,
    /// which is the default. From here on it keeps changes to the tenant's subscriptions waiting: commit soon.
    ///
    /// # Errors
    ///
    /// [`Conflict::KeyReused`] and [`Error::FanOut`] leave nothing of the event behind. After any other error the host
    /// should roll its transaction back.
    ///
    /// [`Webhooks::prepare`]: webhook_core::Webhooks::prepare
    pub async fn emit_in(conn: &mut PgConnection, prepared: &Prepared) -> Result<Emitted, Error> {
        let emitted = Self::emit_quietly_in(conn, prepared).await?;
        if !emitted.duplicate && emitted.deliveries > 0 {
            notifier::notify_due(conn).await.map_err(Fault::from).map_err(StoreError::from)?;
        }
        Ok(emitted)
    }

    /// The same without the `NOTIFY`: its commit takes a lock that all sessions of the database share, which hosts with
    /// thousands of transactions a second may not want. [`Webhooks::wake`] after the commit does instead, or the
    /// deliveries wait for the next poll.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::emit_in`].
    ///
    /// [`Webhooks::wake`]: webhook_core::Webhooks::wake
    pub async fn emit_quietly_in(conn: &mut PgConnection, prepared: &Prepared) -> Result<Emitted, Error> {
        let outcomes = match Self::accept_in(conn, prepared.now(), prepared.unit()).await? {
            // The tenant is locked by now, so one look at the changes is enough.
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
                let reason = "the event was matched by another database than the one it is emitted in, \
                              or the transaction is not at the isolation level READ COMMITTED";
                Err(StoreError::Other(reason.into()).into())
            }
        }
    }

    /// Accepts a unit inside the host's own transaction, as it was matched: what [`PostgresStore::emit_in`] is made of.
    ///
    /// [`AcceptOutcome::Stale`] asks for [`PostgresStore::changes_in`] and another try.
    ///
    /// # Errors
    ///
    /// After an error the host should roll its transaction back.
    pub async fn accept_in(
        conn: &mut PgConnection,
        now: Timestamp,
        unit: &AcceptUnit,
    ) -> Result<AcceptOutcome, StoreError> {
        Ok(event::accept_in(&mut Conn::of_host(conn), now, unit).await?)
    }

    /// What changed in the tenant's subscriptions after a generation, as the host's own transaction sees it; at most
    /// `limit` entries.
    pub async fn changes_in(
        conn: &mut PgConnection,
        tenant: &TenantId,
        after: Generation,
        limit: u32,
    ) -> Result<SubscriptionChanges, StoreError> {
        Ok(subscription::changes(&mut Conn::of_host(conn), tenant, after, limit).await?)
    }

    /// For one statement of a caller.
    pub(crate) async fn reader(&self) -> Result<Session, StoreError> {
        self.trusting(Session::plain(&self.api, self.options.pooled, &self.trust).await)
    }

    /// For several statements of a caller.
    pub(crate) async fn writer(&self) -> Result<Session, StoreError> {
        self.trusting(Session::transaction(&self.api, self.options.pooled, Begin::Durable, &self.trust).await)
    }

    /// For one statement of the worker.
    pub(crate) async fn worker_reader(&self) -> Result<Session, StoreError> {
        self.trusting(Session::plain(&self.worker, self.options.pooled, &self.trust).await)
    }

    /// For several statements of the worker.
    pub(crate) async fn worker_writer(&self, begin: Begin) -> Result<Session, StoreError> {
        self.trusting(Session::transaction(&self.worker, self.options.pooled, begin, &self.trust).await)
    }

    /// Commits what went well; what did not is rolled back.
    pub(crate) async fn end<T>(&self, mut session: Session, result: Result<T, Fault>) -> Result<T, StoreError> {
        let result = match result {
            Ok(value) => session.commit().await.map(|()| value),
            Err(fault) => {
                session.answered();
                if let Fault::Sql(error) = &fault
                    && breaks_connection(error)
                {
                    // Nothing can be rolled back on it, and nobody should get it again.
                    session.discard();
                }
                Err(fault)
            }
        };
        self.trusting(result)
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.api
    }

    /// What to say of a session that could only read.
    pub(crate) fn read_only(&self) -> StoreError {
        self.trust.outgrow();
        StoreError::Unavailable("the database can only be read".into())
    }

    fn trusting<T>(&self, result: Result<T, Fault>) -> Result<T, StoreError> {
        if let Err(Fault::Sql(error)) = &result {
            if breaks_connection(error) {
                self.trust.lose();
            }
            if is_read_only(error) {
                self.trust.outgrow();
            }
        }
        Ok(result?)
    }
}
