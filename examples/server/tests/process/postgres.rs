//! PostgreSQL in trouble under a server that runs: callers hear 503, workers come back by themselves, and nothing that
//! was accepted is lost, nothing invented (I1, I3, I5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use webhook_test_servers::{FaultProxy, PostgresServer};

use crate::support::database::Database;
use crate::support::receiver::{Arrival, Receiver};
use crate::support::senders::Senders;
use crate::support::server::Server;
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
