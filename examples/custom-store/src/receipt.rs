//! Remembering inbound messages.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use webhook_core::store::{LeaseToken, NewReceipt, ReceiptState, ReceiptStore};
use webhook_core::{ReceiptKey, StoreError, Timestamp};

use crate::JournalStore;
use crate::tables::{Change, Tables};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ReceiptRow {
    pub(crate) key: ReceiptKey,
    fingerprint: [u8; 32],
    token: i64,
    lease_until: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// None while somebody handles it.
    answer: Option<Vec<u8>>,
}

#[async_trait]
impl ReceiptStore for JournalStore {
    async fn begin_receipt(&self, receipt: &NewReceipt) -> Result<ReceiptState, StoreError> {
        self.write(|tx| {
            match tx.tables.receipts.get(&receipt.key).filter(|row| row.expires_at > receipt.now) {
                Some(row) if row.fingerprint != receipt.fingerprint => return ReceiptState::Conflict,
                Some(ReceiptRow { answer: Some(answer), .. }) => return ReceiptState::Handled(answer.clone()),
                Some(row) if row.lease_until > receipt.now => return ReceiptState::InProgress(row.lease_until),
                _ => {}
            }
            tx.put(Change::Receipt(ReceiptRow {
                key: receipt.key.clone(),
                fingerprint: receipt.fingerprint,
                token: receipt.token.get(),
                lease_until: receipt.lease_until,
                expires_at: receipt.expires_at,
                answer: None,
            }));
            ReceiptState::New
        })
    }

    async fn complete_receipt(
        &self,
        key: &ReceiptKey,
        token: LeaseToken,
        answer: &[u8],
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(|tx| {
            let Some(row) = leased(tx.tables, key, token).cloned() else { return false };
            tx.put(Change::Receipt(ReceiptRow { answer: Some(answer.to_vec()), expires_at, ..row }));
            true
        })
    }

    async fn fail_receipt(&self, key: &ReceiptKey, token: LeaseToken) -> Result<bool, StoreError> {
        self.write(|tx| {
            let current = leased(tx.tables, key, token).is_some();
            if current {
                tx.put(Change::ReceiptGone(key.clone()));
            }
            current
        })
    }

    async fn forget_receipts(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(|tx| {
            let expired = tx.tables.receipts.values().filter(|row| row.expires_at <= now).take(limit as usize);
            let expired: Vec<_> = expired.map(|row| row.key.clone()).collect();
            let removed = expired.len() as u64;
            for key in expired {
                tx.put(Change::ReceiptGone(key));
            }
            removed
        })
    }
}

/// The row, if that is its lease and nothing was answered yet.
fn leased<'a>(tables: &'a Tables, key: &ReceiptKey, token: LeaseToken) -> Option<&'a ReceiptRow> {
    tables.receipts.get(key).filter(|row| row.token == token.get() && row.answer.is_none())
}
