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

use crate::host::{ACME, Host};

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
