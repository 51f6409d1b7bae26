//! kill -9 at random moments: nothing that was accepted is lost, and only what was in flight comes twice (I13).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::time::{Instant, sleep};
use webhook_test_servers::PostgresServer;

use crate::support::database::Database;
use crate::support::receiver::{Arrival, Receiver};
use crate::support::senders::Senders;
use crate::support::server::{Server, sqlite_url};
use crate::support::{PATIENCE, until, within};

const EVENTS: usize = 1000;
const KILLS: usize = 10;
/// Events that are let go before each kill; the rest flows after the last one.
const ROUND: usize = 90;
const SENDERS: usize = 12;
/// Attempts at once: what may be in flight at a kill.
const CONCURRENCY: usize = 48;
/// How long a lease lasts that nobody gives back.
const LEASE: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subscription_survives_kills() {
    let directory = tempfile::tempdir().unwrap();
    survive(&sqlite_url(directory.path()), 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_subscriptions_survive_kills() {
    let directory = tempfile::tempdir().unwrap();
    survive(&sqlite_url(directory.path()), 3, 3).await;
}

/// Leases outlive the killed process here: what was in flight comes again when they have run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_on_postgres_survive_kills() {
    let postgres = PostgresServer::start();
    survive(&postgres.url(), 3, 5).await;
}

/// `KILL_SEED` repeats a run with another seed; the moments of the kills are chosen by it, what happens then is not.
async fn survive(database: &str, fan_out: usize, seed: u64) {
    let seed = std::env::var("KILL_SEED").map_or(seed, |seed| seed.parse().unwrap());
    println!("fan-out {fan_out}, seed {seed}");
    let began = Instant::now();
    let mut chance = StdRng::seed_from_u64(seed);
    let receiver = Receiver::start(unsteady).await;
    let paths: Vec<_> = (0..fan_out).map(|number| format!("/hooks/{number}")).collect();
    let concurrency = format!("--concurrency={CONCURRENCY}");
    let launch = async || Server::on(database, &[&concurrency]).await;

    let mut server = launch().await;
    for path in &paths {
        let wanted = json!({"target_url": receiver.url(path), "retry": {"schedule": [0.05, 0.1, 0.2, 0.4, 0.8]}});
        let made = server.client().post("/subscriptions", &wanted).await.unwrap().expect(201);
        receiver.trust(path, made["secret"].as_str().unwrap());
    }

    let senders = Senders::start(SENDERS, EVENTS, server.addr());
    let (mut kills, mut unacknowledged) = (Vec::new(), 0);
    for round in 0..KILLS {
        senders.allow((round + 1) * ROUND);
        let enough = round * ROUND + chance.random_range(0..ROUND - SENDERS);
        until("events are acknowledged", async || (senders.acknowledged() >= enough).then_some(())).await;
        sleep(Duration::from_micros(chance.random_range(0..8000))).await;
        unacknowledged += senders.in_flight();
        let killed = Instant::now();
        server.kill().await;
        server = launch().await;
        kills.push((killed, Instant::now()));
        senders.turn_to(server.addr());
    }
    let (events, _) = senders.finish().await;
    let mut client = server.client();
    within(LEASE + PATIENCE, "everything is delivered", async || {
        let pending = client.get("/deliveries?state=pending&limit=1").await.unwrap().expect(200);
        pending["data"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    server.stop().await;

    let ids: BTreeSet<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), EVENTS, "each key has one event of its own");
    assert!(events.iter().all(|event| event.deliveries == fan_out as u64));
    let mut database = Database::open(database).await;
    assert_eq!(database.count("event").await, EVENTS);
    assert_eq!(database.count("delivery").await, EVENTS * fan_out);
    assert_eq!(database.delivered().await, EVENTS * fan_out);
    assert_eq!(database.misnumbered().await, 0);

    let arrivals = receiver.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.verified));
    let successes = successes(&arrivals);
    let expected: BTreeSet<_> =
        ids.iter().flat_map(|id| paths.iter().map(move |path| (id.to_string(), path.clone()))).collect();
    assert_eq!(successes.keys().cloned().collect::<BTreeSet<_>>(), expected);

    let in_flight = KILLS * CONCURRENCY;
    let recorded = database.count("attempt").await;
    let duplicates: usize = successes.values().map(|times| times.len() - 1).sum();
    for times in successes.values() {
        for pair in times.windows(2) {
            // The outcome of the first did not get into the database, which only a kill explains.
            let kill = kills.iter().any(|(killed, back)| pair[0] <= *back && *killed <= pair[1]);
            assert!(kill, "a duplicate without a kill");
        }
    }
    assert!(duplicates <= in_flight, "{duplicates} duplicates");
    assert!(
        (recorded..=recorded + in_flight).contains(&arrivals.len()),
        "{} arrivals, {recorded} recorded",
        arrivals.len()
    );
    println!(
        "{KILLS} kills (unacknowledged events at them: {unacknowledged}), {EVENTS} events accepted and in the database, \
         {} deliveries, all delivered, 0 lost; {} requests at the receiver, {recorded} recorded; duplicates {duplicates} \
         (bound {in_flight}); lost leases {}; events sent more than once {}, of these accepted before {}; {:.1} s",
        EVENTS * fan_out,
        arrivals.len(),
        database.lost_leases().await,
        events.iter().filter(|event| event.tries > 1).count(),
        events.iter().filter(|event| event.duplicate).count(),
        began.elapsed().as_secs_f64(),
    );
}

/// Refuses one in ten at first, and takes its time.
fn unsteady(arrival: &Arrival) -> (u16, Duration) {
    let dice = arrival.webhook_id.bytes().chain(arrival.path.bytes()).map(usize::from).sum::<usize>();
    let status = if dice % 10 == 0 && arrival.attempt == 1 { 500 } else { 200 };
    (status, Duration::from_millis(10 + (dice % 7) as u64))
}

/// When each event was answered with 200 on each path.
fn successes(arrivals: &[Arrival]) -> BTreeMap<(String, String), Vec<Instant>> {
    let mut successes = BTreeMap::<_, Vec<_>>::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.status == 200) {
        successes.entry((arrival.webhook_id.clone(), arrival.path.clone())).or_default().push(arrival.at);
    }
    successes
}
