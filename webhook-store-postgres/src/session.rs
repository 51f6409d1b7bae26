//! A connection for one call: as it is, or inside a transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::error::Fault;
use crate::options::settings;

/// After a connection broke, for so long each is asked whether it still works before it is used.
const DOUBT: Duration = Duration::from_secs(30);

/// An idle connection has so long to say that it still works.
const SOON: Duration = Duration::from_secs(1);
/// One that was given up without an answer has so long to give it.
const GRACE: Duration = Duration::from_secs(5);

/// A session keeps the default for reading only with which it began. While the database refuses to be written to, all
/// connections are made anew so often at most.
const RENEWAL: Duration = Duration::from_secs(1);

/// Remembers when a connection was last found to be of no use: then others of its age may be like it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    broken_at: Option<Instant>,
    read_only_at: Option<Instant>,
}

impl Trust {
    /// One was broken.
    pub(crate) fn lose(&self) {
        self.found().broken_at = Some(Instant::now());
    }

    /// One could only read.
    pub(crate) fn outgrow(&self) {
        let read_only_at = &mut self.found().read_only_at;
        if read_only_at.is_none_or(|at| at.elapsed() >= RENEWAL) {
            *read_only_at = Some(Instant::now());
        }
    }

    pub(crate) fn is_doubtful(&self, meta: &PoolConnectionMetadata) -> bool {
        self.found().broken_at.is_some_and(|at| {
            let since = at.elapsed();
            since < DOUBT || meta.age > since
        })
    }

    pub(crate) fn is_outgrown(&self, meta: &PoolConnectionMetadata) -> bool {
        self.found().read_only_at.is_some_and(|at| meta.age > at.elapsed())
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection as statements need it.
#[derive(Debug)]
pub(crate) struct Conn<'c> {
    pub(crate) inner: &'c mut PgConnection,
    /// Statements may stay prepared on it. Behind a pooler they would be on whatever connection comes next.
    pub(crate) persistent: bool,
}

impl<'c> Conn<'c> {
    /// One of the host's, of which nothing is known: nothing stays prepared on it.
    pub(crate) fn of_host(inner: &'c mut PgConnection) -> Self {
        Self { inner, persistent: false }
    }
}

/// Whether an idle connection still answers.
///
/// # Errors
///
/// When it does not, or not soon: the others have to be asked in the same time.
pub(crate) async fn answers(connection: &mut PgConnection) -> sqlx::Result<()> {
    let late = |_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    timeout(SOON, connection.ping()).await.unwrap_or_else(late)
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Its commit waits for the disk, as the server is set.
    Durable,
    /// Its commit does not wait for the disk: what it writes may be lost.
    Relaxed,
}

/// What a call works with: a connection, and in most cases a transaction on it, which [`Session::commit`] commits.
///
/// It may be dropped at any time, also while the transaction begins. What is open then is rolled back.
#[derive(Debug)]
pub(crate) struct Session {
    /// There is none only while this is dropped.
    connection: Option<PoolConnection<Postgres>>,
    /// A transaction is open on it, or begins.
    open: bool,
    /// Statements may stay prepared on it.
    persistent: bool,
    /// Something was asked on it. Whoever drops this without an answer has waited in vain: the network may have forgotten
    /// other connections too.
    unanswered: Option<Trust>,
}

impl Session {
    fn new(connection: PoolConnection<Postgres>, persistent: bool, trust: &Trust) -> Self {
        Self { connection: Some(connection), open: false, persistent, unanswered: Some(trust.clone()) }
    }

    pub(crate) fn conn(&mut self) -> Conn<'_> {
        let persistent = self.persistent;
        Conn { inner: self.inner(), persistent }
    }

    fn inner(&mut self) -> &mut PgConnection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("nothing is done with what was dropped"),
        }
    }

    /// For a single statement. Behind a pooler it needs a transaction all the same.
    pub(crate) async fn plain(pool: &PgPool, pooled: bool, trust: &Trust) -> Result<Self, Fault> {
        match pooled {
            false => Ok(Self::new(pool.acquire().await?, true, trust)),
            true => Self::transaction(pool, pooled, Begin::Durable, trust).await,
        }
    }

    /// For several statements.
    pub(crate) async fn transaction(pool: &PgPool, pooled: bool, begin: Begin, trust: &Trust) -> Result<Self, Fault> {
        // Whatever the database's default is: what is read after a lock has to be what stands then.
        let mut sql = String::from("BEGIN ISOLATION LEVEL READ COMMITTED;");
        if pooled {
            sql.push_str(&settings("SET LOCAL"));
        }
        if begin == Begin::Relaxed {
            sql.push_str("SET LOCAL synchronous_commit = off;");
        }
        let mut session = Self::new(pool.acquire().await?, !pooled, trust);
        session.open = true;
        let begun = session.inner().execute(AssertSqlSafe(sql)).await;
        if begun.is_err() {
            session.answered();
        }
        begun?;
        Ok(session)
    }

    /// What was asked has been answered, well or badly.
    pub(crate) fn answered(&mut self) {
        self.unanswered = None;
    }

    /// Drops the connection instead of giving it back.
    pub(crate) fn discard(mut self) {
        self.answered();
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }

    /// Commits, where there is a transaction.
    pub(crate) async fn commit(mut self) -> Result<(), Fault> {
        if self.open {
            let committed = self.inner().execute("COMMIT").await;
            self.open = committed.is_err();
            self.answered();
            committed?;
        }
        self.answered();
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let unanswered = self.unanswered.take();
        if let Some(trust) = &unanswered {
            trust.lose();
        }
        let open = self.open;
        let Some(connection) = self.connection.take().filter(|_| open || unanswered.is_some()) else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(set_right(connection, open))),
            Err(_) => drop(connection.detach()),
        }
    }
}

/// Gives a connection back on which something was left open or unanswered. The pool would wait for the answer for ever, and
/// nobody could have another one in its place.
async fn set_right(mut connection: PoolConnection<Postgres>, open: bool) {
    let right = async {
        match open {
            true => connection.execute("ROLLBACK").await.map(drop),
            false => connection.ping().await,
        }
    };
    if !matches!(timeout(GRACE, right).await, Ok(Ok(()))) {
        drop(connection.detach());
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_connection_in_vain_knows_nothing_of_the_others() {
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://postgres@{}/x", silent.local_addr().unwrap());
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50)).connect_lazy(&url).unwrap();
        let trust = Trust::default();
        assert!(Session::plain(&pool, false, &trust).await.is_err());
        assert!(Session::transaction(&pool, false, Begin::Durable, &trust).await.is_err());
        let given_up = timeout(Duration::from_millis(10), Session::transaction(&pool, false, Begin::Durable, &trust));
        assert!(given_up.await.is_err());
        assert!(trust.found().broken_at.is_none());
    }
}
