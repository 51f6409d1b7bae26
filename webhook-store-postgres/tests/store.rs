//! Opening, migrating and closing a store, and sharing a database with the host and with other processes.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use scene::{Scene, accept, alone, at, claim, subscribe, subscribe_many, unit, uuid};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, SqlSafeStr};
use webhook_core::store::{
    AcceptItem, AcceptUnit, AddedDelivery, ClaimRequest, DeliveryStore, EventStore, HistoryStore, Lease, LeaseGrant,
    LeaseToken, MaintenanceStore, NewDelivery, NextStep, Outcome, PruneRequest, Recorded, Release, RetryOutcome, Room,
    SubscriptionStore, TargetEffect,
};
use webhook_core::{Attempt, AttemptId, DeliveryId, DeliveryState, Event, EventId, StoreError, Target, TenantId};
use webhook_store_postgres::{OpenError, PostgresStore};

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let scene = Scene::new();
    let store = scene.open().await;
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.accept(at(0), &[]).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_one_that_is_not_there_is_not() {
    let error = PostgresStore::open("postgres://postgres@127.0.0.1:1/x").await.expect_err("nobody listens");
    assert!(matches!(&error, OpenError::Store(StoreError::Unavailable(_))), "{error:?}");
    let scene = Scene::new();
    let (server, _) = scene.database.url().rsplit_once('/').expect("a URL");
    let error = PostgresStore::open(&format!("{server}/no_such_database")).await.expect_err("there is none");
    assert!(matches!(&error, OpenError::Store(StoreError::Other(_))), "{error:?}");
}

#[tokio::test]
async fn a_missing_schema_is_told_and_migrating_mends_it() {
    let scene = Scene::new();
    let store = PostgresStore::connect(scene.options()).await.expect("it connects");
    assert_eq!(store.schema_version().await.expect("it answers"), None);
    assert!(store.migration_status().await.expect("it answers").iter().all(|migration| !migration.applied));
    let error = store.generations(&[TenantId::default()]).await.expect_err("no tables");
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    let error = store.accept(at(0), &[]).await.expect_err("no function");
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    for _ in 0..2 {
        store.migrate().await.expect("it migrates");
        let status = store.migration_status().await.expect("it answers");
        let newest = status.last().map(|migration| migration.version);
        assert_eq!(store.schema_version().await.expect("it answers"), newest);
    }
    store.ping().await.expect("it works");
}

#[tokio::test]
async fn many_processes_migrate_at_once() {
    let scene = Scene::new();
    let stores = join_all((0..8).map(|_| PostgresStore::open(scene.database.url()))).await;
    for store in stores {
        store.expect("it opens").ping().await.expect("it works");
    }
}

#[tokio::test]
async fn the_hosts_own_migrations_live_beside_the_stores() {
    let scene = Scene::new();
    let host = Migrator::with_migrations(vec![Migration::new(
        7,
        "invoice".into(),
        MigrationType::Simple,
        "CREATE TABLE invoice (id integer PRIMARY KEY)".into_sql_str(),
        false,
    )]);
    let pool = scene.host().await;
    // The host's migration lock is held by somebody all the while: ours is another one.
    let mut holder = pool.acquire().await.expect("a connection");
    sqlx::migrate::Migrate::lock(&mut *holder).await.expect("it locks");
    let store = scene.open().await;
    sqlx::migrate::Migrate::unlock(&mut *holder).await.expect("it unlocks");
    host.run(&pool).await.expect("the host migrates");
    store.migrate().await.expect("the store migrates again");
    host.run(&pool).await.expect("the host migrates again");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let scene = Scene::new();
    let store = scene.open().await;
    let sql = "INSERT INTO webhook._migrations (version, description, success, checksum, execution_time)
               VALUES (9999, 'of tomorrow', true, '', 0)";
    sqlx::query(sql).execute(&scene.host().await).await.expect("it inserts");
    let error = store.migrate().await.expect_err("it is newer");
    assert!(matches!(&error, StoreError::Schema(reason) if reason.contains("9999")), "{error:?}");
}

#[tokio::test]
async fn the_clock_follows_the_database() {
    let scene = Scene::new();
    let store = scene.open().await;
    let clock = store.clock();
    let theirs: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .fetch_one(&scene.host().await)
        .await
        .expect("it answers");
    let apart = (clock.now().as_millis() - theirs).abs();
    assert!(apart < 500, "{apart} ms apart");
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
    for size in [1, 2, 3, 64, 65, 1000] {
        let units: Vec<_> = (next..next + size).map(|number| unit(subscription, generation, number)).collect();
        store.accept(at(0), &units).await.expect("it works");
        let ids: Vec<_> =
            (next..next + size).map(|number| (TenantId::default(), EventId::from_uuid(uuid(number)))).collect();
        assert_eq!(store.load_events(&ids).await.expect("it works").len() as u64, size);
        next += size;
    }
}

#[tokio::test]
async fn a_key_with_a_nul_is_a_key() {
    use webhook_core::store::{AcceptOutcome, IdempotencyKey, ItemOutcome};
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    for number in [2, 3] {
        let mut keyed = unit(subscription, generation, number);
        keyed.items[0].key = Some(IdempotencyKey::new("event", "a\0b".to_owned(), [7; 32], at(1000)));
        let outcomes = store.accept(at(0), &[keyed]).await.expect("it works");
        let AcceptOutcome::Done(items) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(matches!(items[0], ItemOutcome::Duplicate(_)), number == 3, "{items:?}");
    }
}

#[tokio::test]
async fn pruning_spares_what_is_opened_again_at_the_same_moment() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    accept(&store, unit(subscription, generation, 2)).await;
    let lease = claim(&store, at(1), 1).await.leases.pop().expect("a lease");
    let end = NextStep::End(DeliveryState::Exhausted, None);
    store
        .record(at(1), &[Outcome::new(TenantId::default(), lease.delivery, lease.token, end)])
        .await
        .expect("it works");

    // Whoever opens it again has not committed yet when the pruning begins.
    let host = scene.host().await;
    let mut transaction = host.begin().await.expect("it begins");
    let sql = "UPDATE webhook.delivery SET state = 0, completed_at = NULL, next_at = 0 WHERE id = $1";
    sqlx::query(sql).bind(lease.delivery.as_uuid()).execute(&mut *transaction).await.expect("it opens");
    let pruning = tokio::spawn({
        let store = store.clone();
        let request = PruneRequest { ended_before: at(100_000), now: at(100_000), cursor: None, limit: 100 };
        async move { store.prune(request).await.expect("it works") }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&host).await.expect("it answers") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    transaction.commit().await.expect("it commits");
    assert_eq!(pruning.await.expect("it ends").events, 0);
    assert!(store.delivery(&TenantId::default(), lease.delivery).await.expect("it works").is_some());
    assert_eq!(claim(&store, at(100_001), 2).await.leases.len(), 1);
}

#[tokio::test]
async fn deliveries_added_to_an_event_that_is_pruned_meanwhile_are_not_left_alone() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    let mut nobodys = unit(subscription, generation, 2);
    nobodys.items[0].deliveries.clear();
    accept(&store, nobodys).await;
    let event = EventId::from_uuid(uuid(2));
    let added = [AddedDelivery { id: DeliveryId::from_uuid(uuid(3)), event }];
    let request = PruneRequest { ended_before: at(100_000), now: at(100_000), cursor: None, limit: 100 };
    let (tenant, now) = (TenantId::default(), at(100_000));
    let (added, pruned) = tokio::join!(store.add_deliveries(&tenant, subscription, &added, now), store.prune(request));
    let there = store.event(&tenant, event).await.expect("it works").is_some();
    match (added.expect("it works"), pruned.expect("it works").events) {
        (1, 0) => assert!(there),
        (0, 1) => assert!(!there),
        other => panic!("both or neither: {other:?}"),
    }
}

/// Events with many deliveries that are still open are looked at few at a time: each of them is read.
#[tokio::test]
async fn a_step_of_pruning_looks_at_a_bounded_number_of_deliveries() {
    const EVENTS: u64 = 7;
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    for number in 2..2 + EVENTS {
        accept(&store, unit(subscription, generation, number)).await;
    }
    let host = scene.host().await;
    sqlx::query("UPDATE webhook.event SET deliveries = 20000").execute(&host).await.expect("it updates");
    let mut request = PruneRequest { ended_before: at(100_000), now: at(100_000), cursor: None, limit: 100 };
    let mut last = Vec::new();
    loop {
        let step = store.prune(request).await.expect("it works");
        assert_eq!(step.events, 0);
        request.cursor = step.cursor;
        let Some(cursor) = step.cursor else { break };
        last.push(cursor.as_uuid());
    }
    // Three by three, and the rest.
    assert_eq!(last, [uuid(4), uuid(7)]);
}

#[tokio::test]
async fn retry_waits_for_nobody_who_claims() {
    let scene = Scene::new();
    let (store, other) = (scene.open().await, scene.open().await);
    let (subscription, generation) = subscribe(&store, 1).await;
    for number in 10..60 {
        accept(&store, unit(subscription, generation, number)).await;
    }
    let retries = join_all((10..60).map(|number| {
        let store = store.clone();
        async move { store.retry(&TenantId::default(), DeliveryId::from_uuid(uuid(number)), at(1)).await }
    }));
    let claims = join_all((0..10).map(|token| claim(&other, at(1), token + 1)));
    let (retries, claims) = tokio::join!(retries, claims);
    for retried in retries {
        assert!(matches!(retried, Ok(RetryOutcome::Done | RetryOutcome::Leased)), "{retried:?}");
    }
    // What was locked for a moment is skipped, and there the next time.
    let rest = claim(&other, at(1), 99).await.leases.len();
    assert_eq!(claims.iter().map(|claimed| claimed.leases.len()).sum::<usize>() + rest, 50);
}

/// What is opened again for a subscription that is deleted at that moment would never be cancelled.
#[tokio::test]
async fn retry_and_the_deletion_of_the_subscription_leave_nothing_open() {
    let scene = Scene::new();
    let store = scene.open().await;
    let host = scene.host().await;
    let (subscription, generation) = subscribe(&store, 1).await;
    accept(&store, unit(subscription, generation, 10)).await;
    let lease = claim(&store, at(1), 1).await.leases.remove(0);
    let failed = NextStep::End(DeliveryState::Exhausted, None);
    let outcome = Outcome::new(TenantId::default(), lease.delivery, lease.token, failed);
    assert_eq!(store.record(at(1), &[outcome]).await.expect("it works"), [Recorded::Done]);

    // Retry has looked at the subscription, and waits for the delivery.
    let mut other = host.begin().await.expect("it begins");
    sqlx::query("SELECT 1 FROM webhook.delivery FOR UPDATE").execute(&mut *other).await.expect("it locks");
    let retrying = tokio::spawn({
        let (store, delivery) = (store.clone(), lease.delivery);
        async move { store.retry(&TenantId::default(), delivery, at(2)).await }
    });
    while waiting(&host).await == 0 {
        assert!(!retrying.is_finished(), "it waits for the delivery");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let deleting = tokio::spawn({
        let store = store.clone();
        async move {
            assert!(store.delete_subscription(&TenantId::default(), subscription, at(3)).await.expect("it deletes"));
            store.cancel_orphans(at(3), 100).await.expect("it cancels")
        }
    });
    while waiting(&host).await < 2 && !deleting.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.commit().await.expect("it commits");
    assert_eq!(retrying.await.expect("it ends").expect("it works"), RetryOutcome::Done);
    deleting.await.expect("it ends");
    store.cancel_orphans(at(4), 100).await.expect("it cancels");
    let open = "SELECT count(*) FROM webhook.delivery WHERE state = 0";
    assert_eq!(sqlx::query_scalar::<_, i64>(open).fetch_one(&host).await.expect("it answers"), 0);
}

/// How many wait for a lock.
async fn waiting(host: &PgPool) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    sqlx::query_scalar(sql).fetch_one(host).await.expect("it answers")
}

/// Those who accept events of several tenants lock them in another order than that of their names.
#[tokio::test]
async fn whoever_disables_subscriptions_of_several_tenants_waits_before_it_locks_any_other() {
    let scene = Scene::new();
    let store = scene.open().await;
    let host = scene.host().await;
    let swapped = "SELECT 'a', b FROM generate_series(1, 100) AS n, concat('b', n) AS b
        WHERE webhook.tenant_lock(b) < webhook.tenant_lock('a') LIMIT 1";
    let (a, b): (String, String) = sqlx::query_as(swapped).fetch_one(&host).await.expect("there is one");
    let mut other = host.begin().await.expect("it begins");
    let lock = "SELECT pg_advisory_xact_lock(webhook.tenant_lock($1))";
    sqlx::query(lock).bind(&b).execute(&mut *other).await.expect("it locks");

    let gone = [a, b].map(|tenant| {
        let (tenant, end) = (tenant.parse().expect("a tenant"), NextStep::End(DeliveryState::Cancelled, None));
        let mut outcome = Outcome::new(tenant, DeliveryId::from_uuid(uuid(1)), LeaseToken::new(1), end);
        outcome.effect = TargetEffect::DisableGone;
        outcome
    });
    let recording = tokio::spawn(async move { store.record(at(1), &gone).await });
    let locks = "SELECT count(*) FILTER (WHERE granted), count(*) FILTER (WHERE NOT granted) FROM pg_locks
        WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    loop {
        match sqlx::query_as::<_, (i64, i64)>(locks).fetch_one(&mut *other).await.expect("it answers") {
            (held, 1) => break assert_eq!(held, 0, "it waits for the second with the first in its hands"),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    other.commit().await.expect("it commits");
    recording.await.expect("it ends").expect("it works");
}

/// How often each index of fan-outs was used.
async fn scans(host: &PgPool) -> BTreeMap<String, i64> {
    alone(host).await;
    let sql = "SELECT indexrelname::text, idx_scan FROM pg_stat_user_indexes WHERE relname = 'fan_out'";
    sqlx::query_as::<_, (String, i64)>(sql).fetch_all(host).await.expect("it answers").into_iter().collect()
}

/// A plan that is made while few share rows is kept when many do: it must not go through all of another index.
#[tokio::test]
async fn deliveries_that_share_a_row_are_found_by_their_ids_whatever_the_table_looked_like() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscriptions, generation) = subscribe_many(&store, 4).await;
    store.close().await;
    let host = PgPoolOptions::new().max_connections(1).connect(scene.database.url()).await.expect("the host connects");
    let fill = "INSERT INTO webhook.fan_out (id, event_id, line, open, next_at, created_at, payload_bytes, tenant, targets)
        SELECT lpad(to_hex(64 * n), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid, gen_random_uuid(), 3, n, n, 1, 'default',
          repeat('x', 800)::bytea FROM generate_series(1, 4000) AS n";
    // As after a busy hour.
    for sql in [fill, "VACUUM ANALYZE webhook.fan_out", "DELETE FROM webhook.fan_out", "VACUUM ANALYZE webhook.fan_out"]
    {
        sqlx::query(sql).execute(&host).await.expect("it works");
    }
    let before = scans(&host).await;

    let store = PostgresStore::connect(scene.options()).await.expect("it connects");
    let nobodys = (DeliveryId::from_uuid(uuid(1)), LeaseToken::new(1));
    let room = Room::all(10);
    let request = || ClaimRequest::new(at(1), at(31), LeaseToken::new(1), 10, &room);
    assert!(store.claim_ids(request(), &[nobodys.0]).await.expect("it works").leases.is_empty());
    let step = NextStep::End(DeliveryState::Delivered, None);
    let outcome = Outcome::new(TenantId::default(), nobodys.0, nobodys.1, step);
    assert_eq!(store.record(at(1), &[outcome]).await.expect("it works"), [Recorded::Fenced]);
    store.release(&[Release { delivery: nobodys.0, token: nobodys.1, due: at(1) }]).await.expect("it works");

    let event = Event::new(EventId::from_uuid(uuid(64)), TenantId::default(), at(0));
    let ids: Vec<_> = (64..68).map(|number| DeliveryId::from_uuid(uuid(number))).collect();
    let deliveries = ids.iter().zip(&subscriptions).map(|(id, to)| NewDelivery::new(*id, Target::Subscription(*to)));
    let item = AcceptItem::new(event, deliveries.collect());
    accept(&store, AcceptUnit::new(TenantId::default(), generation, vec![item])).await;
    let leases = store.claim_ids(request(), &ids).await.expect("it works").leases;
    assert_eq!(leases.len(), 4);
    let outcome = |position: usize| delivered(&leases[position], 100 + position as u64);
    assert_eq!(store.record(at(2), &[outcome(0)]).await.expect("it works"), [Recorded::Done]);
    let given_back = Release { delivery: leases[1].delivery, token: leases[1].token, due: at(3) };
    store.release(&[given_back]).await.expect("it works");
    assert_eq!(store.record(at(2), &[outcome(2), outcome(3)]).await.expect("it works"), [Recorded::Done; 2]);
    store.close().await;

    let mut used = scans(&host).await;
    used.iter_mut().for_each(|(index, scans)| *scans -= before[index]);
    assert!(used["fan_out_pkey"] >= 4, "{used:?}");
    for index in ["fan_out_list", "fan_out_lease", "fan_out_line", "fan_out_event"] {
        assert_eq!(used[index], 0, "{used:?}");
    }
}

/// An attempt of this lease succeeded.
fn delivered(lease: &Lease, number: u64) -> Outcome {
    let step = NextStep::End(DeliveryState::Delivered, None);
    let mut outcome = Outcome::new(lease.tenant.clone(), lease.delivery, lease.token, step);
    let id = AttemptId::from_uuid(uuid(number));
    let mut attempt = Attempt::new(id, lease.tenant.clone(), lease.delivery, lease.event, at(1));
    attempt.subscription_id = lease.target.subscription();
    outcome.attempt = Some(Arc::new(attempt));
    outcome
}

/// Whoever needs several shared rows locks them in the order of their ids, or two would wait for each other.
#[tokio::test]
async fn results_of_two_leases_of_one_event_lock_its_rows_in_order() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (subscriptions, generation) = subscribe_many(&store, 4).await;
    // The first and third are leased at once, the others by a claim.
    let event = Event::new(EventId::from_uuid(uuid(64)), TenantId::default(), at(0));
    let mut deliveries = Vec::new();
    for (number, to) in (64..).zip(&subscriptions) {
        let mut delivery = NewDelivery::new(DeliveryId::from_uuid(uuid(number)), Target::Subscription(*to));
        delivery.lease = (number % 2 == 0).then_some(LeaseGrant { token: LeaseToken::new(1), until: at(30) });
        deliveries.push(delivery);
    }
    let unit = AcceptUnit::new(TenantId::default(), generation, vec![AcceptItem::new(event, deliveries)]);
    accept(&store, unit).await;
    let claimed = claim(&store, at(1), 2).await.leases;
    assert_eq!(claimed.len(), 2);
    let mut granted = claimed[0].clone();
    (granted.delivery, granted.token) = (DeliveryId::from_uuid(uuid(66)), LeaseToken::new(1));
    granted.target = Target::Subscription(subscriptions[2]);

    let host = scene.host().await;
    let mut holder = host.begin().await.expect("it begins");
    let lock = "SELECT id FROM webhook.fan_out WHERE id = $1 FOR UPDATE NOWAIT";
    sqlx::query(lock).bind(uuid(64)).fetch_one(&mut *holder).await.expect("nobody holds it");
    let outcomes = [delivered(&claimed[0], 101), delivered(&granted, 102)];
    let recording = tokio::spawn({
        let store = store.clone();
        async move { store.record(at(2), &outcomes).await }
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&host).await.expect("it answers") == 0 {
        assert!(!recording.is_finished(), "it waits for the first row");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::query(lock).bind(uuid(65)).fetch_one(&mut *holder).await.expect("it holds no later row while it waits");
    holder.rollback().await.expect("it lets go");
    let recorded = recording.await.expect("it ends").expect("it works");
    assert_eq!(recorded, [Recorded::Done; 2]);
}

/// A worker does nothing but claim, and its leases are to end when the database's time says so.
#[tokio::test]
async fn the_clock_of_whoever_only_claims_follows_the_database_too() {
    let scene = Scene::new();
    let host = scene.host().await;
    let database: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&host).await.expect("a name");
    for sql in [
        "CREATE TABLE public.shift AS SELECT interval '0' AS by".to_owned(),
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS 'SELECT pg_catalog.clock_timestamp() + (SELECT by FROM public.shift)'"
            .to_owned(),
        format!("ALTER DATABASE \"{database}\" SET search_path = public, pg_catalog"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&host).await.expect("it works");
    }
    let store = scene.open().await;
    let before = store.clock().now();
    sqlx::query("UPDATE public.shift SET by = '1 hour'").execute(&host).await.expect("it works");
    let begun = tokio::time::Instant::now();
    for token in 1.. {
        claim(&store, store.clock().now(), token).await;
        if store.clock().now().since(before) > Duration::from_secs(3_599) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the database's time is an hour later");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
