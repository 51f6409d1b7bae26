//! Redis beside PostgreSQL: it makes a fleet faster, and whatever happens to it loses and doubles nothing (I3, I8).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use webhook_test_servers::{PostgresServer, RedisCluster, RedisServer, TestDatabase};

use crate::support::database::Database;
use crate::support::fleet::Fleet;
use crate::support::receiver::Receiver;
use crate::support::senders::Senders;
use crate::support::server::Server;
use crate::support::{until, within};

const WORKERS: usize = 3;
const SENDERS: usize = 16;
/// Two seconds of each phase, in which its share of the events is let go step by step.
const STEPS: usize = 20;
const STEP: Duration = Duration::from_millis(100);

/// What is done to Redis when a phase begins.
type Deed = fn(&RedisServer);

const CALM: Deed = |_| {};
const FLUSH: Deed = |redis| drop(redis.command(&["FLUSHALL"]));
const PHASES: [(&str, Deed); 9] = [
    ("in calm", CALM),
    ("flushed", FLUSH),
    ("flushed again", FLUSH),
    ("flushed again", FLUSH),
    ("frozen", RedisServer::pause),
    ("back", RedisServer::resume),
    ("killed", RedisServer::kill),
    ("restarted empty", RedisServer::restart_empty),
    ("in calm", CALM),
];

/// `FLEET_EVENTS` sets how many events there are; a release build takes 50,000 in half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_flushed_frozen_killed_and_replaced_under_three_workers() {
    let events = std::env::var("FLEET_EVENTS").map_or(4_500, |events| events.parse().unwrap());
    let (postgres, redis) = (PostgresServer::start(), RedisServer::start());
    let receiver = Receiver::willing().await;
    let fleet = Fleet::start(&postgres.url(), WORKERS, &["--redis-url", &redis.url()]).await;
    fleet.subscribe(&receiver, json!({})).await;

    let began = Instant::now();
    let senders = Senders::start(SENDERS, events, fleet.api().addr());
    let mut calm = 0;
    for (phase, (name, deed)) in PHASES.into_iter().enumerate() {
        deed(&redis);
        let before = receiver.count();
        for step in 1..=STEPS {
            senders.allow(events * (phase * STEPS + step) / (PHASES.len() * STEPS));
            sleep(STEP).await;
        }
        let arrived = receiver.count() - before;
        println!("{name}: {arrived} of {} arrived within the phase", events / PHASES.len());
        if phase == 0 {
            calm = arrived;
        }
        if name == "frozen" || name == "killed" {
            assert!(arrived * 2 > calm, "delivery does not go on while redis is {name}");
            for server in fleet.all() {
                assert_degraded(server).await;
            }
        }
    }
    let (accepted, cut) = senders.finish().await;
    within(Duration::from_secs(300), "everything arrives", async || (receiver.count() >= events).then_some(())).await;
    let took = began.elapsed();
    for server in fleet.all() {
        until("redis is in use again", async || (ready(server).await.1["status"] == "ready").then_some(())).await;
    }
    let (mut shares, mut outages) = (Vec::new(), Vec::new());
    for worker in fleet.workers() {
        shares.push(worker.figure("webhook_attempts_total{outcome=\"success\"}").await as usize);
        outages.push(worker.figure("webhook_queue_outages_total").await as usize);
        assert_eq!(worker.figure("webhook_queue_up").await, 1.0);
        let said = |text: &str| worker.lines().json().iter().filter(|line| line["message"] == text).count();
        let away = said("the queue does not answer; the store is asked instead");
        assert_eq!((away, said("the queue answers again")), (outages[outages.len() - 1], away));
    }
    fleet.stop().await;

    assert_eq!((accepted.len(), cut), (events, 0));
    let arrivals = receiver.arrivals();
    let distinct: BTreeSet<_> = arrivals.iter().map(|arrival| &arrival.webhook_id).collect();
    let accepted: BTreeSet<_> = accepted.iter().map(|event| &event.id).collect();
    assert_eq!(distinct, accepted, "what was accepted was delivered");
    let duplicates = arrivals.len() - distinct.len();
    // Leases are in the database: no hint that is lost or comes twice attempts anything twice.
    assert_eq!(duplicates, 0);
    assert!(outages.iter().all(|outages| *outages >= 1), "{outages:?}");
    let mut database = Database::open(&postgres.url()).await;
    assert_eq!((database.delivered().await, database.lost_leases().await), (events, 0));
    println!(
        "{events} events by {WORKERS} workers in {:.1} s, all delivered, duplicates {duplicates}, shares {shares:?}, \
         outages noticed {outages:?}",
        took.as_secs_f64(),
    );
}

/// The status and the body of `/health/ready`.
async fn ready(server: &Server) -> (u16, Value) {
    let answer = server.client().get("/health/ready").await.unwrap();
    (answer.status, answer.json())
}

/// It serves without its Redis, and says which part is missing, but not why.
async fn assert_degraded(server: &Server) {
    let (status, body) = ready(server).await;
    assert_eq!((status, &body["status"]), (200, &"degraded".into()), "{body}");
    for check in body["checks"].as_array().unwrap() {
        assert_eq!(check["status"], if check["name"] == "redis" { "degraded" } else { "ok" }, "{body}");
        assert_eq!(check.as_object().unwrap().len(), 3, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_together_keep_a_rate_limit() {
    const RATE: usize = 100;
    const BURST: usize = 20;
    const EVENTS: usize = 600;
    let (database, redis) = (TestDatabase::fresh(), RedisServer::start());
    let receiver = Receiver::willing().await;
    let fleet = Fleet::start(database.url(), WORKERS, &["--redis-url", &redis.url()]).await;
    fleet.subscribe(&receiver, json!({"rate_limit": {"per_second": RATE, "burst": BURST}})).await;
    let events: Vec<_> = (0..EVENTS).map(|n| json!({"event_type": "test.sent", "payload": {"number": n}})).collect();
    fleet.api().client().post("/events/batch", &events.into()).await.unwrap().expect(202);
    until("everything arrives", async || (receiver.count() >= EVENTS).then_some(())).await;

    let times: Vec<_> = receiver.arrivals().iter().map(|arrival| arrival.at).collect();
    let most = |window: Duration| {
        let within = |first: &Instant| times.iter().filter(|at| (*first..*first + window).contains(at)).count();
        times.iter().map(within).max().unwrap()
    };
    // Some requests take a few milliseconds more on their way than others.
    let (most, strictly) = (most(Duration::from_millis(950)), most(Duration::from_secs(1)));
    let took = times[EVENTS - 1] - times[0];
    let mut shares = Vec::new();
    for worker in fleet.workers() {
        shares.push(worker.figure("webhook_attempts_total{outcome=\"success\"}").await as usize);
    }
    println!("{EVENTS} events at {RATE} a second: {took:.1?}, at most {strictly} in any second, shares {shares:?}");
    assert!(most <= RATE + BURST, "{most} in one second");
    assert!(took < Duration::from_secs(12), "the limit is used: {took:?}");
    assert!(shares.iter().filter(|share| **share > 0).count() > 1, "several workers share the limit: {shares:?}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_at_the_start_or_refuses_the_password_stops_nothing() {
    let (database, redis) = (TestDatabase::fresh(), RedisServer::start());
    redis.kill();
    let receiver = Receiver::willing().await;
    let with_password = redis.url().replace("redis://", "redis://user:canary-password@");
    for url in [redis.url(), with_password] {
        let server = Server::on(database.url(), &["--redis-url", &url, "--log-level=trace"]).await;
        let before = receiver.count();
        let subscription = json!({"target_url": receiver.url("/hooks"), "events": [format!("test.{before}")]});
        server.client().post("/subscriptions", &subscription).await.unwrap().expect(201);
        let event = json!({"event_type": format!("test.{before}"), "payload": {}});
        server.client().post("/events", &event).await.unwrap().expect(202);
        until("the event arrives", async || (receiver.count() > before).then_some(())).await;
        assert_degraded(&server).await;
        redis.restart();
        if url == redis.url() {
            until("redis is in use", async || (ready(&server).await.1["status"] == "ready").then_some(())).await;
        } else {
            // Long enough for many more tries.
            sleep(Duration::from_secs(3)).await;
            assert_degraded(&server).await;
        }
        let lines = server.lines().clone();
        server.stop().await;
        let log = lines.all().concat();
        assert!(log.contains(&redis.addr().to_string()) && !log.contains("canary"), "{log}");
        redis.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_serves_a_fleet() {
    let (database, cluster) = (TestDatabase::fresh(), RedisCluster::start());
    let receiver = Receiver::willing().await;
    let fleet = Fleet::start(database.url(), 2, &["--redis-url", &cluster.url(), "--redis-prefix=acme"]).await;
    fleet.subscribe(&receiver, json!({})).await;
    let senders = Senders::start(4, 200, fleet.api().addr());
    senders.finish().await;
    until("everything arrives", async || (receiver.count() == 200).then_some(())).await;
    for server in fleet.all() {
        assert_eq!(ready(server).await.1["status"], "ready");
        assert_eq!(server.figure("webhook_queue_outages_total").await, 0.0);
    }
    fleet.stop().await;
}

#[tokio::test]
async fn a_database_of_one_process_may_have_a_redis_and_is_told_that_it_gains_nothing() {
    let (directory, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let server = Server::start(directory.path(), &["--redis-url", &redis.url()]).await;
    assert!(server.lines().all().concat().contains("Redis gains nothing here"));
    let (status, body) = ready(&server).await;
    assert_eq!((status, &body["status"]), (200, &"ready".into()));
    server.stop().await;
}
