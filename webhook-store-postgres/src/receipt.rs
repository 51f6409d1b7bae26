//! Remembering inbound messages.

use async_trait::async_trait;
use sqlx::Row;
use webhook_core::store::{LeaseToken, NewReceipt, ReceiptState, ReceiptStore};
use webhook_core::{ReceiptKey, StoreError, Timestamp};

use crate::error::Fault;
use crate::rows;
use crate::session::Begin;
use crate::session::Conn;
use crate::store::PostgresStore;

#[async_trait]
impl ReceiptStore for PostgresStore {
    async fn begin_receipt(&self, receipt: &NewReceipt) -> Result<ReceiptState, StoreError> {
        let mut session = self.writer().await?;
        let state = begin(&mut session.conn(), receipt).await;
        self.end(session, state).await
    }

    async fn complete_receipt(
        &self,
        key: &ReceiptKey,
        token: LeaseToken,
        answer: &[u8],
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut session = self.writer().await?;
        let done = complete(&mut session.conn(), key, token, answer, expires_at).await;
        self.end(session, done).await
    }

    async fn fail_receipt(&self, key: &ReceiptKey, token: LeaseToken) -> Result<bool, StoreError> {
        let mut session = self.writer().await?;
        let done = fail(&mut session.conn(), key, token).await;
        self.end(session, done).await
    }

    async fn forget_receipts(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut session = self.worker_writer(Begin::Relaxed).await?;
        let removed = forget(&mut session.conn(), now, limit).await;
        self.end(session, removed).await
    }
}

/// Takes the lease where the message is unknown, has expired, or was left alone by whoever handled it. The row is locked
/// from then on, and what is read of it is what stands when the transaction commits.
async fn begin(conn: &mut Conn<'_>, receipt: &NewReceipt) -> Result<ReceiptState, Fault> {
    loop {
        let taken = sqlx::query(
            "INSERT INTO webhook.receipt AS r (tenant, source, message_id, fingerprint, token, lease_until, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant, source, message_id) DO UPDATE SET
               fingerprint = excluded.fingerprint, token = excluded.token, lease_until = excluded.lease_until,
               expires_at = excluded.expires_at, answer = NULL
             WHERE r.expires_at <= $8
                OR (r.answer IS NULL AND r.lease_until <= $8 AND r.fingerprint = excluded.fingerprint)",
        )
        .bind(receipt.key.tenant.as_str())
        .bind(receipt.key.source.as_str())
        .bind(receipt.key.message_id.as_bytes())
        .bind(receipt.fingerprint.as_slice())
        .bind(receipt.token.get())
        .bind(receipt.lease_until.as_millis())
        .bind(receipt.expires_at.as_millis())
        .bind(receipt.now.as_millis())
        .persistent(conn.persistent)
        .execute(&mut *conn.inner)
        .await?;
        if taken.rows_affected() > 0 {
            return Ok(ReceiptState::New);
        }
        let known = sqlx::query(
            "SELECT fingerprint, lease_until, answer FROM webhook.receipt
             WHERE tenant = $1 AND source = $2 AND message_id = $3",
        )
        .bind(receipt.key.tenant.as_str())
        .bind(receipt.key.source.as_str())
        .bind(receipt.key.message_id.as_bytes())
        .persistent(conn.persistent)
        .fetch_optional(&mut *conn.inner)
        .await?;
        // Behind a conflict that changed nothing the row is locked, and cannot be gone.
        let Some(known) = known else { continue };
        let fingerprint: Vec<u8> = known.try_get("fingerprint")?;
        let answer: Option<Vec<u8>> = known.try_get("answer")?;
        return Ok(match answer {
            _ if fingerprint != receipt.fingerprint => ReceiptState::Conflict,
            Some(answer) => ReceiptState::Handled(answer),
            None => ReceiptState::InProgress(rows::time(&known, "lease_until")?),
        });
    }
}

async fn complete(
    conn: &mut Conn<'_>,
    key: &ReceiptKey,
    token: LeaseToken,
    answer: &[u8],
    expires_at: Timestamp,
) -> Result<bool, Fault> {
    let done = sqlx::query(
        "UPDATE webhook.receipt SET answer = $5, expires_at = $6
         WHERE tenant = $1 AND source = $2 AND message_id = $3 AND token = $4 AND answer IS NULL",
    )
    .bind(key.tenant.as_str())
    .bind(key.source.as_str())
    .bind(key.message_id.as_bytes())
    .bind(token.get())
    .bind(answer)
    .bind(expires_at.as_millis())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn fail(conn: &mut Conn<'_>, key: &ReceiptKey, token: LeaseToken) -> Result<bool, Fault> {
    let done = sqlx::query(
        "DELETE FROM webhook.receipt
         WHERE tenant = $1 AND source = $2 AND message_id = $3 AND token = $4 AND answer IS NULL",
    )
    .bind(key.tenant.as_str())
    .bind(key.source.as_str())
    .bind(key.message_id.as_bytes())
    .bind(token.get())
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(done.rows_affected() > 0)
}

async fn forget(conn: &mut Conn<'_>, now: Timestamp, limit: u32) -> Result<u64, Fault> {
    let removed = sqlx::query(
        "DELETE FROM webhook.receipt WHERE (tenant, source, message_id) IN (
           SELECT tenant, source, message_id FROM webhook.receipt WHERE expires_at <= $1
           ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(now.as_millis())
    .bind(i64::from(limit))
    .persistent(conn.persistent)
    .execute(&mut *conn.inner)
    .await?;
    Ok(removed.rows_affected())
}
