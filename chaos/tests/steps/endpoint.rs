//! An endpoint that keeps a ledger.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::wire::Message;

/// What first attempts get; all others get 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    Succeeds,
    Fails,
    Hangs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) event: String,
    pub(crate) status: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    first: Arc<Mutex<First>>,
    arrivals: Arc<watch::Sender<Vec<Arrival>>>,
}

impl Endpoint {
    pub(crate) async fn start(first: First) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let endpoint = Self { addr, first: Arc::new(Mutex::new(first)), arrivals: Arc::default() };
        let serving = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.converse(stream).await });
            }
        });
        endpoint
    }

    /// First attempts get that from now on.
    pub(crate) fn first(&self, first: First) {
        *self.first.lock().unwrap() = first;
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.borrow().clone()
    }

    /// Once a request has arrived.
    pub(crate) async fn until_reached(&self) {
        self.arrivals.subscribe().wait_for(|arrivals| !arrivals.is_empty()).await.unwrap();
    }

    async fn converse(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Ok(request) = Message::read(&mut stream).await {
            let first =
                if request.header("webhook-attempt") == "1" { *self.first.lock().unwrap() } else { First::Succeeds };
            let status = match first {
                First::Succeeds => 200,
                First::Fails => 500,
                First::Hangs => 0,
            };
            let event = request.header("webhook-id").to_owned();
            self.arrivals.send_modify(|arrivals| arrivals.push(Arrival { event, status }));
            if status == 0 {
                let _ = stream.read_u8().await;
                return;
            }
            let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
