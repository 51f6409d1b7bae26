//! Remembering inbound messages.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use webhook_core::store::{LeaseToken, NewReceipt, ReceiptState, ReceiptStore};
use webhook_core::{ReceiptKey, StoreError, Timestamp};

use crate::error::Fault;
use crate::rows;
use crate::store::SqliteStore;

#[async_trait]
impl ReceiptStore for SqliteStore {
    async fn begin_receipt(&self, receipt: &NewReceipt) -> Result<ReceiptState, StoreError> {
        self.writer.run(1, receipt.clone(), |conn, receipt| Box::pin(begin(conn, receipt))).await
    }

    async fn complete_receipt(
        &self,
        key: &ReceiptKey,
        token: LeaseToken,
        answer: &[u8],
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let input = (key.clone(), token, answer.to_vec(), expires_at);
        let work = self.writer.run(1, input, |conn, (key, token, answer, expires_at)| {
            Box::pin(complete(conn, key, *token, answer, *expires_at))
        });
        work.await
    }

    async fn fail_receipt(&self, key: &ReceiptKey, token: LeaseToken) -> Result<bool, StoreError> {
        self.writer.run(1, (key.clone(), token), |conn, (key, token)| Box::pin(fail(conn, key, *token))).await
    }

    async fn forget_receipts(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let work =
            self.writer.run(limit as usize, (now, limit), |conn, (now, limit)| Box::pin(forget(conn, *now, *limit)));
        work.await
    }
}

/// Takes the lease where the message is unknown, has expired, or was left alone by whoever handled it.
async fn begin(conn: &mut SqliteConnection, receipt: &NewReceipt) -> Result<ReceiptState, Fault> {
    let taken = sqlx::query(
        "INSERT INTO webhook_receipt (tenant, source, message_id, fingerprint, token, lease_until, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (tenant, source, message_id) DO UPDATE SET
           fingerprint = excluded.fingerprint, token = excluded.token, lease_until = excluded.lease_until,
           expires_at = excluded.expires_at, answer = NULL
         WHERE webhook_receipt.expires_at <= ?8
            OR (webhook_receipt.answer IS NULL AND webhook_receipt.lease_until <= ?8
                AND webhook_receipt.fingerprint = excluded.fingerprint)",
    )
    .bind(receipt.key.tenant.as_str())
    .bind(receipt.key.source.as_str())
    .bind(&receipt.key.message_id)
    .bind(receipt.fingerprint.as_slice())
    .bind(receipt.token.get())
    .bind(receipt.lease_until.as_millis())
    .bind(receipt.expires_at.as_millis())
    .bind(receipt.now.as_millis())
    .execute(&mut *conn)
    .await?;
    if taken.rows_affected() > 0 {
        return Ok(ReceiptState::New);
    }
    let known = sqlx::query(
        "SELECT fingerprint, lease_until, answer FROM webhook_receipt
         WHERE tenant = ?1 AND source = ?2 AND message_id = ?3",
    )
    .bind(receipt.key.tenant.as_str())
    .bind(receipt.key.source.as_str())
    .bind(&receipt.key.message_id)
    .fetch_one(conn)
    .await?;
    let fingerprint: Vec<u8> = known.try_get("fingerprint")?;
    let answer: Option<Vec<u8>> = known.try_get("answer")?;
    Ok(match answer {
        _ if fingerprint != receipt.fingerprint => ReceiptState::Conflict,
        Some(answer) => ReceiptState::Handled(answer),
        None => ReceiptState::InProgress(rows::time(&known, "lease_until")?),
    })
}

async fn complete(
    conn: &mut SqliteConnection,
    key: &ReceiptKey,
    token: LeaseToken,
    answer: &[u8],
    expires_at: Timestamp,
) -> Result<bool, Fault> {
    let done = sqlx::query(
        "UPDATE webhook_receipt SET answer = ?5, expires_at = ?6
         WHERE tenant = ?1 AND source = ?2 AND message_id = ?3 AND token = ?4 AND answer IS NULL",
    )
    .bind(key.tenant.as_str())
    .bind(key.source.as_str())
    .bind(&key.message_id)
    .bind(token.get())
    .bind(answer)
    .bind(expires_at.as_millis())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn fail(conn: &mut SqliteConnection, key: &ReceiptKey, token: LeaseToken) -> Result<bool, Fault> {
    let done = sqlx::query(
        "DELETE FROM webhook_receipt
         WHERE tenant = ?1 AND source = ?2 AND message_id = ?3 AND token = ?4 AND answer IS NULL",
    )
    .bind(key.tenant.as_str())
    .bind(key.source.as_str())
    .bind(&key.message_id)
    .bind(token.get())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn forget(conn: &mut SqliteConnection, now: Timestamp, limit: u32) -> Result<u64, Fault> {
    let removed = sqlx::query(
        "DELETE FROM webhook_receipt WHERE (tenant, source, message_id) IN (
           SELECT tenant, source, message_id FROM webhook_receipt WHERE expires_at <= ?1
           ORDER BY expires_at LIMIT ?2)",
    )
    .bind(now.as_millis())
    .bind(limit)
    .execute(conn)
    .await?;
    Ok(removed.rows_affected())
}
