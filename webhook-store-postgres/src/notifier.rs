//! Signals between processes by LISTEN and NOTIFY.

use std::io::ErrorKind;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool};
use tokio::time::timeout;
use webhook_core::{Notifier, NotifierError, Signal};

/// The one channel; it is the database's, so databases do not hear each other.
const CHANNEL: &str = "webhook";
const DUE: &str = "due";
const CHANGED: &str = "changed ";
/// After so long without a word the connection is asked whether it still stands.
const SILENCE: Duration = Duration::from_secs(10);
/// It has so long to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Carries signals by `NOTIFY webhook`. Listening holds a connection of its own.
#[derive(Clone, Debug)]
pub struct PostgresNotifier {
    pool: PgPool,
}

impl PostgresNotifier {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl Notifier for PostgresNotifier {
    async fn publish(&self, signals: &[Signal]) -> Result<(), NotifierError> {
        let payloads: Vec<String> = signals.iter().filter_map(payload).collect();
        // Without waiting for the disk: a signal is worth nothing after a crash.
        let sql = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, p) FROM unnest($2::text[]) AS p";
        let sent = sqlx::query(sql).bind(CHANNEL).bind(payloads).execute(&self.pool).await;
        sent.map(|_| ()).map_err(unavailable)
    }

    async fn listen(&self, heard: &(dyn Fn(Signal) + Send + Sync)) -> NotifierError {
        match self.hear(heard).await {
            Ok(never) => match never {},
            Err(error) => unavailable(error),
        }
    }
}

impl PostgresNotifier {
    async fn hear(&self, heard: &(dyn Fn(Signal) + Send + Sync)) -> Result<std::convert::Infallible, sqlx::Error> {
        // Not one of the pool's: it would be held for ever.
        let options = (*self.pool.connect_options()).clone();
        let alone = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&alone).await?;
        answered(listener.listen(CHANNEL)).await?;
        heard(Signal::Missed);
        loop {
            match timeout(SILENCE, listener.try_recv()).await {
                Ok(received) => match received? {
                    Some(notification) => {
                        if let Some(signal) = signal(notification.payload()) {
                            heard(signal);
                        }
                    }
                    // The connection was lost and will be made again; what was said in between is not heard.
                    None => {
                        answered(listener.listen(CHANNEL)).await?;
                        heard(Signal::Missed);
                    }
                },
                // Either nobody has said anything, or the network has forgotten the connection.
                Err(_) => {
                    answered(listener.execute("SELECT 1")).await?;
                }
            }
        }
    }
}

async fn answered<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = |late| Err(sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, late)));
    timeout(ANSWER, call).await.unwrap_or_else(late)
}

fn payload(signal: &Signal) -> Option<String> {
    match signal {
        Signal::Due => Some(DUE.to_owned()),
        Signal::SubscriptionsChanged(tenant) => Some(format!("{CHANGED}{tenant}")),
        _ => None,
    }
}

fn signal(payload: &str) -> Option<Signal> {
    match payload.strip_prefix(CHANGED) {
        Some(tenant) => tenant.parse().ok().map(Signal::SubscriptionsChanged),
        None => (payload == DUE).then_some(Signal::Due),
    }
}

fn unavailable(error: sqlx::Error) -> NotifierError {
    NotifierError::Unavailable(Box::new(error))
}

/// Wakes the workers of all processes when the transaction that `conn` is in commits.
pub(crate) async fn notify_due(conn: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, $2)").persistent(false).bind(CHANNEL).bind(DUE).execute(conn).await?;
    Ok(())
}
