//! A connection for one call: as it is, or inside a transaction.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Row, SqlSafeStr, Transaction};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use crate::error::Fault;
use crate::options::settings;

/// After a connection broke, for so long each is asked whether it still works before it is used.
const DOUBT: Duration = Duration::from_secs(30);

/// An idle connection has so long to say that it still works.
const SOON: Duration = Duration::from_secs(1);
/// One that was given back without an answer has so long to give it.
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

/// What a call works with.
#[derive(Debug)]
pub(crate) enum Session {
    /// Each statement is a transaction.
    Plain(Unanswered, PoolConnection<Postgres>),
    /// All statements are one transaction, which [`Session::commit`] commits.
    Transaction(Unanswered, Transaction<'static, Postgres>, Prepare),
}

/// Something was asked on a connection. Whoever drops this without an answer has waited in vain: the network may have
/// forgotten other connections too. It is dropped before the connection, which [`is_in_order`] then looks at.
#[derive(Debug)]
pub(crate) struct Unanswered(Option<Trust>);

impl Unanswered {
    fn new(trust: &Trust) -> Self {
        Self(Some(trust.clone()))
    }

    fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(trust) = &self.0 {
            trust.lose();
        }
    }
}

/// Whether an idle connection still answers.
///
/// # Errors
///
/// When it does not, or not soon: the others have to be asked in the same time.
pub(crate) async fn answers(connection: &mut PgConnection) -> sqlx::Result<()> {
    timeout(SOON, connection.ping()).await.unwrap_or_else(late)
}

/// Whether somebody else can use a connection that is given back: it answers, and no transaction is open on it. Who gives
/// up while a transaction begins leaves one open, of which sqlx does not know.
///
/// # Errors
///
/// When it does not answer, or not within some seconds.
pub(crate) async fn is_in_order(connection: &mut PgConnection) -> sqlx::Result<bool> {
    // Within the first statement of a transaction both are the same.
    let open = sqlx::raw_sql("SELECT transaction_timestamp() < statement_timestamp()").fetch_one(connection);
    let open: bool = timeout(GRACE, open).await.unwrap_or_else(late)?.try_get(0)?;
    Ok(!open)
}

fn late<T>(_: Elapsed) -> sqlx::Result<T> {
    Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
}

/// What becomes of prepared statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepare {
    /// They stay.
    Keep,
    /// Each is used once.
    Once,
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Its commit waits for the disk, as the server is set.
    Durable,
    /// Its commit does not wait for the disk: what it writes may be lost.
    Relaxed,
}

impl Session {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Plain(_, connection) => Conn { inner: connection, persistent: true },
            Self::Transaction(_, transaction, prepare) => {
                Conn { inner: transaction, persistent: *prepare == Prepare::Keep }
            }
        }
    }

    /// For a single statement. Behind a pooler it needs a transaction all the same.
    pub(crate) async fn plain(pool: &PgPool, pooled: bool, trust: &Trust) -> Result<Self, Fault> {
        match pooled {
            false => Ok(Self::Plain(Unanswered::new(trust), pool.acquire().await?)),
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
        let prepare = if pooled { Prepare::Once } else { Prepare::Keep };
        let mut begun = pin!(pool.begin_with(AssertSqlSafe(sql).into_sql_str()));
        let mut unanswered = Unanswered::new(trust);
        let begun = begun.as_mut().await;
        unanswered.answered();
        Ok(Self::Transaction(Unanswered::new(trust), begun?, prepare))
    }

    /// What was asked has been answered, well or badly.
    pub(crate) fn answered(&mut self) {
        match self {
            Self::Plain(unanswered, _) | Self::Transaction(unanswered, ..) => unanswered.answered(),
        }
    }

    /// Drops the connection instead of giving it back.
    pub(crate) fn discard(self) {
        if let Self::Plain(_, connection) = self {
            drop(connection.detach());
        }
    }

    /// Commits, where there is a transaction.
    pub(crate) async fn commit(self) -> Result<(), Fault> {
        match self {
            Self::Plain(mut unanswered, _) => {
                unanswered.answered();
                Ok(())
            }
            Self::Transaction(mut unanswered, transaction, _) => {
                let committed = transaction.commit().await;
                unanswered.answered();
                Ok(committed?)
            }
        }
    }
}
