//! The memory of inbound messages.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;

use super::MemoryStore;
use crate::store::{LeaseToken, NewReceipt, ReceiptState, ReceiptStore, StoreError};
use crate::{ReceiptKey, Timestamp};

#[derive(Default)]
pub(super) struct Receipts {
    rows: HashMap<ReceiptKey, Row>,
    by_end: BTreeSet<(Timestamp, ReceiptKey)>,
}

struct Row {
    fingerprint: [u8; 32],
    token: LeaseToken,
    lease_until: Timestamp,
    answer: Option<Vec<u8>>,
    expires_at: Timestamp,
}

impl Receipts {
    fn put(&mut self, key: &ReceiptKey, row: Row) {
        self.remove(key);
        self.by_end.insert((row.expires_at, key.clone()));
        self.rows.insert(key.clone(), row);
    }

    fn remove(&mut self, key: &ReceiptKey) {
        if let Some(row) = self.rows.remove(key) {
            self.by_end.remove(&(row.expires_at, key.clone()));
        }
    }

    /// The row, if that is its lease and nothing was answered yet.
    fn leased(&mut self, key: &ReceiptKey, token: LeaseToken) -> Option<&Row> {
        self.rows.get(key).filter(|row| row.token == token && row.answer.is_none())
    }
}

#[async_trait]
impl ReceiptStore for MemoryStore {
    async fn begin_receipt(&self, receipt: &NewReceipt) -> Result<ReceiptState, StoreError> {
        let receipts = &mut self.state().receipts;
        if let Some(row) = receipts.rows.get(&receipt.key).filter(|row| row.expires_at > receipt.now) {
            if row.fingerprint != receipt.fingerprint {
                return Ok(ReceiptState::Conflict);
            }
            if let Some(answer) = &row.answer {
                return Ok(ReceiptState::Handled(answer.clone()));
            }
            if row.lease_until > receipt.now {
                return Ok(ReceiptState::InProgress(row.lease_until));
            }
        }
        let row = Row {
            fingerprint: receipt.fingerprint,
            token: receipt.token,
            lease_until: receipt.lease_until,
            answer: None,
            expires_at: receipt.expires_at,
        };
        receipts.put(&receipt.key, row);
        Ok(ReceiptState::New)
    }

    async fn complete_receipt(
        &self,
        key: &ReceiptKey,
        token: LeaseToken,
        answer: &[u8],
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let receipts = &mut self.state().receipts;
        let Some(Row { fingerprint, lease_until, .. }) = receipts.leased(key, token) else { return Ok(false) };
        let (fingerprint, lease_until) = (*fingerprint, *lease_until);
        receipts.put(key, Row { fingerprint, token, lease_until, answer: Some(answer.to_vec()), expires_at });
        Ok(true)
    }

    async fn fail_receipt(&self, key: &ReceiptKey, token: LeaseToken) -> Result<bool, StoreError> {
        let receipts = &mut self.state().receipts;
        let current = receipts.leased(key, token).is_some();
        if current {
            receipts.remove(key);
        }
        Ok(current)
    }

    async fn forget_receipts(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let receipts = &mut self.state().receipts;
        let expired = receipts.by_end.iter().take_while(|(end, _)| *end <= now).take(limit as usize);
        let expired: Vec<_> = expired.map(|(_, key)| key.clone()).collect();
        for key in &expired {
            receipts.remove(key);
        }
        Ok(expired.len() as u64)
    }
}
