//! Messages in a SQLite file.

use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, QueryBuilder, Row as _, Sqlite as Db};

use super::{DatabaseError, Inserted, MAX_SENDERS, PATIENCE, Page, Sender, Stats};
use crate::filter::Filter;
use crate::message::Message;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS messages (
    seq         INTEGER PRIMARY KEY,
    message_id  TEXT NOT NULL UNIQUE,
    from_msisdn TEXT NOT NULL,
    to_msisdn   TEXT NOT NULL,
    ts          TEXT NOT NULL,
    ts_micros   INTEGER NOT NULL,
    text        TEXT,
    folded      TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS messages_newest ON messages (ts_micros, seq);
CREATE INDEX IF NOT EXISTS messages_sender ON messages (from_msisdn, ts_micros, seq);
";

const INSERT: &str = "
INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, ts_micros, text, folded, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (message_id) DO NOTHING";

const TOTALS: &str = "
SELECT count(*), count(DISTINCT from_msisdn),
       (SELECT ts FROM messages ORDER BY ts_micros, seq LIMIT 1),
       (SELECT ts FROM messages ORDER BY ts_micros DESC, seq DESC LIMIT 1)
FROM messages";

const SENDERS: &str = "
SELECT from_msisdn, count(*) FROM messages GROUP BY from_msisdn ORDER BY count(*) DESC, from_msisdn LIMIT $1";

const READERS: u32 = 4;

/// One connection writes, a few read.
#[derive(Clone)]
pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self, DatabaseError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| DatabaseError::Folder(Arc::new(error)))?;
        }
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(PATIENCE).disable_statement_logging();
        let writer = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool(1).connect_with(writer).await?;
        sqlx::raw_sql(SCHEMA).execute(&writer).await.map_err(DatabaseError::of_schema)?;
        let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, readers })
    }

    /// All of them in one transaction.
    pub(super) async fn insert(&self, messages: &[Message], now: i64) -> Result<Vec<Inserted>, sqlx::Error> {
        let mut connection = self.writer.acquire().await?;
        let outcome = insert(&mut connection, messages, now).await;
        if outcome.is_err() {
            // SQLite itself has rolled back after some errors; the driver takes the transaction to be open then for ever.
            connection.close_on_drop();
        }
        outcome
    }

    /// Both queries see the same messages.
    pub(super) async fn list(&self, filter: &Filter) -> Result<Page, sqlx::Error> {
        let mut transaction = self.readers.begin().await?;
        let mut count = QueryBuilder::new("SELECT count(*) FROM messages WHERE 1 = 1");
        narrow(&mut count, filter);
        let total = count.build_query_scalar().fetch_one(&mut *transaction).await?;
        let mut page =
            QueryBuilder::new("SELECT message_id, from_msisdn, to_msisdn, ts, text FROM messages WHERE 1 = 1");
        narrow(&mut page, filter);
        page.push(" ORDER BY ts_micros DESC, seq DESC LIMIT ").push_bind(filter.limit);
        page.push(" OFFSET ").push_bind(filter.offset);
        let rows = page.build().fetch_all(&mut *transaction).await?;
        Ok(Page { data: rows.iter().map(message).collect::<Result<_, _>>()?, total })
    }

    pub(super) async fn stats(&self) -> Result<Stats, sqlx::Error> {
        let mut transaction = self.readers.begin().await?;
        let totals = sqlx::query(TOTALS).fetch_one(&mut *transaction).await?;
        let senders = sqlx::query(SENDERS).bind(MAX_SENDERS).fetch_all(&mut *transaction).await?;
        let sender = |row: &SqliteRow| Ok(Sender { from_msisdn: row.try_get(0)?, count: row.try_get(1)? });
        Ok(Stats {
            total_messages: totals.try_get(0)?,
            senders_count: totals.try_get(1)?,
            messages_per_sender: senders.iter().map(sender).collect::<Result<_, sqlx::Error>>()?,
            first_message_ts: totals.try_get(2)?,
            last_message_ts: totals.try_get(3)?,
        })
    }

    pub(super) async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1 FROM messages LIMIT 1").fetch_optional(&self.readers).await.map(drop)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    messages: &[Message],
    now: i64,
) -> Result<Vec<Inserted>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in messages {
        let done = sqlx::query(INSERT)
            .bind(&message.message_id)
            .bind(&message.from)
            .bind(&message.to)
            .bind(&message.ts)
            .bind(message.micros())
            .bind(&message.text)
            .bind(message.folded())
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        outcomes.push(if done.rows_affected() == 0 { Inserted::Duplicate } else { Inserted::Created });
    }
    transaction.commit().await?;
    Ok(outcomes)
}

fn narrow(query: &mut QueryBuilder<Db>, filter: &Filter) {
    if let Some(from) = &filter.from {
        query.push(" AND from_msisdn = ").push_bind(from.clone());
    }
    if let Some(since) = filter.since {
        query.push(" AND ts_micros >= ").push_bind(since);
    }
    if let Some(q) = &filter.q {
        query.push(" AND instr(folded, ").push_bind(q.clone()).push(") > 0");
    }
}

fn message(row: &SqliteRow) -> Result<Message, sqlx::Error> {
    Ok(Message {
        message_id: row.try_get(0)?,
        from: row.try_get(1)?,
        to: row.try_get(2)?,
        ts: row.try_get(3)?,
        text: row.try_get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(id: usize) -> Message {
        let body = json!({
            "message_id": format!("m{id}"), "from": "+919876543210", "to": "+14155550100", "ts": "2025-01-15T10:00:00Z",
            "text": "x".repeat(4096),
        });
        Message::parse(body.to_string().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_full_disk_is_over_when_there_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("app.db")).await.unwrap();
        // This connection finds its disk full; the next one does not.
        sqlx::raw_sql("PRAGMA max_page_count = 40").execute(&sqlite.writer).await.unwrap();
        let mut stored = 0;
        while sqlite.insert(&[message(stored)], 0).await.is_ok() {
            stored += 1;
            assert!(stored < 100, "it is never full");
        }
        assert_eq!(sqlite.insert(&[message(stored)], 0).await.unwrap(), [Inserted::Created]);
        assert_eq!(sqlite.stats().await.unwrap().total_messages, i64::try_from(stored).unwrap() + 1);
    }

    #[tokio::test]
    async fn a_table_of_somebody_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut other = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE messages (message_id TEXT PRIMARY KEY)").execute(&mut other).await.unwrap();
        let error = Sqlite::open(&path).await.err().unwrap();
        assert!(matches!(error, DatabaseError::Schema(_)), "{error}");
    }
}
