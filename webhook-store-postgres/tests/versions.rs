//! A process of an earlier version, which goes on while a newer one migrates and works beside it, and what the schema
//! itself refuses, whoever asks for it.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use scene::{Scene, accept, at, claim, subscribe_many, unit, uuid};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr};
use uuid::Uuid;
use webhook_core::store::{AcceptUnit, MaintenanceStore, NewDelivery, SubscriptionStore};
use webhook_core::{DeliveryId, DeliveryState, Generation, SubscriptionId, Target, TenantId};
use webhook_store_postgres::PostgresStore;

/// The schema as the version before fan-outs left it.
async fn migrate_to_3(host: &PgPool) {
    let migrations = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "capture", include_str!("../migrations/0002_capture.sql")),
        (3, "receipts", include_str!("../migrations/0003_receipts.sql")),
    ];
    let migrations = migrations.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.to_vec());
    migrator.dangerous_set_table_name("webhook._migrations");
    migrator.create_schema("webhook");
    migrator.run(host).await.expect("it migrates");
}

/// Accepts an event as that version does; the ids of its deliveries are made from `number`.
async fn accept_as_before(host: &PgPool, subscriptions: &[SubscriptionId], generation: Generation, number: u64) {
    let event = uuid(number);
    let (count, tenant, now) = (subscriptions.len(), TenantId::default(), at(0).as_millis());
    let deliveries: Vec<_> = (1..).take(count).map(|more| uuid(number + more)).collect();
    let targets: Vec<_> = subscriptions.iter().map(|id| id.as_uuid()).collect();
    let stale: Vec<i32> = sqlx::query_scalar(
        "SELECT webhook.accept_1($1, $2, '{0}', $3, $1, '{NULL}', '{text/plain}', $4, '{NULL}', '{false}', $5, $6,
           $7, $8, $9, $10, $11, $11, $12, $13, $14, $15, $16)",
    )
    .bind(vec![tenant.as_str()])
    .bind(vec![generation.get()])
    .bind(vec![event])
    .bind(vec![b"{}".as_slice()])
    .bind(vec![i32::try_from(count).expect("a few")])
    .bind(vec![now])
    .bind(vec![0_i32; count])
    .bind(deliveries)
    .bind(vec![tenant.as_str(); count])
    .bind(vec![event; count])
    .bind(targets)
    .bind(vec![None::<&[u8]>; count])
    .bind(vec![now; count])
    .bind(vec![None::<i64>; count])
    .bind(vec![2_i32; count])
    .bind(vec![now; count])
    .fetch_one(host)
    .await
    .expect("it accepts");
    assert_eq!(stale, [] as [i32; 0]);
}

/// One event to all of them, which this version stores in one row.
fn shared(subscriptions: &[SubscriptionId], generation: Generation, number: u64) -> AcceptUnit {
    let mut shared = unit(subscriptions[0], generation, number);
    shared.items[0].deliveries = (number..)
        .zip(subscriptions)
        .map(|(number, id)| NewDelivery::new(DeliveryId::from_uuid(uuid(number)), Target::Subscription(*id)))
        .collect();
    shared
}

/// Deliveries 128 to 130, to three subscriptions, in one row.
struct Sharing {
    store: PostgresStore,
    host: PgPool,
    /// What 129 goes to; one constructor deletes it.
    deleted: SubscriptionId,
    _scene: Scene,
}

impl Sharing {
    async fn new() -> Self {
        let scene = Scene::new();
        let (store, host) = (scene.open().await, scene.host().await);
        let (subscriptions, generation) = subscribe_many(&store, 3).await;
        accept(&store, shared(&subscriptions, generation, 128)).await;
        Self { store, host, deleted: subscriptions[1], _scene: scene }
    }

    async fn with_one_deleted() -> Self {
        let sharing = Self::new().await;
        let (store, deleted) = (&sharing.store, sharing.deleted);
        assert!(store.delete_subscription(&TenantId::default(), deleted, at(0)).await.expect("it deletes"));
        sharing
    }
}

/// Leases what is due; fails where a delivery is leased a second time.
async fn claim_all(store: &PostgresStore) -> BTreeSet<Uuid> {
    let mut all = BTreeSet::new();
    for token in 1.. {
        let leases = claim(store, at(1), token).await.leases;
        if leases.is_empty() {
            break;
        }
        for lease in leases {
            assert!(all.insert(lease.delivery.as_uuid()), "leased twice: {lease:?}");
        }
    }
    all
}

#[tokio::test]
async fn a_process_of_the_version_before_accepts_while_and_after_a_newer_one_migrates() {
    let scene = Scene::new();
    let host = scene.host().await;
    migrate_to_3(&host).await;
    let store = PostgresStore::connect(scene.options()).await.expect("it connects");
    let (subscriptions, generation) = subscribe_many(&store, 3).await;

    let (done, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let before = tokio::spawn({
        let (host, done, accepted) = (host.clone(), Arc::clone(&done), Arc::clone(&accepted));
        let subscriptions = subscriptions.clone();
        async move {
            while !done.load(Ordering::SeqCst) {
                let number = 1_000 + accepted.load(Ordering::SeqCst) * 64;
                accept_as_before(&host, &subscriptions, generation, number).await;
                accepted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let twenty_more = async || {
        let enough = accepted.load(Ordering::SeqCst) + 20;
        while accepted.load(Ordering::SeqCst) < enough && !before.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    twenty_more().await;
    store.migrate().await.expect("it migrates");
    accept(&store, shared(&subscriptions, generation, 128)).await;
    twenty_more().await;
    done.store(true, Ordering::SeqCst);
    before.await.expect("it accepts all the while");

    let mut expected: BTreeSet<_> = (128..131).map(uuid).collect();
    for number in 0..accepted.load(Ordering::SeqCst) {
        expected.extend((1..4).map(|more| uuid(1_000 + number * 64 + more)));
    }
    assert_eq!(claim_all(&store).await, expected);
}

#[tokio::test]
async fn a_process_of_the_version_before_takes_no_deleted_subscription_with_waiting_deliveries_for_settled() {
    let Sharing { store, host, deleted, _scene } = Sharing::with_one_deleted().await;

    // What that version looks at is not where these deliveries are.
    let settle = "UPDATE webhook.subscription AS s SET settled = true WHERE s.deleted_at IS NOT NULL AND NOT EXISTS
                  (SELECT 1 FROM webhook.delivery AS d WHERE d.state = 0 AND d.target_id = s.id)";
    let settled = async || sqlx::query(settle).execute(&host).await.expect("it updates").rows_affected();
    assert_eq!(settled().await, 0);
    assert_eq!(store.cancel_orphans(at(0), 1).await.expect("it cancels"), 1);
    let state = "SELECT state FROM webhook.delivery WHERE target_id = $1";
    let state: i16 = sqlx::query_scalar(state).bind(deleted.as_uuid()).fetch_one(&host).await.expect("it is there");
    assert_eq!(state, DeliveryState::Cancelled.code());
    assert_eq!(settled().await, 1);
    assert_eq!(claim_all(&store).await, BTreeSet::from([uuid(128), uuid(130)]));
}

#[tokio::test]
async fn a_process_of_the_version_before_removes_no_events_whose_deliveries_it_does_not_see() {
    let Sharing { store, host, _scene, .. } = Sharing::new().await;
    let refused = sqlx::query("DELETE FROM webhook.event").execute(&host).await.expect_err("they are open");
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("23001"), "{refused:?}");
    assert_eq!(claim_all(&store).await, (128..131).map(uuid).collect());
}

#[tokio::test]
async fn a_delivery_that_gets_its_own_row_meanwhile_keeps_its_deleted_subscription_from_being_settled() {
    let Sharing { store, host, deleted, _scene } = Sharing::with_one_deleted().await;

    // Who cancels what waits for it has begun to settle it before the row is gone, and goes on afterwards.
    let mut other = host.begin().await.expect("it begins");
    let locked = "SELECT 1 FROM webhook.subscription WHERE id = $1 FOR UPDATE";
    sqlx::query(locked).bind(deleted.as_uuid()).execute(&mut *other).await.expect("it locks");
    let own = "INSERT INTO webhook.delivery
                 (id, tenant, event_id, target_id, subscription_id, next_at, payload_bytes, created_at)
               SELECT m.delivery_id, f.tenant, f.event_id, m.target_id, m.target_id, f.next_at, f.payload_bytes, f.created_at
               FROM webhook.fan_out AS f CROSS JOIN LATERAL webhook.fan_out_members(f.id, f.open, f.targets) AS m";
    sqlx::query(own).execute(&mut *other).await.expect("it inserts");
    sqlx::query("DELETE FROM webhook.fan_out").execute(&mut *other).await.expect("it deletes");
    let cancelling = tokio::spawn({
        let store = store.clone();
        async move { store.cancel_orphans(at(0), 100).await }
    });
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%settled = true%'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&host).await.expect("it answers") == 0 {
        assert!(!cancelling.is_finished(), "it waits for the subscription");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.commit().await.expect("it commits");
    assert_eq!(cancelling.await.expect("it ends").expect("it cancels"), 0);
    assert_eq!(store.cancel_orphans(at(0), 100).await.expect("it cancels"), 1, "it was looked at again");
    assert_eq!(claim_all(&store).await, BTreeSet::from([uuid(128), uuid(130)]));
}
