//! SIGTERM: what is under way ends, nothing comes twice, and the rest is delivered after the next start (I13).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::client::{read_answer, read_line};
use crate::support::database::Database;
use crate::support::receiver::Receiver;
use crate::support::senders::Senders;
use crate::support::server::{Server, database_url, output, program, sqlite_url, stderr};
use crate::support::until;

const EVENTS: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_cuts_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| (200, Duration::from_millis(200))).await;
    let mut server = Server::start(directory.path(), &[]).await;
    let wanted = json!({"target_url": receiver.url("/hooks")});
    let made = server.client().post("/subscriptions", &wanted).await.unwrap().expect(201);
    receiver.trust("/hooks", made["secret"].as_str().unwrap());

    let senders = Senders::start(8, EVENTS, server.addr());
    senders.allow(EVENTS);
    until("there is load", async || (receiver.arrivals().len() >= 100).then_some(())).await;
    let upload = Upload::begin(&server).await;
    server.signal("TERM").await;
    let signalled = Instant::now();
    until("the server stops", async || {
        server.lines().json().iter().any(|line| line["signal"] == "SIGTERM").then_some(())
    })
    .await;
    assert_eq!(upload.end().await, 202, "a request in flight was cut");
    assert!(server.ended().await.success());
    let took = signalled.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let before = receiver.arrivals().len();

    let server = Server::start(directory.path(), &[]).await;
    senders.turn_to(server.addr());
    let (events, cut) = senders.finish().await;
    assert_eq!(cut, 0, "answers that broke off");
    assert!(!events.iter().any(|event| event.duplicate), "an event was accepted, and its answer cut");
    until("everything is delivered", async || (receiver.arrivals().len() > EVENTS).then_some(())).await;
    server.stop().await;

    let arrivals = receiver.arrivals();
    let ids: BTreeSet<_> = arrivals.iter().map(|arrival| &arrival.webhook_id).collect();
    // The upload's event, too.
    assert_eq!((ids.len(), arrivals.len()), (EVENTS + 1, EVENTS + 1), "each event arrives once");
    assert!(arrivals.iter().all(|arrival| arrival.verified && arrival.attempt == 1));
    let mut database = Database::open(&sqlite_url(directory.path())).await;
    assert_eq!((database.delivered().await, database.lost_leases().await), (EVENTS + 1, 0));
    println!("stopped after {took:?}; {before} events delivered before, {} after", arrivals.len() - before);
}

/// A request whose body comes late.
struct Upload {
    stream: BufReader<TcpStream>,
}

const UPLOAD: &str = r#"{"event_type": "test.uploaded", "payload": {}}"#;

impl Upload {
    /// Until the server waits for the body.
    async fn begin(server: &Server) -> Self {
        let mut stream = BufReader::new(TcpStream::connect(server.addr()).await.unwrap());
        let head = format!(
            "POST /events HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\n\r\n",
            UPLOAD.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(read_line(&mut stream).await.unwrap().contains("100"));
        assert_eq!(read_line(&mut stream).await.unwrap(), "");
        Self { stream }
    }

    /// The status of the answer.
    async fn end(mut self) -> u16 {
        self.stream.write_all(UPLOAD.as_bytes()).await.unwrap();
        read_answer(&mut self.stream).await.unwrap().status
    }
}

#[tokio::test]
async fn while_it_stops_it_says_that_it_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| (200, Duration::from_secs(2))).await;
    let server = Server::start(directory.path(), &[]).await;
    let wanted = json!({"target_url": receiver.url("/hooks")});
    server.client().post("/subscriptions", &wanted).await.unwrap().expect(201);
    let event = json!({"event_type": "test.sent", "payload": {}});
    server.client().post("/events", &event).await.unwrap().expect(202);
    stops_unready(server, &receiver).await;
    let mut database = Database::open(&sqlite_url(directory.path())).await;
    assert_eq!((database.delivered().await, database.lost_leases().await), (1, 0));
}

/// Stops a server while it waits for the receiver's answer.
pub(crate) async fn stops_unready(mut server: Server, receiver: &Receiver) {
    until("the attempt is under way", async || (receiver.count() > 0).then_some(())).await;
    assert_eq!(server.client().get("/health/ready").await.unwrap().status, 200);
    server.signal("TERM").await;
    until("the server stops", async || {
        server.lines().json().iter().any(|line| line["signal"] == "SIGTERM").then_some(())
    })
    .await;
    // On a new connection each time.
    let ready = until("it is not ready", async || {
        let answer = server.client().get("/health/ready").await.expect("it listens while it delivers");
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("not_ready")));
    assert_eq!(server.client().get("/health/live").await.unwrap().status, 200);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| (200, Duration::from_secs(3600))).await;
    let mut server = Server::start(directory.path(), &["--delivery-timeout=25"]).await;
    let wanted = json!({"target_url": receiver.url("/hooks")});
    server.client().post("/subscriptions", &wanted).await.unwrap().expect(201);
    let event = json!({"event_type": "test.sent", "payload": {}});
    server.client().post("/events", &event).await.unwrap().expect(202);
    until("the attempt hangs", async || (!receiver.arrivals().is_empty()).then_some(())).await;
    server.signal("TERM").await;
    until("the server stops", async || {
        server.lines().json().iter().any(|line| line["signal"] == "SIGTERM").then_some(())
    })
    .await;
    let signalled = Instant::now();
    server.signal("INT").await;
    assert_eq!(server.ended().await.code(), Some(1));
    assert!(signalled.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    for command in ["serve", "migrate"] {
        let second = output(program().args([command, "--listen=127.0.0.1:0", &database_url(directory.path())])).await;
        assert_eq!(second.status.code(), Some(1));
        assert!(stderr(&second).contains("in use by another store: only one process may open it"), "{second:?}");
    }
    assert_eq!(server.client().get("/health/ready").await.unwrap().status, 200);
    server.stop().await;
}
