//! A database that dies, comes back, and swallows answers: nothing accepted is lost, nothing is invented.

#![expect(clippy::expect_used, clippy::panic, reason = "a broken test panics")]

mod scene;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use scene::{accept, at, claim, subscribe, unit, uuid};
use tokio_util::sync::CancellationToken;
use webhook_core::store::{AcceptOutcome, EventStore, MaintenanceStore, SubscriptionStore};
use webhook_core::transport::RecordingTransport;
use webhook_core::{EventId, NewEvent, Options, Role, Signal, StoreError, SubscriptionDraft, TenantId, Webhooks};
use webhook_store_postgres::{PostgresStore, PostgresStoreOptions};
use webhook_test_servers::{FaultProxy, PgBouncer, PostgresServer};

/// Asks again until the database answers.
async fn back(store: &PostgresStore) {
    for _ in 0..600 {
        if store.ping().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the database does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_by_asking_again() {
    let server = PostgresServer::start();
    let proxy = FaultProxy::start(server.addr());
    let store = PostgresStore::open(&proxy.rewrite(&server.url())).await.expect("it opens");
    let (subscription, generation) = subscribe(&store, 1).await;
    accept(&store, unit(subscription, generation, 2)).await;
    let mut third = unit(subscription, generation, 3);
    third.items[0].event.payload = bytes::Bytes::from_static(b"needle");
    proxy.swallow_answer_to("needle");
    let lost = store.accept(at(0), std::slice::from_ref(&third)).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    assert_eq!(proxy.swallowed(), 1);
    back(&store).await;
    accept(&store, third).await;
    let ids = [2, 3].map(|number| (TenantId::default(), EventId::from_uuid(uuid(number))));
    assert_eq!(store.load_events(&ids).await.expect("it works").len(), 2);
    assert_eq!(claim(&store, at(1), 1).await.leases.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_said_soon_and_found_again() {
    let server = PostgresServer::start();
    let options: PostgresStoreOptions = server.url().parse().expect("a URL");
    let store =
        PostgresStore::connect(options.with_acquire_timeout(Duration::from_millis(500))).await.expect("it connects");
    store.migrate().await.expect("it migrates");
    for stop in [PostgresServer::kill, PostgresServer::stop_immediate, PostgresServer::stop_fast] {
        stop(&server);
        for _ in 0..3 {
            let error = store.generations(&[TenantId::default()]).await.expect_err("it is away");
            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        }
        server.restart();
        back(&store).await;
    }
    // Every connection of the pool is broken at once, and only the first call finds out.
    join_all((0..16).map(|_| store.ping())).await;
    server.kill_one_backend();
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(store.ping().await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    back(&store).await;
    assert!(failed < 100, "it came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_heard_again_after_the_connection_was_lost() {
    let server = PostgresServer::start();
    let proxy = FaultProxy::start(server.addr());
    let store = PostgresStore::open(&proxy.rewrite(&server.url())).await.expect("it opens");
    let notifier = store.notifier().expect("it has one");
    let (heard, mut signals) = tokio::sync::mpsc::unbounded_channel();
    let listening = tokio::spawn({
        let notifier = Arc::clone(&notifier);
        async move {
            loop {
                notifier.listen(&|signal| drop(heard.send(signal))).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let mut next = async |expected: Signal| loop {
        let signal = tokio::time::timeout(Duration::from_secs(30), signals.recv()).await.expect("in time");
        if signal.expect("it listens") == expected {
            return;
        }
    };
    next(Signal::Missed).await;
    let changed = Signal::SubscriptionsChanged("acme".parse().expect("a tenant"));
    notifier.publish(&[Signal::Due, changed.clone()]).await.expect("it says so");
    next(Signal::Due).await;
    next(changed).await;
    server.kill_one_backend();
    next(Signal::Missed).await;
    back(&store).await;
    notifier.publish(&[Signal::Due]).await.expect("it says so");
    next(Signal::Due).await;
    // A connection that the network has forgotten looks as if nobody said anything.
    proxy.strand();
    next(Signal::Missed).await;
    listening.abort();
}

/// An engine goes on emitting and delivering while its database is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_database_nothing_accepted_is_lost() {
    const EVENTS: usize = 600;
    let server = Arc::new(PostgresServer::start());
    let store = PostgresStore::open(&server.url()).await.expect("it opens");
    let transport = RecordingTransport::new();
    let mut options = Options::default();
    // So that leases lost with the database's last, unflushed commits are over soon.
    (options.timeout, options.max_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    options.lease_margin = Duration::from_secs(2);
    let webhooks = Webhooks::builder(Arc::new(store.clone()))
        .transport(Arc::new(transport.clone()))
        .options(options)
        .build()
        .expect("it builds");
    let tenant = TenantId::default();
    let draft = SubscriptionDraft::new("https://example.com/hook");
    webhooks.subscribe(&tenant, draft).await.expect("it subscribes");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (webhooks, shutdown) = (webhooks.clone(), shutdown.clone());
        async move { webhooks.run(Role::Worker, shutdown).await }
    });

    let over = Arc::new(AtomicBool::new(false));
    let trouble = tokio::task::spawn_blocking({
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        move || {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(700));
                match rounds % 4 {
                    0 => drop(server.kill_one_backend()),
                    1 => server.kill(),
                    2 => server.stop_immediate(),
                    _ => server.stop_fast(),
                }
                if rounds % 4 != 0 {
                    server.restart();
                }
                rounds += 1;
            }
            rounds
        }
    });
    let callers = (0..8).map(|caller| {
        let (webhooks, tenant) = (webhooks.clone(), tenant.clone());
        tokio::spawn(async move {
            let mut accepted = HashMap::new();
            for number in (caller..EVENTS).step_by(8) {
                // Slowly enough for trouble to strike in between.
                tokio::time::sleep(Duration::from_millis(60)).await;
                let event = NewEvent::new("a.b".parse().expect("a type"), number.to_string());
                let event = event.with_key(format!("event-{number}"));
                loop {
                    match webhooks.emit(&tenant, event.clone()).await {
                        Ok(emitted) => {
                            accepted.insert(number, emitted.id);
                            break;
                        }
                        // It may have happened all the same: the key tells when asked again.
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            }
            accepted
        })
    });
    let mut accepted = HashMap::new();
    for caller in futures_util::future::join_all(callers).await {
        accepted.extend(caller.expect("no caller panics"));
    }
    over.store(true, Ordering::Relaxed);
    let rounds = trouble.await.expect("no panic");
    assert_eq!(accepted.len(), EVENTS);
    assert!(rounds >= 4, "{rounds} times the database was in trouble");

    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let arrived = || {
        let bodies = transport.requests().into_iter().map(|request| {
            let number: usize = String::from_utf8_lossy(&request.body).parse().expect("a number");
            assert_eq!(request.headers["webhook-id"], accepted[&number].to_string(), "nothing is invented");
            number
        });
        bodies.collect::<HashSet<_>>().len()
    };
    while arrived() < EVENTS {
        assert!(tokio::time::Instant::now() < deadline, "{} of {EVENTS} arrived", arrived());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    running.await.expect("it stops");
    let sent = transport.requests().len();
    println!("{rounds} faults; {EVENTS} events accepted and delivered, {} sent twice", sent - EVENTS);
    let host = sqlx::PgPool::connect(&server.url()).await.expect("the host connects");
    let count: (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM webhook.event), (SELECT count(*) FROM webhook.delivery)")
            .fetch_one(&host)
            .await
            .expect("it answers");
    assert_eq!(count, (EVENTS as i64, EVENTS as i64), "one event and one delivery for each key");
}

/// Found by chaos: each connection that the network had forgotten was found out by a call that waited for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_one_call_without_an_answer_no_other_forgotten_connection_is_trusted() {
    let server = PostgresServer::start();
    let proxy = FaultProxy::start(server.addr());
    let store = PostgresStore::open(&proxy.rewrite(&server.url())).await.expect("it opens");
    // As many connections as the pool has.
    join_all((0..64).map(|_| store.ping())).await;
    proxy.strand();
    let unanswered = tokio::time::timeout(Duration::from_secs(1), store.generations(&[TenantId::default()])).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    let begun = tokio::time::Instant::now();
    for _ in 0..200 {
        let answer = tokio::time::timeout(Duration::from_secs(5), store.generations(&[TenantId::default()])).await;
        assert!(answer.is_ok(), "a call waits though connections are known to be forgotten");
        if matches!(answer, Ok(Ok(_))) {
            println!("answered again after {:?}", begun.elapsed());
            return;
        }
    }
    panic!("no connection works again");
}

/// All of them were in use when the network forgot them, half of them while a transaction began. The calls were given up, and
/// the connections too, soon after: the pool would have no place for others. With TLS too, where even closing such a
/// connection may wait for the other side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_in_use_when_the_network_forgot_them_are_replaced() {
    let server = PostgresServer::start();
    replaces_forgotten_connections(&server, &server.url()).await;
    use_tls(&server);
    replaces_forgotten_connections(&server, &format!("{}?sslmode=require", server.url())).await;
}

async fn replaces_forgotten_connections(server: &PostgresServer, url: &str) {
    const SOON: Duration = Duration::from_secs(15);
    let proxy = FaultProxy::start(server.addr());
    let store = PostgresStore::open(&proxy.rewrite(url)).await.expect("it opens");
    join_all((0..64).map(|_| store.ping())).await;
    proxy.strand();
    let tenants = [TenantId::default()];
    let calls = (0..32).map(|n| {
        let (store, tenants) = (&store, &tenants);
        let wait = Duration::from_secs(1);
        async move {
            tokio::join!(
                tokio::time::timeout(wait, store.generations(tenants)),
                tokio::time::timeout(wait, subscribe(store, 100 + n)),
            )
        }
    });
    let calls = join_all(calls).await;
    assert!(calls.iter().all(|(read, changed)| read.is_err() && changed.is_err()), "{calls:?}");
    let works = async { while store.generations(&tenants).await.is_err() {} };
    tokio::time::timeout(SOON, works).await.expect("others have taken their place");
    store.close().await;
}

/// With a certificate of its own, which the server writes itself, so that nobody else can read the key.
fn use_tls(server: &PostgresServer) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate is made");
    let files = [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())];
    for (file, pem) in files {
        let lines = format!("SELECT unnest(string_to_array('{pem}', E'\\n'))");
        server.sql(&server.url(), &format!("COPY ({lines}) TO PROGRAM 'umask 077 && cat > {file}'"));
    }
    server.sql(&server.url(), "ALTER SYSTEM SET ssl = on");
    server.sql(&server.url(), "SELECT pg_reload_conf()");
    while server.sql(&server.url(), "SHOW ssl").trim() != "on" {}
}

/// Who gives up while a transaction begins leaves it open: nobody else gets that connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_given_up_while_it_began_is_not_left_to_the_next_caller() {
    const OPEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    let server = PostgresServer::start();
    let store = PostgresStore::open(&server.url()).await.expect("it opens");
    join_all((0..64).map(|_| store.ping())).await;
    server.pause();
    let given_up = (0..20).map(|n| tokio::time::timeout(Duration::from_millis(300), subscribe(&store, n)));
    assert!(join_all(given_up).await.iter().all(Result::is_err));
    server.resume();
    let closed = async {
        while server.sql(&server.url(), OPEN).trim() != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("none stays open");
    subscribe(&store, 100).await;
    assert_eq!(server.sql(&server.url(), "SELECT count(*) FROM webhook.subscription").trim(), "1", "it is committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_isolation_the_database_has_by_default_everything_works() {
    const CALLERS: u64 = 8;
    let server = PostgresServer::start();
    let pooler = PgBouncer::start(server.addr(), 10);
    for level in ["serializable", "repeatable read"] {
        let database = level.replace(' ', "_");
        server.sql(&server.url(), &format!("CREATE DATABASE {database}"));
        server.sql(&server.url(), &format!("ALTER DATABASE {database} SET default_transaction_isolation = '{level}'"));
        let url = format!("postgres://postgres@{}/{database}", server.addr());
        let direct: PostgresStoreOptions = url.parse().expect("a URL");
        let pooled: PostgresStoreOptions = pooler.rewrite(&url).parse().expect("a URL");
        for (part, options) in [(1, direct), (2, pooled.behind_pooler())] {
            let store = PostgresStore::connect(options).await.expect("it connects");
            // All at once: at these levels most of them would be told to try again.
            join_all((0..CALLERS).map(|_| store.migrate())).await.into_iter().collect::<Result<(), _>>().expect(level);
            let (subscription, _) = subscribe(&store, part).await;
            let generation = store.generations(&[TenantId::default()]).await.expect("it works")[0];
            let units: Vec<_> = (0..CALLERS).map(|n| [unit(subscription, generation, 100 * part + n)]).collect();
            let accepted = join_all(units.iter().map(|unit| store.accept(at(0), unit))).await;
            for outcome in accepted {
                let outcome = outcome.expect(level);
                assert!(matches!(outcome[..], [AcceptOutcome::Done(_)]), "{level}: {outcome:?}");
            }
            let claims = join_all((0..CALLERS).map(|n| claim(&store, at(1), 100 * part + n))).await;
            let leases = claims.iter().map(|claimed| claimed.leases.len() as u64).sum::<u64>();
            assert_eq!(leases, CALLERS, "{level}");
            store.close().await;
        }
    }
}
