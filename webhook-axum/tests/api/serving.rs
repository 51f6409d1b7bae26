//! Real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use webhook_axum::{ServeOptions, serve};

use crate::host::{ACME, Host, READ};

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(router: Router, options: ServeOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, shutdown.clone(), options));
    Server { address, shutdown, task }
}

fn short() -> ServeOptions {
    let mut options = ServeOptions::default();
    options.header_timeout = Duration::from_millis(100);
    options.body_timeout = Duration::from_millis(100);
    options.grace = Duration::from_secs(5);
    options
}

async fn everything(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_carry_the_callers_address() {
    let router = Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()));
    let server = start(router, ServeOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    assert!(everything(&mut stream).await.ends_with(&own));
    server.shutdown.cancel();
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn slow_heads_are_cut_off() {
    let server = start(Router::new(), short()).await;
    for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), everything(&mut stream)).await;
        assert!(ended.is_ok(), "{beginning:?} is still connected");
    }
}

#[tokio::test]
async fn slow_bodies_are_cut_off() {
    let host = Host::new();
    let server = start(host.router, short()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ACME}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{\"event"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), everything(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("body_timeout"), "{answer}");
}

#[tokio::test]
async fn what_is_under_way_ends_before_the_server() {
    let (arrived, proceed) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
    let (inside, go) = (arrived.clone(), proceed.clone());
    let router = Router::new().route(
        "/",
        post(async move || {
            inside.notify_one();
            go.notified().await;
            "done"
        }),
    );
    let server = start(router, ServeOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    arrived.notified().await;
    server.shutdown.cancel();
    proceed.notify_one();
    assert!(everything(&mut stream).await.ends_with("done"));
    server.task.await.unwrap();
}

#[tokio::test]
async fn the_grace_is_not_endless() {
    let arrived = std::sync::Arc::new(Notify::new());
    let inside = arrived.clone();
    let router = Router::new().route(
        "/",
        get(async move || {
            inside.notify_one();
            std::future::pending::<()>().await;
        }),
    );
    let mut options = short();
    options.grace = Duration::from_millis(50);
    let server = start(router, options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    arrived.notified().await;
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn to_drop_it_cuts_off_what_is_under_way() {
    let arrived = std::sync::Arc::new(Notify::new());
    let inside = arrived.clone();
    let router = Router::new().route(
        "/",
        get(async move || {
            inside.notify_one();
            std::future::pending::<()>().await;
        }),
    );
    let server = start(router, ServeOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    arrived.notified().await;
    server.task.abort();
    tokio::time::timeout(Duration::from_secs(5), everything(&mut stream)).await.unwrap();
}

/// Sends all of a request before it reads, as many clients do; the answer, to its end.
async fn written_before_read(server: &Server, head: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server.address).await?;
    let head = format!("{head}\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether the answer is whole.
#[track_caller]
fn assert_answered(answer: std::io::Result<String>, status: u16) {
    let answer = answer.unwrap_or_else(|error| panic!("in place of a {status}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(head.contains("connection: close"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
}

#[tokio::test]
async fn callers_that_write_all_before_they_read_see_the_answer() {
    let host = Host::new();
    let path = host.path(serde_json::json!({})).await;
    let server = start(host.router, ServeOptions::default()).await;
    let json = "content-type: application/json";
    let body = vec![b' '; 4 << 20];
    for (head, status) in [
        (format!("POST /events HTTP/1.1\r\n{json}"), 401),
        (format!("POST /events HTTP/1.1\r\n{json}\r\nconnection: close"), 401),
        (format!("POST /events HTTP/1.1\r\n{json}\r\nauthorization: Bearer {READ}"), 403),
        (format!("POST /webhook/unknown HTTP/1.1\r\n{json}"), 404),
        (format!("PUT /events HTTP/1.1\r\n{json}\r\nauthorization: Bearer {ACME}"), 405),
        (format!("POST /events HTTP/1.1\r\n{json}\r\nauthorization: Bearer {ACME}"), 413),
        (format!("POST /events HTTP/1.1\r\nauthorization: Bearer {ACME}"), 415),
        (format!("POST /events HTTP/1.1\r\n{json}\r\nauthorization: Bearer {ACME}\r\nidempotency-key: a b"), 422),
    ] {
        assert_answered(written_before_read(&server, &head, &body).await, status);
    }
    let body = vec![b' '; 20 << 20];
    assert_answered(written_before_read(&server, &format!("POST /webhook/{path} HTTP/1.1"), &body).await, 413);
}

#[tokio::test]
async fn who_asks_before_it_sends_is_not_invited_to_send_for_nothing() {
    let server = start(Host::new().router, ServeOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /events HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4194304\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = everything(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn who_goes_on_sending_after_the_answer_is_cut_off() {
    let mut options = ServeOptions::default();
    options.body_timeout = Duration::from_millis(300);
    let server = start(Host::new().router, options).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 4194304\r\n\r\n").await.unwrap();
    assert!(everything(&mut stream).await.starts_with("HTTP/1.1 401"));
    let drip = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), drip).await.expect("it may send for ever");
    server.shutdown.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let server = start(Host::new().router, ServeOptions::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // Answered without its body, which is drained all the same.
    stream.write_all(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 401");
    server.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(1), server.task).await.expect("it waits for nothing").unwrap();
}
