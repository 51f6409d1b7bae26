//! Two processes that reach PostgreSQL through PgBouncer in transaction mode, where nobody hears a NOTIFY.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use webhook_test_servers::{PgBouncer, PostgresServer};

use crate::support::database::Database;
use crate::support::fleet::Fleet;
use crate::support::receiver::Receiver;
use crate::support::senders::Senders;
use crate::support::until;

const EVENTS: usize = 300;
const PATHS: [&str; 3] = ["/hooks", "/hooks/0", "/hooks/1"];
const SESSIONS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_accepts_through_a_pooler_another_delivers_through_it() {
    let postgres = PostgresServer::start_with(&["log_statement=all"]);
    let pooler = PgBouncer::start(postgres.addr(), SESSIONS as u32);
    let url = format!("{}?pgbouncer=true", pooler.rewrite(&postgres.url()));
    // The first attempt at one of the paths fails.
    let receiver = Receiver::start(|arrival| {
        let status = if arrival.path == PATHS[1] && arrival.attempt == 1 { 500 } else { 200 };
        (status, Duration::ZERO)
    })
    .await;
    let fleet = Fleet::start(&url, 1, &["--retry-schedule=1,1"]).await;
    let mut client = fleet.api().client();
    for path in PATHS {
        let wanted = json!({"target_url": receiver.url(path)});
        let made = client.post("/subscriptions", &wanted).await.unwrap().expect(201);
        receiver.trust(path, made["secret"].as_str().unwrap());
    }

    let (accepted, _) = Senders::start(16, EVENTS, fleet.api().addr()).finish().await;
    let mut database = Database::open(&postgres.url()).await;
    until("everything is delivered", async || (database.delivered().await == EVENTS * PATHS.len()).then_some(())).await;
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let sessions = database.number(sessions).await;
    assert!((1..=SESSIONS).contains(&sessions), "{sessions}");
    fleet.stop().await;
    let log = postgres.log();
    assert!(log.contains("webhook.accept") && !log.contains("LISTEN ") && !log.contains("pg_notify($1"));

    let ids: BTreeSet<_> = accepted.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), EVENTS);
    assert_eq!((database.misnumbered().await, database.lost_leases().await), (0, 0));
    let arrivals = receiver.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.verified && ids.contains(arrival.webhook_id.as_str())));
    let mut times = BTreeMap::<_, usize>::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.status == 200) {
        *times.entry((&arrival.path, &arrival.webhook_id)).or_default() += 1;
    }
    assert_eq!((times.len(), arrivals.len()), (EVENTS * PATHS.len(), EVENTS * (PATHS.len() + 1)));
}
