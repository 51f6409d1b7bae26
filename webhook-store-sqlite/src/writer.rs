//! The one connection that writes, and the batches it writes in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::Notify;
use tokio::time::Instant;
use webhook_core::{GroupCommit, StoreError};

use crate::error::{Fault, code, primary_code};
use crate::lock::FileLock;
use crate::options::BUSY_TIMEOUT;
use crate::pace::Pace;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// SQLite's busy handler asks after 1, 2, 5 ms and so on up to every 100 ms. In between, hosts that write without a
/// pause would win every time; the writer begins anew after so long, and so keeps asking every few milliseconds.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// How long results wait for company.
const MOMENT: Duration = Duration::from_millis(2);
/// A batch weighs at most so many rows, or is a single job.
const BATCH_WEIGHT: usize = 4096;

/// All writes go through here: what comes while a batch commits goes into the next one, in one transaction.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    group: GroupCommit<Box<dyn Job>, Result<(), StoreError>>,
    /// Somebody hands in work that is waited for.
    hurry: Notify,
}

struct Shared {
    options: SqliteConnectOptions,
    state: tokio::sync::Mutex<State>,
}

struct State {
    connection: Option<SqliteConnection>,
    pace: Pace,
    /// Given up when the writer is closed.
    lock: Option<FileLock>,
}

/// A piece of a batch. It runs again, alone, when the batch it was part of failed.
trait Job: Send + Sync {
    fn run<'a>(&'a self, conn: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), Fault>>;
}

struct Work<I, F, T> {
    input: I,
    work: F,
    answer: Arc<Mutex<Option<T>>>,
}

impl<I, F, T> Job for Work<I, F, T>
where
    I: Send + Sync,
    F: for<'c> Fn(&'c mut SqliteConnection, &'c I) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync,
    T: Send,
{
    fn run<'a>(&'a self, conn: &'a mut SqliteConnection) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let answer = (self.work)(conn, &self.input).await?;
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            Ok(())
        })
    }
}

/// How a transaction failed.
enum Failure {
    /// Somebody else holds the write lock, and nothing has happened.
    Locked(Fault),
    /// By one of its jobs; the others may succeed without it.
    Job(Fault),
    /// As a whole.
    Whole(Fault),
}

impl Writer {
    pub(crate) async fn open(options: SqliteConnectOptions, lock: FileLock) -> Result<Self, Fault> {
        let options = options.busy_timeout(ASK_AGAIN);
        let connection = Some(options.connect().await?);
        let state = tokio::sync::Mutex::new(State { connection, pace: Pace::default(), lock: Some(lock) });
        let shared = Arc::new(Shared { options, state });
        let group = GroupCommit::new(BATCH_WEIGHT, {
            let shared = Arc::clone(&shared);
            move |jobs| {
                let shared = Arc::clone(&shared);
                async move { shared.commit(jobs).await }
            }
        });
        Ok(Self { shared, group, hurry: Notify::new() })
    }

    /// Does `work` with `input`, which writes about `weight` rows, in the next batch. It may be called more than once,
    /// and only the last call counts: whatever the earlier ones wrote is rolled back.
    pub(crate) async fn run<I, F, T>(&self, weight: usize, input: I, work: F) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection, &'c I) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.hurry.notify_waiters();
        self.hand_in(weight, input, work).await
    }

    /// Like [`Writer::run`], for work that nobody waits for: it joins the next batch of work that somebody does wait for,
    /// or becomes one of its own after a moment. A wait for the disk saved is worth more than a moment.
    pub(crate) async fn run_along<I, F, T>(&self, weight: usize, input: I, work: F) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection, &'c I) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
        T: Send + 'static,
    {
        // Either way it is time.
        let _ = tokio::time::timeout(MOMENT, self.hurry.notified()).await;
        self.hand_in(weight, input, work).await
    }

    async fn hand_in<I, F, T>(&self, weight: usize, input: I, work: F) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        F: for<'c> Fn(&'c mut SqliteConnection, &'c I) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let answer = Arc::new(Mutex::new(None));
        let job = Work { input, work, answer: Arc::clone(&answer) };
        let lost = |error| StoreError::Unavailable(Box::new(error));
        self.group.submit(Box::new(job), weight.max(1)).await.map_err(lost)??;
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.ok_or_else(|| StoreError::Other("a committed job left no answer".into()))
    }

    /// Does `work` between two batches, outside of any transaction, on a connection of its own.
    pub(crate) async fn alone<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Fault>>,
    ) -> Result<T, StoreError> {
        let mut state = self.shared.state.lock().await;
        self.shared.connection(&mut state).await?;
        let options = self.shared.options.clone().busy_timeout(BUSY_TIMEOUT);
        let mut connection = options.connect().await.map_err(Fault::from)?;
        let done = work(&mut connection).await;
        connection.close().await.map_err(Fault::from)?;
        Ok(done?)
    }

    /// Closes the connection after the batch that is being written, and gives up the lock.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let mut state = self.shared.state.lock().await;
        let closed = match state.connection.take() {
            Some(connection) => connection.close().await.map_err(Fault::from),
            None => Ok(()),
        };
        state.lock = None;
        Ok(closed?)
    }
}

impl Shared {
    async fn commit(&self, jobs: Vec<Box<dyn Job>>) -> Vec<Result<(), StoreError>> {
        let mut state = self.state.lock().await;
        state.pace.leave_gap().await;
        let began = Instant::now();
        let results = self.run_all(&mut state, &jobs).await;
        state.pace.worked(began);
        results
    }

    async fn run_all(&self, state: &mut State, jobs: &[Box<dyn Job>]) -> Vec<Result<(), StoreError>> {
        match self.transaction(state, jobs).await {
            Ok(()) => jobs.iter().map(|_| Ok(())).collect(),
            Err(Failure::Job(_)) if jobs.len() > 1 => {
                let mut results = Vec::with_capacity(jobs.len());
                for job in jobs.chunks(1) {
                    results.push(self.transaction(state, job).await.map_err(StoreError::from));
                }
                results
            }
            Err(failure) => {
                let error = StoreError::from(failure);
                let copies = (1..jobs.len()).map(|_| Err(copy(&error))).collect::<Vec<_>>();
                std::iter::once(Err(error)).chain(copies).collect()
            }
        }
    }

    async fn transaction(&self, state: &mut State, jobs: &[Box<dyn Job>]) -> Result<(), Failure> {
        let looks = state.pace.wants_look();
        let conn = self.connection(state).await.map_err(Failure::Whole)?;
        let asked = Instant::now();
        let done = loop {
            match run_in_transaction(conn, jobs, looks).await {
                Err(Failure::Locked(_)) if asked.elapsed() < BUSY_TIMEOUT => {}
                done => break done,
            }
        };
        match &done {
            Ok(Some(version)) => state.pace.saw(*version),
            Ok(None) | Err(Failure::Locked(_)) => {}
            Err(Failure::Job(fault) | Failure::Whole(fault)) => {
                if breaks_connection(fault) {
                    tracing::warn!("the writing connection is opened anew after an error");
                    state.connection = None;
                }
            }
        }
        done.map(|_| ())
    }

    async fn connection<'s>(&self, state: &'s mut State) -> Result<&'s mut SqliteConnection, Fault> {
        if state.lock.is_none() {
            return Err(StoreError::Unavailable("the store is closed".into()).into());
        }
        match &mut state.connection {
            Some(connection) => Ok(connection),
            missing => {
                state.pace.forget_version();
                Ok(missing.insert(self.options.connect().await?))
            }
        }
    }
}

async fn run_in_transaction(
    conn: &mut SqliteConnection,
    jobs: &[Box<dyn Job>],
    looks: bool,
) -> Result<Option<i64>, Failure> {
    let whole = |error: sqlx::Error| Failure::Whole(error.into());
    let mut transaction = conn.begin_with("BEGIN IMMEDIATE").await.map_err(|error| match primary_code(&error) {
        Some(code::BUSY) => Failure::Locked(error.into()),
        _ => whole(error),
    })?;
    let mut version = None;
    if looks {
        version = Some(sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *transaction).await.map_err(whole)?);
    }
    for job in jobs {
        if let Err(fault) = job.run(&mut transaction).await {
            // SQLite itself has rolled back after some errors; then the connection is of no more use to the driver.
            return Err(match transaction.rollback().await {
                Ok(()) => Failure::Job(fault),
                Err(error) => Failure::Job(StoreError::Unavailable(Box::new(error)).into()),
            });
        }
    }
    transaction.commit().await.map_err(whole)?;
    Ok(version)
}

/// Whether to open the connection anew rather than to find out what still works.
fn breaks_connection(fault: &Fault) -> bool {
    match fault {
        Fault::Sql(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => false,
        Fault::Sql(error) => {
            !matches!(primary_code(error), Some(code::ERROR | code::BUSY | code::CONSTRAINT | code::MISMATCH))
        }
        Fault::Store(error) => error.is_retryable(),
    }
}

fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(source) => StoreError::Unavailable(source.to_string().into()),
        StoreError::Schema(text) => StoreError::Schema(text.clone()),
        StoreError::Corrupt(text) => StoreError::Corrupt(text.clone()),
        other => StoreError::Other(other.to_string().into()),
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Locked(fault) | Failure::Job(fault) | Failure::Whole(fault) => fault.into(),
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
