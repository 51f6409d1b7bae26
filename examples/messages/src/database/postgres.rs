//! Messages in PostgreSQL.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Postgres as Db, QueryBuilder, Row as _};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::{DatabaseError, Inserted, MAX_SENDERS, PATIENCE, Page, Sender, Stats};
use crate::filter::Filter;
use crate::message::Message;

/// Several processes may start at once, and `IF NOT EXISTS` alone does not keep them apart.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('webhook-messages'))";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS messages (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id  text NOT NULL UNIQUE,
    from_msisdn text NOT NULL,
    to_msisdn   text NOT NULL,
    ts          text NOT NULL,
    ts_micros   bigint NOT NULL,
    text        text,
    folded      text NOT NULL,
    created_at  bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_newest ON messages (ts_micros, seq);
CREATE INDEX IF NOT EXISTS messages_sender ON messages (from_msisdn, ts_micros, seq);
";

const INSERT: &str = "
INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, ts_micros, text, folded, created_at)
SELECT *, $8 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[])
ON CONFLICT (message_id) DO NOTHING
RETURNING message_id";

const TOTALS: &str = "
SELECT count(*), count(DISTINCT from_msisdn),
       (SELECT ts FROM messages ORDER BY ts_micros, seq LIMIT 1),
       (SELECT ts FROM messages ORDER BY ts_micros DESC, seq DESC LIMIT 1)
FROM messages";

const SENDERS: &str = "
SELECT from_msisdn, count(*) FROM messages GROUP BY from_msisdn ORDER BY count(*) DESC, from_msisdn LIMIT $1";

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const CONNECTIONS: u32 = 10;
/// A connection that was of use so shortly ago is not asked whether it is still there.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Postgres {
    pool: PgPool,
    trust: Trust,
}

/// Connections that were there when one gave no answer may all be forgotten by the network.
#[derive(Clone, Debug, Default)]
struct Trust(Arc<Mutex<Option<Instant>>>);

impl Trust {
    fn lose(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn holds(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|lost| lost.elapsed() > age)
    }
}

impl Postgres {
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Self, DatabaseError> {
        let options = options.clone().application_name("webhook-messages");
        // The pool would try again and again, and not say why.
        let first = timeout(PATIENCE, options.connect()).await.map_err(|_| DatabaseError::Silent)??;
        let prepared = timeout(PATIENCE, prepare(first)).await.map_err(|_| DatabaseError::Silent)?;
        prepared.map_err(DatabaseError::of_schema)?;
        let trust = Trust::default();
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
        // What is forgotten would be asked first whether it is there, and that is not answered either.
        let pool = pool.test_before_acquire(false).before_acquire({
            let trust = trust.clone();
            move |connection, of| {
                let trusted = trust.holds(of.age);
                Box::pin(async move { Ok(trusted && (of.idle_for < FRESH || connection.ping().await.is_ok())) })
            }
        });
        Ok(Self { pool: pool.connect_with(options).await?, trust })
    }

    pub(super) async fn insert(&self, messages: &[Message], now: i64) -> Result<Vec<Inserted>, DatabaseError> {
        let mut connection = self.connection().await?;
        let outcome = timeout(PATIENCE, insert(&mut connection, messages, now)).await;
        self.settle(connection, outcome)
    }

    pub(super) async fn list(&self, filter: &Filter) -> Result<Page, DatabaseError> {
        let mut connection = self.connection().await?;
        let outcome = timeout(PATIENCE, list(&mut connection, filter)).await;
        self.settle(connection, outcome)
    }

    pub(super) async fn stats(&self) -> Result<Stats, DatabaseError> {
        let mut connection = self.connection().await?;
        let outcome = timeout(PATIENCE, stats(&mut connection)).await;
        self.settle(connection, outcome)
    }

    pub(super) async fn ping(&self) -> Result<(), DatabaseError> {
        let mut connection = self.connection().await?;
        let one = sqlx::query("SELECT 1 FROM messages LIMIT 1");
        let outcome = timeout(PATIENCE, one.fetch_optional(&mut *connection)).await;
        self.settle(connection, outcome).map(drop)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn connection(&self) -> Result<PoolConnection<Db>, DatabaseError> {
        let connection = self.pool.acquire().await;
        if matches!(connection, Err(sqlx::Error::PoolTimedOut)) {
            self.trust.lose();
        }
        Ok(connection?)
    }

    /// A connection that gave no answer is given up.
    fn settle<T>(
        &self,
        mut connection: PoolConnection<Db>,
        outcome: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<T, DatabaseError> {
        match outcome {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.trust.lose();
                connection.close_on_drop();
                Err(DatabaseError::Silent)
            }
        }
    }
}

async fn prepare(mut connection: PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK).execute(&mut *transaction).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await
}

/// All of them in one statement. It waits for others that insert the same ids, so these are sorted: two batches never
/// wait for each other.
async fn insert(connection: &mut PgConnection, messages: &[Message], now: i64) -> Result<Vec<Inserted>, sqlx::Error> {
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_by(|one, other| one.message_id.cmp(&other.message_id));
    let column = |of: fn(&Message) -> &str| sorted.iter().map(|message| of(message)).collect::<Vec<_>>();
    let created: Vec<String> = sqlx::query_scalar(INSERT)
        .bind(column(|message| &message.message_id))
        .bind(column(|message| &message.from))
        .bind(column(|message| &message.to))
        .bind(column(|message| &message.ts))
        .bind(sorted.iter().map(|message| message.micros()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|message| message.text.as_deref()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|message| message.folded()).collect::<Vec<_>>())
        .bind(now)
        .fetch_all(&mut *connection)
        .await?;
    let mut created: HashSet<_> = created.into_iter().collect();
    // Of those that were new and came twice in this batch, the first one is new.
    let outcome = |message: &Message| match created.remove(&message.message_id) {
        true => Inserted::Created,
        false => Inserted::Duplicate,
    };
    Ok(messages.iter().map(outcome).collect())
}

async fn list(connection: &mut PgConnection, filter: &Filter) -> Result<Page, sqlx::Error> {
    let mut snapshot = connection.begin_with(SNAPSHOT).await?;
    let mut count = QueryBuilder::new("SELECT count(*) FROM messages WHERE true");
    narrow(&mut count, filter);
    let total = count.build_query_scalar().fetch_one(&mut *snapshot).await?;
    let data = page(&mut snapshot, filter).await?;
    Ok(Page { data, total })
}

async fn stats(connection: &mut PgConnection) -> Result<Stats, sqlx::Error> {
    let mut snapshot = connection.begin_with(SNAPSHOT).await?;
    let totals = sqlx::query(TOTALS).fetch_one(&mut *snapshot).await?;
    let senders = sqlx::query(SENDERS).bind(MAX_SENDERS).fetch_all(&mut *snapshot).await?;
    let sender = |row: &PgRow| Ok(Sender { from_msisdn: row.try_get(0)?, count: row.try_get(1)? });
    Ok(Stats {
        total_messages: totals.try_get(0)?,
        senders_count: totals.try_get(1)?,
        messages_per_sender: senders.iter().map(sender).collect::<Result<_, sqlx::Error>>()?,
        first_message_ts: totals.try_get(2)?,
        last_message_ts: totals.try_get(3)?,
    })
}

async fn page(connection: &mut PgConnection, filter: &Filter) -> Result<Vec<Message>, sqlx::Error> {
    let mut page = QueryBuilder::new("SELECT message_id, from_msisdn, to_msisdn, ts, text FROM messages WHERE true");
    narrow(&mut page, filter);
    page.push(" ORDER BY ts_micros DESC, seq DESC LIMIT ").push_bind(filter.limit);
    page.push(" OFFSET ").push_bind(filter.offset);
    page.build().fetch_all(connection).await?.iter().map(message).collect()
}

fn narrow(query: &mut QueryBuilder<Db>, filter: &Filter) {
    if let Some(from) = &filter.from {
        query.push(" AND from_msisdn = ").push_bind(from.clone());
    }
    if let Some(since) = filter.since {
        query.push(" AND ts_micros >= ").push_bind(since);
    }
    if let Some(q) = &filter.q {
        query.push(" AND strpos(folded, ").push_bind(q.clone()).push(") > 0");
    }
}

fn message(row: &PgRow) -> Result<Message, sqlx::Error> {
    Ok(Message {
        message_id: row.try_get(0)?,
        from: row.try_get(1)?,
        to: row.try_get(2)?,
        ts: row.try_get(3)?,
        text: row.try_get(4)?,
    })
}
