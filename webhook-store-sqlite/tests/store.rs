//! Opening, migrating, closing and restarting a store, and how its writer fails.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use futures_util::future::join_all;
use scene::{Scene, accept, at, claim, subscribe, unit, uuid};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use webhook_core::store::{
    DeliveryStore, EventStore, HistoryStore, MaintenanceStore, NextStep, Outcome, Recorded, SubscriptionStore,
};
use webhook_core::{Attempt, AttemptId, DeliveryState, EventId, StoreError, TenantId};
use webhook_store_sqlite::{OpenError, SqliteStore, SqliteStoreOptions, Synchronous};

#[tokio::test]
async fn only_one_store_has_a_file_open_and_the_next_one_may_when_it_is_closed() {
    let scene = Scene::new();
    let first = scene.open().await;
    let error = SqliteStore::open(&scene.url()).await.expect_err("the file is in use");
    assert!(matches!(error, OpenError::InUse(_)), "{error:?}");
    assert!(error.to_string().contains("hooks.db"), "{error}");
    let again = scene.directory.path().join("again.db");
    std::os::unix::fs::symlink(scene.file(), &again).expect("a link");
    let error = SqliteStore::open(&again.display().to_string()).await.expect_err("the same file by another name");
    assert!(matches!(error, OpenError::InUse(_)), "{error:?}");
    first.close().await.expect("it closes");
    scene.open().await;
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let scene = Scene::new();
    let store = scene.open().await;
    store.close().await.expect("it closes");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.accept(at(0), &[]).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_missing_schema_is_told_and_migrating_mends_it() {
    let scene = Scene::new();
    let options = SqliteStoreOptions::new(scene.file()).with_synchronous(Synchronous::Normal);
    let store = SqliteStore::connect(options).await.expect("it connects");
    assert_eq!(store.schema_version().await.expect("it answers"), None);
    assert!(store.migration_status().await.expect("it answers").iter().all(|migration| !migration.applied));
    let error = store.generations(&[TenantId::default()]).await.expect_err("no tables");
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    let error = store.delete_subscription(&TenantId::default(), subscription(), at(0)).await.expect_err("no tables");
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    for _ in 0..2 {
        store.migrate().await.expect("it migrates");
        assert_eq!(store.schema_version().await.expect("it answers"), Some(3));
    }
    store.ping().await.expect("it works");
}

fn subscription() -> webhook_core::SubscriptionId {
    webhook_core::SubscriptionId::from_uuid(uuid(1))
}

#[tokio::test]
async fn a_missing_file_is_an_error_where_it_must_exist() {
    let scene = Scene::new();
    let error = SqliteStore::connect(SqliteStoreOptions::new(scene.file()).existing_only()).await;
    assert!(matches!(error, Err(OpenError::Store(StoreError::Unavailable(_)))), "{error:?}");
}

#[tokio::test]
async fn the_hosts_own_migrations_live_beside_the_stores() {
    let scene = Scene::new();
    let store = scene.open().await;
    let host = Migrator::with_migrations(vec![Migration::new(
        7,
        "invoice".into(),
        MigrationType::Simple,
        "CREATE TABLE invoice (id INTEGER PRIMARY KEY)".into_sql_str(),
        false,
    )]);
    let pool = scene.host().await;
    host.run(&pool).await.expect("the host migrates");
    store.migrate().await.expect("the store migrates again");
    host.run(&pool).await.expect("the host migrates again");
}

#[tokio::test]
async fn leases_of_the_process_before_are_over_at_once_and_count_as_lost() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    accept(&store, unit(subscription, generation, 2)).await;
    let lease = claim(&store, at(1), 1).await.leases.pop().expect("a lease");
    assert!(claim(&store, at(2), 2).await.leases.is_empty());
    drop(store);

    let store = loop {
        // The last batch of the dropped store may still hold the lock for a moment.
        match SqliteStore::open(&scene.url()).await {
            Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
            other => break other.expect("the store opens"),
        }
    };
    let claimed = claim(&store, at(2), 3).await;
    assert_eq!((claimed.leases.len(), claimed.lost), (1, 1));
    let late = Outcome::new(TenantId::default(), lease.delivery, lease.token, NextStep::RetryAt(at(9)));
    assert_eq!(store.record(at(3), &[late]).await.expect("it works"), [Recorded::Fenced]);
    assert_eq!(store.free_leases(at(3)).await.expect("it works"), 1);
    assert_eq!(claim(&store, at(3), 4).await.lost, 1);
}

#[tokio::test]
async fn a_job_that_fails_takes_no_other_of_its_batch_with_it() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    for number in 100..120 {
        accept(&store, unit(subscription, generation, number)).await;
    }
    let leases = claim(&store, at(1), 1).await.leases;
    assert_eq!(leases.len(), 20);
    let attempt_of = |place: usize, number: u32| {
        let lease = &leases[place];
        let id = AttemptId::from_uuid(uuid(1000 + place as u64));
        let mut attempt = Attempt::new(id, lease.tenant.clone(), lease.delivery, lease.event, at(1));
        attempt.number = number;
        attempt
    };
    let outcome_of = |place: usize, number: u32, next| {
        let lease = &leases[place];
        let mut outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, next);
        outcome.attempt = Some(attempt_of(place, number).into());
        outcome
    };
    let first = outcome_of(0, 1, NextStep::RetryAt(at(1)));
    store.record(at(1), &[first]).await.expect("it works");
    let again = claim(&store, at(1), 2).await.leases.pop().expect("a lease");

    let end = NextStep::End(DeliveryState::Delivered, None);
    // An attempt number that is taken violates the primary key.
    let mut bad = outcome_of(0, 1, end);
    bad.token = again.token;
    let good = (1..20).map(|place| outcome_of(place, 1, end));
    let outcomes: Vec<_> = good.clone().take(10).chain([bad]).chain(good.skip(10)).collect();
    let results = join_all(outcomes.iter().map(|outcome| store.record(at(2), std::slice::from_ref(outcome)))).await;
    for (place, result) in results.into_iter().enumerate() {
        match result {
            Ok(recorded) => assert_eq!((place != 10, recorded), (true, vec![Recorded::Done])),
            Err(error) => assert!(place == 10 && matches!(error, StoreError::Other(_)), "{place}: {error:?}"),
        }
    }
    let untouched = store.delivery(&TenantId::default(), again.delivery).await.expect("it works").expect("there");
    assert_eq!((untouched.state, untouched.attempts), (DeliveryState::Pending, 1));
}

#[tokio::test]
async fn asking_again_with_the_same_events_stores_them_once() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    for _ in 0..2 {
        accept(&store, unit(subscription, generation, 2)).await;
    }
    assert_eq!(claim(&store, at(1), 1).await.leases.len(), 1);
}

#[tokio::test]
async fn batches_of_any_size_are_stored_whole() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    let mut next = 100;
    for size in [1, 2, 3, 63, 64, 65, 127, 200] {
        let units: Vec<_> = (next..next + size).map(|number| unit(subscription, generation, number)).collect();
        store.accept(at(0), &units).await.expect("it works");
        let ids: Vec<_> =
            (next..next + size).map(|number| (TenantId::default(), EventId::from_uuid(uuid(number)))).collect();
        assert_eq!(store.load_events(&ids).await.expect("it works").len() as u64, size);
        next += size;
    }
}
