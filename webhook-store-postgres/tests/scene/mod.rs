//! What the tests of this crate have in common.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::Duration;

use bytes::Bytes;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;
use webhook_core::store::{
    AcceptItem, AcceptOutcome, AcceptUnit, ClaimRequest, Claimed, DeliveryStore, EventStore, Inserted, LeaseToken,
    NewDelivery, Room, SubscriptionStore,
};
use webhook_core::{
    DeliveryId, Event, EventId, Generation, Sealed, SubscriptionId, SubscriptionRecord, SubscriptionSettings, Target,
    TenantId, Timestamp,
};
use webhook_store_postgres::{PostgresStore, PostgresStoreOptions};
use webhook_test_servers::TestDatabase;

/// A database of its own, and short names for what happens in it.
pub(crate) struct Scene {
    pub(crate) database: TestDatabase,
}

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(seconds)
}

/// A version 7 UUID of the beginning of time, made greater by `number`.
pub(crate) fn uuid(number: u64) -> Uuid {
    Uuid::from_u128(EventId::floor(at(0)).as_uuid().as_u128() | u128::from(number))
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { database: TestDatabase::fresh() }
    }

    pub(crate) fn options(&self) -> PostgresStoreOptions {
        self.database.url().parse().expect("a URL")
    }

    pub(crate) async fn open(&self) -> PostgresStore {
        PostgresStore::open(self.database.url()).await.expect("the store opens")
    }

    /// The host's own connections to the database.
    pub(crate) async fn host(&self) -> PgPool {
        PgPoolOptions::new().max_connections(4).connect(self.database.url()).await.expect("the host connects")
    }
}

pub(crate) async fn subscribe(store: &PostgresStore, number: u64) -> (SubscriptionId, Generation) {
    let id = SubscriptionId::from_uuid(uuid(number));
    let settings = SubscriptionSettings::new("https://example.com/hook");
    let record = SubscriptionRecord::new(id, TenantId::default(), settings, Sealed::from_bytes(vec![1]), at(0));
    match store.insert_subscription(&record, None).await.expect("the store works") {
        Inserted::Created(generation) => (id, generation),
        other => panic!("not created: {other:?}"),
    }
}

/// So many, and the generation with all of them.
pub(crate) async fn subscribe_many(store: &PostgresStore, count: u64) -> (Vec<SubscriptionId>, Generation) {
    let (mut ids, mut generation) = (Vec::new(), Generation::ZERO);
    for number in 1..=count {
        let (id, latest) = subscribe(store, number).await;
        ids.push(id);
        generation = latest;
    }
    (ids, generation)
}

/// Waits until nobody else is connected: what the others did is in the statistics then.
pub(crate) async fn alone(host: &PgPool) {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(host).await.expect("it answers") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let version = "SELECT current_setting('server_version_num')::int";
    if sqlx::query_scalar::<_, i32>(version).fetch_one(host).await.expect("it answers") < 150_000 {
        // There a process of its own collects the statistics, and shows them half a second old.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
}

/// One event with one delivery; their ids are made from `number`.
pub(crate) fn unit(subscription: SubscriptionId, generation: Generation, number: u64) -> AcceptUnit {
    let tenant = TenantId::default();
    let mut event = Event::new(EventId::from_uuid(uuid(number)), tenant.clone(), at(0));
    event.payload = Bytes::from_static(b"{}");
    let delivery = NewDelivery::new(DeliveryId::from_uuid(uuid(number)), Target::Subscription(subscription));
    AcceptUnit::new(tenant, generation, vec![AcceptItem::new(event, vec![delivery])])
}

pub(crate) async fn accept(store: &PostgresStore, unit: AcceptUnit) {
    let outcomes = store.accept(at(0), &[unit]).await.expect("the store works");
    assert!(matches!(outcomes[..], [AcceptOutcome::Done(_)]), "{outcomes:?}");
}

pub(crate) async fn claim(store: &PostgresStore, now: Timestamp, token: u64) -> Claimed {
    let room = Room::all(1000);
    let request = ClaimRequest::new(now, now + Duration::from_secs(30), LeaseToken::new(token), 1000, &room);
    store.claim(request).await.expect("the store works")
}
