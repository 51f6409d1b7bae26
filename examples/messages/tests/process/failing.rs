//! What happens when the database or a caller goes away.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use webhook_test_servers::{FaultProxy, PostgresServer};

use crate::client::{SECRET, message, sign};
use crate::service::{PATIENCE, Service};

async fn postgres() -> PostgresServer {
    tokio::task::spawn_blocking(PostgresServer::start).await.unwrap()
}

#[tokio::test]
async fn connections_that_the_network_forgot_hold_nobody_up_for_long() {
    let server = postgres().await;
    let proxy = FaultProxy::start(server.addr());
    let service = Service::start_on(tempfile::tempdir().unwrap(), Some(&proxy.rewrite(&server.url()))).await;
    let client = service.client;
    let post =
        async |id: usize| client.post(&message(&format!("m{id}"), "+12", "2025-01-15T10:00:00Z", "")).await.status;
    // Several connections, so that several are forgotten.
    let posts = (0..8).map(|id| async move {
        client.get("/stats").await.expect(200);
        client.post(&message(&format!("a{id}"), "+12", "2025-01-15T10:00:00Z", "")).await.expect(200)
    });
    futures_util::future::join_all(posts).await;
    proxy.strand();
    let start = Instant::now();
    let mut refused = 0;
    while post(refused).await != 200 {
        refused += 1;
        assert!(refused < 4, "it goes on failing");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(post(9).await, 200);
    proxy.strand();
    let start = Instant::now();
    service.stop().await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// PostgreSQL then says of each table that it is there, which nobody wants to read in the log.
#[tokio::test]
async fn started_again_on_a_database_it_logs_as_before() {
    let server = postgres().await;
    for _ in 0..2 {
        // It waits for the line that says where the service listens.
        let service = Service::start_on(tempfile::tempdir().unwrap(), Some(&server.url())).await;
        service.stop().await;
    }
}

#[tokio::test]
async fn the_log_says_why_the_database_cannot_be_used() {
    let server = postgres().await;
    let service = Service::start_on(tempfile::tempdir().unwrap(), Some(&server.url())).await;
    service.client.post(&message("m1", "+12", "2025-01-15T10:00:00Z", "")).await.expect(200);
    server.sql(&server.url(), "ALTER TABLE messages RENAME TO elsewhere");
    assert_eq!(service.client.post(&message("m2", "+12", "2025-01-15T10:00:00Z", "")).await.status, 503);
    let line = service.line(|line| line["message"] == "the database failed").await;
    assert!(line["error"].as_str().unwrap().contains("does not exist"), "{line}");
}

#[tokio::test]
async fn a_message_whose_sender_hangs_up_is_counted_and_logged() {
    let server = Arc::new(postgres().await);
    let service = Service::start_on(tempfile::tempdir().unwrap(), Some(&server.url())).await;
    let locker = Arc::clone(&server);
    let lock = tokio::task::spawn_blocking(move || {
        locker.sql(&locker.url(), "BEGIN; LOCK TABLE messages; SELECT pg_sleep(60); COMMIT")
    });
    wait_for(&server, "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted").await;
    let body = message("m1", "+12", "2025-01-15T10:00:00Z", "").to_string();
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nx-signature: {}\r\n\r\n",
        body.len(),
        sign(SECRET, body.as_bytes())
    );
    let mut stream = TcpStream::connect(service.client.0).await.unwrap();
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    wait_for(&server, "SELECT count(*) FROM pg_locks WHERE NOT granted").await;
    drop(stream);
    let unlock = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'";
    wait_for(&server, &format!("SELECT count(*) FROM ({unlock}) AS cancelled")).await;
    let line = service.line(|line| line["message_id"] == "m1").await;
    assert_eq!(line["result"], "created", "{line}");
    let metrics = service.client.get("/metrics").await.body;
    assert!(metrics.contains(r#"webhook_requests_total{result="created"} 1"#), "{metrics}");
    drop(lock.await);
}

/// Until the statement counts something.
async fn wait_for(server: &Arc<PostgresServer>, count: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (asked, statement) = (Arc::clone(server), count.to_owned());
        let counted = tokio::task::spawn_blocking(move || asked.sql(&asked.url(), &statement)).await.unwrap();
        if counted.trim() != "0" {
            return;
        }
        assert!(Instant::now() < deadline, "nothing: {count}");
    }
}
