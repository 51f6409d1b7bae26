//! Promises of `ReceiptStore`.

use std::sync::Arc;

use super::scene::{Scene, at};
use crate::store::{LeaseToken, NewReceipt, ReceiptState};
use crate::{ReceiptKey, TenantId, Timestamp};

const ANSWER: &[u8] = b"an \0 answer \xff";

impl Scene {
    fn message(&self, tenant: &TenantId, source: &str, id: &str) -> ReceiptKey {
        let source = source.parse().expect("a legal source");
        ReceiptKey::new(tenant.clone(), source, id).expect("a legal id")
    }

    fn receipt(&self, id: &str, seconds: u64) -> NewReceipt {
        let key = self.message(&self.tenant, "github", id);
        NewReceipt::new(key, [7; 32], self.token(), at(seconds), at(seconds + 30)).with_expires_at(at(seconds + 1_000))
    }

    async fn begin(&self, receipt: &NewReceipt) -> ReceiptState {
        self.store.begin_receipt(receipt).await.expect("the store works")
    }

    async fn complete(&self, receipt: &NewReceipt, answer: &[u8], until: Timestamp) -> bool {
        self.store.complete_receipt(&receipt.key, receipt.token, answer, until).await.expect("the store works")
    }

    async fn fail(&self, key: &ReceiptKey, token: LeaseToken) -> bool {
        self.store.fail_receipt(key, token).await.expect("the store works")
    }
}

pub async fn of_64_concurrent_repeats_of_a_message_exactly_one_is_handled(scene: Scene) {
    let scene = Arc::new(scene);
    let mut repeats = Vec::new();
    for _ in 0..64 {
        let scene = Arc::clone(&scene);
        repeats.push(tokio::spawn(async move {
            let receipt = scene.receipt("msg_1", 0);
            (scene.begin(&receipt).await, receipt)
        }));
    }
    let mut new = Vec::new();
    for repeat in repeats {
        match repeat.await.expect("no panic") {
            (ReceiptState::New, receipt) => new.push(receipt),
            (state, _) => assert_eq!(state, ReceiptState::InProgress(at(30))),
        }
    }
    assert_eq!(new.len(), 1);
    assert!(scene.complete(&new[0], ANSWER, at(500)).await, "the lease is its");
}

pub async fn a_handled_message_gives_its_answer_byte_for_byte(scene: Scene) {
    let receipt = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&receipt).await, ReceiptState::New);
    assert_eq!(scene.begin(&scene.receipt("msg_1", 29)).await, ReceiptState::InProgress(at(30)));
    assert!(scene.complete(&receipt, ANSWER, at(500)).await);
    for seconds in [29, 31, 499] {
        assert_eq!(scene.begin(&scene.receipt("msg_1", seconds)).await, ReceiptState::Handled(ANSWER.to_vec()));
    }
    let empty = scene.receipt("msg_2", 0);
    assert_eq!(scene.begin(&empty).await, ReceiptState::New);
    assert!(scene.complete(&empty, b"", at(500)).await);
    assert_eq!(
        scene.begin(&scene.receipt("msg_2", 100)).await,
        ReceiptState::Handled(Vec::new()),
        "no answer is one too"
    );
}

pub async fn a_message_counts_for_its_tenant_source_and_letters(scene: Scene) {
    let first = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&first).await, ReceiptState::New);
    assert!(scene.complete(&first, ANSWER, at(500)).await);
    let names = [
        scene.message(&scene.stranger, "github", "msg_1"),
        scene.message(&scene.tenant, "stripe", "msg_1"),
        scene.message(&scene.tenant, "github", "MSG_1"),
        scene.message(&scene.tenant, "github", "msg_1 "),
        scene.message(&scene.tenant, "github", "msg_1\0"),
        scene.message(&scene.tenant, "github", "é\u{1F600}'\"\\"),
        scene.message(&scene.tenant, "github", &"x".repeat(255)),
    ];
    for key in names {
        let receipt = NewReceipt { key, token: scene.token(), ..first.clone() };
        assert_eq!(scene.begin(&receipt).await, ReceiptState::New, "{:?}", receipt.key);
        assert_eq!(scene.begin(&receipt).await, ReceiptState::InProgress(at(30)), "{:?}", receipt.key);
    }
}

pub async fn a_lease_that_ended_is_taken_over_and_the_first_handler_fenced(scene: Scene) {
    let first = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&first).await, ReceiptState::New);
    let second = scene.receipt("msg_1", 30);
    assert_eq!(scene.begin(&second).await, ReceiptState::New, "the lease ended just then");
    assert!(!scene.complete(&first, b"late", at(500)).await);
    assert!(!scene.fail(&first.key, first.token).await);
    assert_eq!(scene.begin(&scene.receipt("msg_1", 31)).await, ReceiptState::InProgress(at(60)));
    assert!(scene.complete(&second, ANSWER, at(500)).await);
    assert!(!scene.complete(&second, b"again", at(900)).await, "once");
    assert!(!scene.fail(&second.key, second.token).await, "it was handled");
    assert_eq!(scene.begin(&scene.receipt("msg_1", 32)).await, ReceiptState::Handled(ANSWER.to_vec()));
}

pub async fn a_lease_that_ended_still_counts_while_nobody_took_it_over(scene: Scene) {
    let late = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&late).await, ReceiptState::New);
    assert!(scene.complete(&late, ANSWER, at(500)).await);
    assert_eq!(scene.begin(&scene.receipt("msg_1", 100)).await, ReceiptState::Handled(ANSWER.to_vec()));
}

pub async fn a_failed_message_may_be_tried_again(scene: Scene) {
    let first = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&first).await, ReceiptState::New);
    assert!(!scene.fail(&first.key, scene.token()).await, "another lease");
    assert!(!scene.fail(&scene.message(&scene.stranger, "github", "msg_1"), first.token).await, "another tenant");
    assert_eq!(scene.begin(&scene.receipt("msg_1", 1)).await, ReceiptState::InProgress(at(30)));
    assert!(scene.fail(&first.key, first.token).await);
    let second = NewReceipt { fingerprint: [8; 32], ..scene.receipt("msg_1", 2) };
    assert_eq!(scene.begin(&second).await, ReceiptState::New);
    assert!(!scene.complete(&first, b"late", at(500)).await);
    assert!(scene.complete(&second, ANSWER, at(500)).await);
}

pub async fn another_content_under_a_known_id_is_a_conflict(scene: Scene) {
    let first = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&first).await, ReceiptState::New);
    let other = |seconds| NewReceipt { fingerprint: [8; 32], ..scene.receipt("msg_1", seconds) };
    assert_eq!(scene.begin(&other(1)).await, ReceiptState::Conflict, "while it is handled");
    assert_eq!(scene.begin(&other(31)).await, ReceiptState::Conflict, "after its lease");
    assert!(scene.complete(&first, ANSWER, at(500)).await);
    assert_eq!(scene.begin(&other(32)).await, ReceiptState::Conflict, "and after it");
    assert_eq!(scene.begin(&scene.receipt("msg_1", 33)).await, ReceiptState::Handled(ANSWER.to_vec()));
}

pub async fn a_message_is_forgotten_when_it_has_expired(scene: Scene) {
    let handled = scene.receipt("msg_1", 0);
    assert_eq!(scene.begin(&handled).await, ReceiptState::New);
    assert!(scene.complete(&handled, ANSWER, at(500)).await);
    assert_eq!(scene.begin(&scene.receipt("msg_1", 499)).await, ReceiptState::Handled(ANSWER.to_vec()));
    let again = NewReceipt { fingerprint: [8; 32], ..scene.receipt("msg_1", 500) };
    assert_eq!(scene.begin(&again).await, ReceiptState::New, "nobody had removed it");
    assert_eq!(
        scene.begin(&NewReceipt { token: scene.token(), ..again.clone() }).await,
        ReceiptState::InProgress(at(530))
    );
}

pub async fn expired_messages_are_removed_in_steps(scene: Scene) {
    for number in 0..5 {
        let receipt = scene.receipt(&format!("msg_{number}"), 0);
        assert_eq!(scene.begin(&receipt).await, ReceiptState::New);
        // The last one is never answered, and so expires at 1,000.
        if number < 4 {
            assert!(scene.complete(&receipt, ANSWER, at(100 * (number + 1))).await);
        }
    }
    let forget = async |seconds, limit| scene.store.forget_receipts(at(seconds), limit).await.expect("the store works");
    assert_eq!(forget(99, 10).await, 0);
    assert_eq!(forget(300, 2).await, 2);
    assert_eq!(forget(300, 10).await, 1, "those at just then are over");
    assert_eq!(forget(300, 10).await, 0);
    assert_eq!(scene.begin(&scene.receipt("msg_3", 350)).await, ReceiptState::Handled(ANSWER.to_vec()));
    assert_eq!(forget(1_000, 10).await, 2);
}
