//! A look into the database behind the servers' backs.

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};
use webhook_core::DeliveryState;

pub(crate) enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Database {
    /// What a server's `--database-url` names; a file only after the server has ended.
    pub(crate) async fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite://") {
            Some(file) => {
                let options = SqliteConnectOptions::new().filename(file).read_only(true);
                Self::Sqlite(SqliteConnection::connect_with(&options).await.unwrap())
            }
            None => Self::Postgres(PgConnection::connect(url).await.unwrap()),
        }
    }

    /// What a statement counts, in which `{noun}` stands for a table.
    pub(crate) async fn number(&mut self, sql: &str) -> usize {
        let prefix = match self {
            Self::Sqlite(_) => "webhook_",
            Self::Postgres(_) => "webhook.",
        };
        let sql = AssertSqlSafe(sql.replace('{', prefix).replace('}', ""));
        let number: i64 = match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
        };
        number as usize
    }

    pub(crate) async fn count(&mut self, noun: &str) -> usize {
        self.number(&format!("SELECT count(*) FROM {{{noun}}}")).await
    }

    pub(crate) async fn delivered(&mut self) -> usize {
        let state = DeliveryState::Delivered.code();
        self.number(&format!("SELECT count(*) FROM {{delivery}} WHERE state = {state}")).await
    }

    /// Leases that ended with their process.
    pub(crate) async fn lost_leases(&mut self) -> usize {
        self.number("SELECT coalesce(sum(lost), 0) FROM {delivery}").await
    }

    /// Deliveries whose attempts are not numbered from 1 to their count.
    pub(crate) async fn misnumbered(&mut self) -> usize {
        let sql = "SELECT count(*) FROM {delivery} d WHERE d.attempts <> \
                   (SELECT count(*) FROM {attempt} a WHERE a.delivery_id = d.id AND a.number BETWEEN 1 AND d.attempts) \
                   OR d.attempts <> (SELECT count(*) FROM {attempt} a WHERE a.delivery_id = d.id)";
        self.number(sql).await
    }
}
