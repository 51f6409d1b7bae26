//! A look into the server's file after it has ended.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};
use webhook_core::DeliveryState;

pub(crate) struct Database(SqliteConnection);

impl Database {
    pub(crate) async fn open(directory: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(directory.join("webhook.db")).read_only(true);
        Self(SqliteConnection::connect_with(&options).await.unwrap())
    }

    async fn number(&mut self, sql: String) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.0).await.unwrap()
    }

    pub(crate) async fn count(&mut self, noun: &str) -> usize {
        self.number(format!("SELECT count(*) FROM webhook_{noun}")).await as usize
    }

    pub(crate) async fn delivered(&mut self) -> usize {
        let state = DeliveryState::Delivered.code();
        self.number(format!("SELECT count(*) FROM webhook_delivery WHERE state = {state}")).await as usize
    }

    /// Leases that ended with their process.
    pub(crate) async fn lost_leases(&mut self) -> usize {
        self.number("SELECT coalesce(sum(lost), 0) FROM webhook_delivery".to_owned()).await as usize
    }

    /// Deliveries whose attempts are not numbered from 1 to their count.
    pub(crate) async fn misnumbered(&mut self) -> usize {
        let sql = "SELECT count(*) FROM webhook_delivery d WHERE d.attempts <> \
                   (SELECT count(*) FROM webhook_attempt a WHERE a.delivery_id = d.id AND a.number BETWEEN 1 AND d.attempts) \
                   OR d.attempts <> (SELECT count(*) FROM webhook_attempt a WHERE a.delivery_id = d.id)";
        self.number(sql.to_owned()).await as usize
    }
}
