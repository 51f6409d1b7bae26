//! Several processes on one PostgreSQL database: the work is shared, and each does only its part (I2, I3, I4).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokio::time::Instant;
use webhook_test_servers::{PostgresServer, TestDatabase};

use crate::stop::stops_unready;
use crate::support::client::Client;
use crate::support::database::Database;
use crate::support::fleet::Fleet;
use crate::support::receiver::Receiver;
use crate::support::senders::Senders;
use crate::support::server::Server;
use crate::support::{until, within};

const WORKERS: usize = 3;
const SENDERS: usize = 16;

/// `FLEET_EVENTS` sets how many events there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_deliver_each_event_once_and_share_the_work() {
    let events = std::env::var("FLEET_EVENTS").map_or(50_000, |events| events.parse().unwrap());
    let postgres = PostgresServer::start();
    let receiver = Receiver::willing().await;
    let fleet = Fleet::start(&postgres.url(), WORKERS, &[]).await;
    fleet.subscribe(&receiver, json!({})).await;

    let began = Instant::now();
    let senders = Senders::start(SENDERS, events, fleet.api().addr());
    let (accepted, cut) = senders.finish().await;
    let accepting = began.elapsed();
    within(Duration::from_secs(300), "everything arrives", async || (receiver.count() >= events).then_some(())).await;
    let took = began.elapsed();
    // A worker counts an attempt when it has the answer, which is after the arrival.
    let shares = until("every attempt is counted", async || {
        let mut shares = Vec::new();
        for worker in fleet.workers() {
            shares.push(worker.figure("webhook_attempts_total{outcome=\"success\"}").await as usize);
        }
        (shares.iter().sum::<usize>() >= events).then_some(shares)
    })
    .await;
    fleet.stop().await;

    assert_eq!((accepted.len(), cut), (events, 0));
    let mut times = BTreeMap::<_, usize>::new();
    for arrival in receiver.arrivals() {
        assert!(arrival.verified && arrival.attempt == 1);
        *times.entry(arrival.webhook_id).or_default() += 1;
    }
    assert!(times.len() == events && times.values().all(|times| *times == 1), "each event arrives once");
    assert_eq!(shares.iter().sum::<usize>(), events);
    assert!(shares.iter().all(|share| share * 10 >= events), "the work is spread: {shares:?}");
    let mut database = Database::open(&postgres.url()).await;
    assert_eq!((database.delivered().await, database.count("attempt").await), (events, events));
    assert_eq!((database.misnumbered().await, database.lost_leases().await), (0, 0));
    assert_eq!(database.number("SELECT sum(deadlocks)::bigint FROM pg_stat_database").await, 0);
    assert!(!postgres.log().contains("deadlock"), "{}", postgres.log());
    println!(
        "{events} events by {WORKERS} workers: accepted in {:.1} s, delivered in {:.1} s ({:.0} a second), shares \
         {shares:?}, each once, no deadlock",
        accepting.as_secs_f64(),
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_no_api_and_is_ready_when_it_asked_for_deliveries() {
    let database = TestDatabase::fresh();
    let api = Server::on(database.url(), &["--role=api"]).await;
    // Whoever asks for deliveries waits for this.
    let mut claims = PgConnection::connect(database.url()).await.unwrap();
    claims.execute("BEGIN; LOCK TABLE webhook.delivery IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let worker = Server::on(database.url(), &["--role=worker"]).await;
    let mut client = worker.client();
    let ready = client.get("/health/ready").await.unwrap().expect(503);
    assert_eq!((status(&ready, "store"), status(&ready, "worker")), ("ok", "failed"), "{ready}");
    claims.execute("ROLLBACK").await.unwrap();
    until("the worker is ready", async || (client.get("/health/ready").await.unwrap().status == 200).then_some(()))
        .await;

    for path in ["/health", "/health/live", "/metrics"] {
        assert_eq!(client.get(path).await.unwrap().status, 200, "{path}");
    }
    for path in ["/events", "/subscriptions", "/docs", "/openapi.json", "/stats"] {
        let answer = client.get(path).await.unwrap().expect(404);
        assert_eq!(answer["status"], 404, "{path}");
    }
    let ready = api.client().get("/health/ready").await.unwrap().expect(200);
    assert!(!ready["checks"].as_array().unwrap().iter().any(|check| check["name"] == "worker"), "{ready}");
    worker.stop().await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_claim_for_half_a_minute_is_not_ready_until_it_can_again() {
    let database = TestDatabase::fresh();
    let worker = Server::on(database.url(), &["--role=worker"]).await;
    let mut client = worker.client();
    let mut becomes = async |code| {
        let answered = async || client.get("/health/ready").await.ok().filter(|answer| answer.status == code);
        until("it is ready, or no more", answered).await.json()
    };
    becomes(200).await;
    // Claims give up waiting for it again and again; everything else goes on.
    let mut lock = PgConnection::connect(database.url()).await.unwrap();
    lock.execute("BEGIN; LOCK TABLE webhook.delivery IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let locked = Instant::now();
    let ready = becomes(503).await;
    assert_eq!((status(&ready, "store"), status(&ready, "worker")), ("ok", "failed"), "{ready}");
    assert!((28..40).contains(&locked.elapsed().as_secs()), "{:?}", locked.elapsed());
    lock.execute("ROLLBACK").await.unwrap();
    becomes(200).await;
    worker.stop().await;
}

/// How a check of `/health/ready` went.
fn status<'a>(ready: &'a Value, name: &str) -> &'a str {
    let checks = ready["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).and_then(|check| check["status"].as_str()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_delivers_at_once_what_another_process_accepted() {
    let database = TestDatabase::fresh();
    let receiver = Receiver::willing().await;
    let fleet = Fleet::start(database.url(), 1, &[]).await;
    fleet.subscribe(&receiver, json!({})).await;
    let mut client = fleet.api().client();
    let mut waits = Vec::new();
    for number in 1..=20 {
        emit(&mut client).await;
        let accepted = Instant::now();
        until("it arrives", async || (receiver.count() == number).then_some(())).await;
        waits.push(accepted.elapsed());
    }
    waits.sort();
    assert!(waits[19] < Duration::from_secs(1), "{waits:?}");
    // A worker that only polls looks once a second.
    assert!(waits[10] < Duration::from_millis(250), "{waits:?}");
    println!("a lone event arrives after {:?} (p50), {:?} at most", waits[10], waits[19]);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_through_one_process_is_obeyed_by_the_others_within_a_second() {
    let database = TestDatabase::fresh();
    let receiver = Receiver::willing().await;
    let fleet = Fleet::start(database.url(), 2, &[]).await;
    let other = Server::on(database.url(), &["--role=api"]).await;
    let mut clients = [fleet.api().client(), other.client()];
    let limit = json!({"rate_limit": {"per_second": 50, "burst": 1}});
    let subscription = fleet.subscribe(&receiver, limit).await;
    // Both processes know it before it changes.
    for client in &mut clients {
        emit(client).await;
    }
    until("both arrive", async || (receiver.count() == 2).then_some(())).await;

    for (this, that) in [(0, 1), (1, 0)] {
        let change = async |client: &mut Client, change: Value| {
            let body = change.to_string();
            client.send("PATCH", &format!("/subscriptions/{subscription}"), body.as_bytes()).await.unwrap().expect(200);
        };
        for _ in 0..100 {
            emit(&mut clients[that]).await;
        }
        change(&mut clients[this], json!({"enabled": false})).await;
        assert_eq!(emit(&mut clients[that]).await, 0, "accepts go by what stands at their commit");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stopped = receiver.count();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(receiver.count(), stopped, "a disabled subscription is obeyed");

        let path = format!("/hooks/{that}");
        change(&mut clients[that], json!({"enabled": true, "rate_limit": null, "target_url": receiver.url(&path)}))
            .await;
        let changed = Instant::now();
        assert_eq!(emit(&mut clients[this]).await, 1);
        until("the rest arrives", async || (receiver.count() > stopped).then_some(())).await;
        assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
        let pending = async || {
            let mut client = fleet.api().client();
            let pending = client.get("/deliveries?state=pending&limit=1").await.unwrap().expect(200);
            pending["data"].as_array().unwrap().is_empty().then_some(())
        };
        until("nothing waits", pending).await;
        let arrivals = receiver.arrivals();
        assert!(arrivals[stopped..].iter().all(|arrival| arrival.path == path), "the new target is obeyed");
        change(&mut clients[this], json!({"rate_limit": {"per_second": 50, "burst": 1}})).await;
    }
    let arrivals = receiver.arrivals();
    // Two at the start; in each direction a hundred, and one when it was enabled again.
    assert_eq!(arrivals.len(), 2 + 2 * 101);
    other.stop().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_is_not_ready_while_its_attempts_end() {
    let database = TestDatabase::fresh();
    let receiver = Receiver::start(|_| (200, Duration::from_secs(2))).await;
    let fleet = Fleet::start(database.url(), 1, &[]).await;
    fleet.subscribe(&receiver, json!({})).await;
    emit(&mut fleet.api().client()).await;
    let (api, mut workers) = fleet.apart();
    stops_unready(workers.remove(0), &receiver).await;
    let delivered = api.client().get("/deliveries?state=delivered").await.unwrap().expect(200);
    assert_eq!(delivered["data"].as_array().unwrap().len(), 1);
    api.stop().await;
}

/// Sends an event; to how many subscriptions it goes.
async fn emit(client: &mut Client) -> u64 {
    let event = json!({"event_type": "test.sent", "payload": {}});
    client.post("/events", &event).await.unwrap().expect(202)["deliveries"].as_u64().unwrap()
}
