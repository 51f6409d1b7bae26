//! Emitting inside the host's own transactions, on the host's own connections.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scene::{Scene, accept, at, claim, subscribe, unit, uuid};
use webhook_core::store::{AcceptOutcome, EventStore};
use webhook_core::{EventId, Generation, TenantId};
use webhook_store_sqlite::SqliteStore;

#[tokio::test]
async fn an_event_is_accepted_when_the_hosts_transaction_commits_and_not_otherwise() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    let host = scene.host().await;
    let stored = |number| {
        let id = EventId::from_uuid(uuid(number));
        let store = store.clone();
        async move { store.event(&TenantId::default(), id).await.expect("it works").is_some() }
    };

    let mut transaction = host.begin_with("BEGIN IMMEDIATE").await.expect("it begins");
    let outcome = SqliteStore::accept_in(&mut transaction, at(0), &unit(subscription, generation, 2)).await;
    assert!(matches!(outcome, Ok(AcceptOutcome::Done(_))), "{outcome:?}");
    assert!(!stored(2).await);
    transaction.rollback().await.expect("it rolls back");
    assert!(!stored(2).await);

    let mut transaction = host.begin_with("BEGIN IMMEDIATE").await.expect("it begins");
    let outcome = SqliteStore::accept_in(&mut transaction, at(0), &unit(subscription, generation, 3)).await;
    assert!(matches!(outcome, Ok(AcceptOutcome::Done(_))), "{outcome:?}");
    transaction.commit().await.expect("it commits");
    assert!(stored(3).await);
    assert_eq!(claim(&store, at(0), 1).await.leases.len(), 1);
}

#[tokio::test]
async fn a_stale_unit_can_be_matched_again_inside_the_transaction() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (first, generation) = subscribe(&store, 1).await;
    let (second, current) = subscribe(&store, 2).await;
    let mut transaction = scene.host().await.begin_with("BEGIN IMMEDIATE").await.expect("it begins");
    let outcome = SqliteStore::accept_in(&mut transaction, at(0), &unit(first, generation, 3)).await.expect("it works");
    assert_eq!(outcome, AcceptOutcome::Stale);
    let changes = SqliteStore::changes_in(&mut transaction, &TenantId::default(), generation, 100).await;
    let changes = changes.expect("it works");
    assert_eq!((changes.generation, changes.complete), (current, true));
    assert_eq!(changes.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [second]);
    let outcome = SqliteStore::accept_in(&mut transaction, at(0), &unit(second, changes.generation, 3)).await;
    assert!(matches!(outcome, Ok(AcceptOutcome::Done(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_transaction_begun_without_the_write_lock_waits_for_it_before_it_reads() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    let mut transaction = scene.host().await.begin().await.expect("it begins");
    accept(&store, unit(subscription, generation, 2)).await;
    let outcome = SqliteStore::accept_in(&mut transaction, at(0), &unit(subscription, generation, 3)).await;
    assert!(matches!(outcome, Ok(AcceptOutcome::Done(_))), "{outcome:?}");
    transaction.commit().await.expect("it commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn floods_from_both_sides_never_meet_a_busy_database() {
    const TRANSACTIONS: u64 = 60;
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    let host = scene.host().await;
    sqlx::query("CREATE TABLE invoice (id INTEGER PRIMARY KEY)").execute(&host).await.expect("a table");

    let (numbers, over) = (Arc::new(AtomicU64::new(100_000)), Arc::new(AtomicBool::new(false)));
    let flood: Vec<_> = (0..16)
        .map(|_| {
            let (store, numbers, over) = (store.clone(), Arc::clone(&numbers), Arc::clone(&over));
            tokio::spawn(async move {
                let mut accepted = 0;
                while !over.load(Ordering::Relaxed) {
                    accept(&store, unit(subscription, generation, numbers.fetch_add(1, Ordering::Relaxed))).await;
                    accepted += 1;
                }
                accepted
            })
        })
        .collect();
    let transactions: Vec<_> = (0..2)
        .map(|side| {
            let host = host.clone();
            tokio::spawn(async move {
                for number in 0..TRANSACTIONS {
                    let number = 1000 + side * TRANSACTIONS + number;
                    transact(&host, subscription, generation, number).await;
                }
            })
        })
        .collect();
    for transaction in transactions {
        transaction.await.expect("no transaction of the host failed");
    }
    over.store(true, Ordering::Relaxed);
    let mut accepted: u64 = 0;
    for task in flood {
        accepted += task.await.expect("no accept failed");
    }
    let stored: i64 =
        sqlx::query_scalar("SELECT count(*) FROM webhook_delivery").fetch_one(&host).await.expect("a count");
    assert_eq!(stored as u64, accepted + 2 * TRANSACTIONS);
    assert!(accepted >= 16, "the store wrote too: {accepted}");
}

async fn transact(
    host: &sqlx::SqlitePool,
    subscription: webhook_core::SubscriptionId,
    generation: Generation,
    number: u64,
) {
    let mut transaction = host.begin_with("BEGIN IMMEDIATE").await.expect("not busy");
    let insert = sqlx::query("INSERT INTO invoice (id) VALUES (?1)").bind(number as i64);
    insert.execute(&mut *transaction).await.expect("it inserts");
    let outcome = SqliteStore::accept_in(&mut transaction, at(0), &unit(subscription, generation, number)).await;
    assert!(matches!(outcome, Ok(AcceptOutcome::Done(_))), "{outcome:?}");
    transaction.commit().await.expect("it commits");
}
