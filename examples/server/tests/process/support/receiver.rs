//! A receiver of webhooks that keeps a ledger of what arrived.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use webhook_core::{Clock, Secret, SystemClock, verify_ingest};

use super::client::{read_headers, read_line};

/// One attempt as the receiver saw it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: String,
    pub(crate) webhook_id: String,
    pub(crate) attempt: u32,
    pub(crate) signature: String,
    pub(crate) verified: bool,
    pub(crate) status: u16,
    pub(crate) at: Instant,
}

/// The status of an answer, and how long it takes.
type Behaviour = dyn Fn(&Arrival) -> (u16, Duration) + Send + Sync;

#[derive(Clone)]
pub(crate) struct Receiver {
    addr: SocketAddr,
    book: Arc<Book>,
}

struct Book {
    behaviour: Box<Behaviour>,
    secrets: Mutex<HashMap<String, Secret>>,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Receiver {
    pub(crate) async fn start(behaviour: impl Fn(&Arrival) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let book =
            Arc::new(Book { behaviour: Box::new(behaviour), secrets: Mutex::default(), arrivals: Mutex::default() });
        let shared = Arc::clone(&book);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).converse(stream));
            }
        });
        Self { addr, book }
    }

    /// Answers everything with 200, at once.
    pub(crate) async fn willing() -> Self {
        Self::start(|_| (200, Duration::ZERO)).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Signatures on that path must verify with the secret.
    pub(crate) fn trust(&self, path: &str, secret: &str) {
        self.book.secrets.lock().unwrap().insert(path.to_owned(), Secret::new(secret));
    }

    pub(crate) fn count(&self) -> usize {
        self.book.arrivals.lock().unwrap().len()
    }

    /// In the order of their arrival.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.book.arrivals.lock().unwrap().clone()
    }
}

impl Book {
    async fn converse(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Ok(line) = read_line(&mut stream).await {
            let Ok(headers) = read_headers(&mut stream).await else { return };
            let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            let mut body = vec![0; text("content-length").parse().unwrap()];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
            let path = line.split(' ').nth(1).unwrap().to_owned();
            let secret = self.secrets.lock().unwrap().get(&path).cloned();
            let mut arrival = Arrival {
                path,
                webhook_id: text("webhook-id"),
                attempt: text("webhook-attempt").parse().unwrap(),
                signature: text("webhook-signature"),
                verified: secret
                    .is_some_and(|secret| verify_ingest(&secret, &headers, &body, SystemClock.now()).is_ok()),
                status: 0,
                at: Instant::now(),
            };
            let (status, delay) = (self.behaviour)(&arrival);
            arrival.status = status;
            self.arrivals.lock().unwrap().push(arrival);
            sleep(delay).await;
            let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
