//! PostgreSQL in trouble under a server that runs: callers hear 503, workers come back by themselves, and nothing that
//! was accepted is lost, nothing invented (I1, I3, I5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use webhook_test_servers::{FaultProxy, PostgresServer};

use crate::support::database::Database;
use crate::support::receiver::{Arrival, Receiver};
use crate::support::senders::Senders;
use crate::support::server::{Server, output, program};
use crate::support::{PATIENCE, until, within};

const EVENTS: usize = 1200;
/// Events of each trouble: some before it, and the rest in it and after it.
const ROUND: usize = EVENTS / TROUBLES.len();
const SENDERS: usize = 12;
const CONCURRENCY: usize = 48;
/// How long a lease lasts that nobody gives back.
const LEASE: Duration = Duration::from_secs(45);

/// What happens to the server, and how it comes back.
type Trouble = (&'static str, fn(&PostgresServer, &FaultProxy), fn(&PostgresServer));

const TROUBLES: [Trouble; 6] = [
    ("one session is killed", |postgres, _| assert!(postgres.kill_one_backend().is_some()), |_| {}),
    ("it is killed", |postgres, _| postgres.kill(), PostgresServer::restart),
    ("it is stopped at once", |postgres, _| postgres.stop_immediate(), PostgresServer::restart),
    // Of an event of that round, and of whatever is committed next.
    ("the answer to an accept is lost", |_, proxy| proxy.swallow_answer_to(r#""number":6"#), |_| {}),
    ("the answer to a commit is lost", |_, proxy| proxy.swallow_answer_to("COMMIT"), |_| {}),
    ("the network breaks off", |_, proxy| proxy.cut(), |_| {}),
];

/// Found by chaos: a server that was replaced while the network was bad did not come up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_whose_answer_is_lost_is_tried_again() {
    let postgres = PostgresServer::start();
    let proxy = FaultProxy::start(postgres.addr());
    proxy.swallow_answer_to("COMMIT");
    let server = Server::on(&proxy.rewrite(&postgres.url()), &[]).await;
    assert_eq!(proxy.swallowed(), 1);
    let tried = |line: &serde_json::Value| line["message"] == "the database is not available any more; trying on";
    assert!(server.lines().json().iter().any(tried));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_postgres_nothing_accepted_is_lost() {
    let postgres = PostgresServer::start();
    let proxy = FaultProxy::start(postgres.addr());
    let receiver = Receiver::start(|_| (200, Duration::from_millis(10))).await;
    let concurrency = format!("--concurrency={CONCURRENCY}");
    let server = Server::on(&proxy.rewrite(&postgres.url()), &[&concurrency]).await;
    let wanted = json!({"target_url": receiver.url("/hooks")});
    let made = server.client().post("/subscriptions", &wanted).await.unwrap().expect(201);
    receiver.trust("/hooks", made["secret"].as_str().unwrap());

    let began = Instant::now();
    let senders = Senders::start(SENDERS, EVENTS, server.addr());
    let mut troubles = Vec::new();
    for (round, (name, begin, end)) in TROUBLES.into_iter().enumerate() {
        let start = round * ROUND;
        senders.allow(start + ROUND / 2);
        until("events are acknowledged", async || (senders.acknowledged() >= start + ROUND / 4).then_some(())).await;
        let trouble = Instant::now();
        begin(&postgres, &proxy);
        senders.allow(start + ROUND);
        if postgres.pid().is_none() {
            refuses(&server).await;
            sleep(Duration::from_millis(500)).await;
        }
        end(&postgres);
        let back = Instant::now();
        until("events are acknowledged again", async || (senders.acknowledged() == start + ROUND).then_some(())).await;
        println!("{name}: all accepted {:.1} s after it was over", back.elapsed().as_secs_f64());
        troubles.push((trouble, Instant::now()));
    }
    assert_eq!(proxy.swallowed(), 2, "both answers were swallowed");
    let (events, cut) = senders.finish().await;
    let mut client = server.client();
    // What was in flight when its outcome could not be recorded comes again when its lease has run out.
    within(LEASE + PATIENCE, "everything is delivered", async || {
        let pending = client.get("/deliveries?state=pending&limit=1").await.unwrap().expect(200);
        pending["data"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    let ready = client.get("/health/ready").await.unwrap().expect(200);
    assert_eq!(ready["status"], "ready");
    server.stop().await;

    let ids: BTreeSet<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!((ids.len(), cut), (EVENTS, 0), "each key has one event of its own");
    let mut database = Database::open(&postgres.url()).await;
    assert_eq!((database.count("event").await, database.count("delivery").await), (EVENTS, EVENTS));
    assert_eq!((database.delivered().await, database.misnumbered().await), (EVENTS, 0));
    let arrivals = receiver.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.verified));
    let mut times = BTreeMap::<_, Vec<&Arrival>>::new();
    for arrival in &arrivals {
        times.entry(arrival.webhook_id.as_str()).or_default().push(arrival);
    }
    assert_eq!(times.keys().copied().collect::<BTreeSet<_>>(), ids, "what was accepted arrived, and nothing else");
    for pair in times.values().flat_map(|times| times.windows(2)) {
        // The outcome of the first did not get into the database in time, which only a trouble explains.
        let explained = troubles.iter().any(|(began, over)| pair[0].at <= *over && *began <= pair[1].at);
        assert!(explained, "a duplicate without a trouble");
    }
    let duplicates = arrivals.len() - EVENTS;
    assert!(duplicates <= TROUBLES.len() * CONCURRENCY, "{duplicates} duplicates");
    println!(
        "{} troubles, {EVENTS} events accepted, in the database and delivered, 0 lost; duplicates {duplicates}; lost \
         leases {}; events sent more than once {}, of these accepted before {}; {:.1} s",
        TROUBLES.len(),
        database.lost_leases().await,
        events.iter().filter(|event| event.tries > 1).count(),
        events.iter().filter(|event| event.duplicate).count(),
        began.elapsed().as_secs_f64(),
    );
}

/// A call that needs the database is refused soon, with the advice to come again and without the reason.
async fn refuses(server: &Server) {
    let mut client = server.client();
    let began = Instant::now();
    let answer = client.get("/subscriptions").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    let problem = answer.expect(503);
    assert!(!problem.to_string().contains("postgres"), "{problem}");
    let ready = client.get("/health/ready").await.unwrap().expect(503);
    assert_eq!(ready["status"], "not_ready");
}

/// Calls of every kind, and each with a connection of its own that worked a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_frozen_every_call_is_refused_in_time() {
    const LONGEST: Duration = Duration::from_secs(20);
    let postgres = PostgresServer::start();
    let server = Server::on(&postgres.url(), &["--database-max-connections=90"]).await;
    let mut client = server.client();
    let subscription = json!({"target_url": "https://example.com/hook", "enabled": false});
    let subscription = client.post("/subscriptions", &subscription).await.unwrap().expect(201);
    let event = json!({"event_type": "order.created", "payload": {}});
    let event = client.post("/events", &event).await.unwrap().expect(202);
    let path = client.post("/api/paths", &json!({})).await.unwrap().expect(201);
    let (subscription, event, path) = (&subscription["id"], &event["id"], &path["path_id"]);
    let [subscription, event, path] = [subscription, event, path].map(|id| id.as_str().unwrap());
    let none = "00000000-0000-7000-8000-000000000000";
    let calls: Vec<(&str, String, Value)> = vec![
        ("GET", "/subscriptions".into(), Value::Null),
        ("POST", "/subscriptions".into(), json!({"target_url": "https://example.com/other"})),
        ("GET", format!("/subscriptions/{subscription}"), Value::Null),
        ("PATCH", format!("/subscriptions/{subscription}"), json!({"description": "new"})),
        ("GET", format!("/subscriptions/{subscription}/secret"), Value::Null),
        ("POST", format!("/subscriptions/{subscription}/secret/rotate"), json!({})),
        ("GET", format!("/subscriptions/{subscription}/attempts"), Value::Null),
        ("GET", format!("/subscriptions/{subscription}/stats"), Value::Null),
        ("DELETE", format!("/subscriptions/{subscription}"), Value::Null),
        ("POST", "/events".into(), json!({"event_type": "order.created", "payload": {}})),
        ("GET", "/events".into(), Value::Null),
        ("GET", format!("/events/{event}"), Value::Null),
        ("GET", format!("/events/{event}/status"), Value::Null),
        ("GET", "/deliveries".into(), Value::Null),
        ("GET", format!("/deliveries/{none}"), Value::Null),
        ("POST", format!("/deliveries/{none}/retry"), json!({})),
        ("GET", "/stats".into(), Value::Null),
        ("GET", "/activity".into(), Value::Null),
        ("GET", "/api/dashboard/stats".into(), Value::Null),
        ("POST", format!("/ingest/{subscription}"), json!({})),
        ("POST", format!("/subscriptions/{subscription}/recover"), json!({"since": "2020-01-01T00:00:00Z"})),
        ("GET", format!("/api/paths/{path}/wait?timeout_seconds=5"), Value::Null),
        ("GET", "/api/paths".into(), Value::Null),
        ("POST", "/api/paths".into(), json!({})),
        ("GET", format!("/api/paths/{path}"), Value::Null),
        ("GET", format!("/api/paths/{path}/logs"), Value::Null),
        ("DELETE", format!("/api/paths/{path}/logs"), Value::Null),
        ("POST", format!("/webhook/{path}"), json!({})),
        ("DELETE", format!("/api/paths/{path}"), Value::Null),
    ];
    let creating = ("POST", "/subscriptions".into(), json!({"target_url": "https://example.com/other"}));
    let calls = [calls, vec![creating; 20]].concat();
    // So that there are connections for all of them.
    join_all((0..60).map(|_| async { server.client().get("/subscriptions").await.unwrap().expect(200) })).await;

    postgres.pause();
    let began = Instant::now();
    let answers = join_all(calls.iter().map(|(method, path, body)| {
        let mut client = server.client();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        async move { client.send(method, path, body.as_bytes()).await }
    }))
    .await;
    let took = began.elapsed();
    postgres.resume();
    for ((method, path, _), answer) in calls.iter().zip(answers) {
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{method} {path}: {answer:?}");
    }
    assert!(took < LONGEST, "{took:?}");
    until("the server works again", async || {
        (server.client().get("/subscriptions").await.unwrap().status == 200).then_some(())
    })
    .await;
    // A caller that was told so has not left a transaction to the next one.
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    let left =
        until("no transaction is left", async || (postgres.sql(&postgres.url(), open).trim() == "0").then_some(()));
    // PostgreSQL itself would end it after 60 s.
    tokio::time::timeout(Duration::from_secs(15), left).await.expect("no transaction is left");
    server.stop().await;
}

/// As `ALTER DATABASE` leaves it: sessions that began meanwhile go on refusing to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_could_only_be_read_for_a_while_is_written_to_soon_after() {
    const SOON: Duration = Duration::from_secs(10);
    const SESSIONS: usize = 12;
    let postgres = PostgresServer::start();
    let proxy = FaultProxy::start(postgres.addr());
    let server = Server::on(&proxy.rewrite(&postgres.url()), &[]).await;
    let event = json!({"event_type": "order.created", "payload": {}});
    let ready = async || server.client().get("/health/ready").await.unwrap();
    let emitted = async || server.client().post("/events", &event).await.unwrap();
    emitted().await.expect(202);

    postgres.sql(&postgres.url(), "ALTER DATABASE postgres SET default_transaction_read_only = on");
    proxy.cut();
    until("it is not ready", async || (ready().await.status == 503).then_some(())).await;
    let read = async || server.client().get("/events").await.unwrap().status == 200;
    until("it is read", async || join_all((0..SESSIONS).map(|_| read())).await.iter().all(|ok| *ok).then_some(()))
        .await;
    let refused = emitted().await;
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    refused.expect(503);
    assert_eq!(ready().await.status, 503);

    let other = format!("postgres://postgres@{}/template1", postgres.addr());
    postgres.sql(&other, "ALTER DATABASE postgres RESET default_transaction_read_only");
    within(SOON, "it is ready again", async || (ready().await.status == 200).then_some(())).await;
    // The emitter puts events together in one session; creating takes one for each.
    let subscription = json!({"target_url": "https://example.com/hook"});
    let made = async || server.client().post("/subscriptions", &subscription).await.unwrap().status == 201;
    within(SOON, "all sessions write", async || {
        let accepted = emitted().await.status == 202;
        let all = join_all((0..SESSIONS).map(|_| made())).await.iter().all(|ok| *ok);
        (accepted && all).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_database_that_can_only_be_read_says_why_it_waits() {
    let postgres = PostgresServer::start_with(&["default_transaction_read_only=on"]);
    let mut command = program();
    command.args(["--listen=127.0.0.1:0", "--startup-timeout=2", "--database-url", &postgres.url()]);
    let refused = output(&mut command).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let reason = "cannot execute CREATE SCHEMA in a read-only transaction";
    for written in [&refused.stdout, &refused.stderr] {
        assert!(String::from_utf8_lossy(written).contains(reason), "{refused:?}");
    }
}
