//! An HTTP receiver that answers as it is told, and remembers what came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: tokio::time::Instant,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What a receiver answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(u16),
    With(u16, &'static str),
    After(Duration, u16),
    Never,
}

type Script = dyn Fn(&Received, usize) -> Answer + Send + Sync;

/// A receiver on a port of its own.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Received>>>,
    arrived: Arc<Notify>,
}

impl Receiver {
    pub(crate) async fn start(script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self { addr: listener.local_addr().unwrap(), seen: Arc::default(), arrived: Arc::default() };
        let (script, accepting): (Arc<Script>, _) = (Arc::new(script), receiver.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (receiver, script) = (accepting.clone(), Arc::clone(&script));
                tokio::spawn(async move { receiver.serve(stream, &*script).await });
            }
        });
        receiver
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until so many requests have come, for as long as some come at all.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        loop {
            let arrived = self.arrived.notified();
            let seen = self.seen.lock().unwrap().len();
            if seen >= count {
                return self.seen();
            }
            let another = tokio::time::timeout(Duration::from_secs(20), arrived).await;
            assert!(another.is_ok(), "{seen} of {count} requests came");
        }
    }

    async fn serve(&self, mut stream: TcpStream, script: &Script) {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            let count = {
                let mut seen = self.seen.lock().unwrap();
                seen.push(request.clone());
                seen.len()
            };
            self.arrived.notify_waiters();
            let (status, extra) = match script(&request, count) {
                Answer::Status(status) => (status, ""),
                Answer::With(status, extra) => (status, extra),
                Answer::After(delay, status) => {
                    tokio::time::sleep(delay).await;
                    (status, "")
                }
                Answer::Never => std::future::pending().await,
            };
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{extra}\r\nok");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(Received { path, headers, body, at: tokio::time::Instant::now() })
}
