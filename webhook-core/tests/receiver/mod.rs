//! A receiver written by hand, that can do all that an endpoint should not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Listens on a free port of 127.0.0.1 until the test ends.
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<String>,
}

impl Receiver {
    /// Hands each connection to `behaviour`.
    pub(crate) async fn behaving<B, F>(behaviour: B) -> Self
    where
        B: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(behaviour(stream));
            }
        });
        Self { addr, connections, requests: mpsc::unbounded_channel().1 }
    }

    /// Answers each request with the same bytes, and keeps the connection.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let answer = Arc::new(answer.into());
        let receiver = Self::behaving(move |mut stream| {
            let (sender, answer) = (sender.clone(), Arc::clone(&answer));
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let _ = sender.send(request);
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            }
        })
        .await;
        Self { requests, ..receiver }
    }

    /// Reads a request, writes `answer` and goes on with `then`.
    pub(crate) async fn answering_then<T, F>(answer: &'static str, then: T) -> Self
    where
        T: Fn(TcpStream) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::behaving(move |mut stream| {
            let then = then.clone();
            async move {
                read_request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                then(stream).await;
            }
        })
        .await
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next request, head and body.
    pub(crate) async fn request(&mut self) -> String {
        self.requests.recv().await.unwrap()
    }
}

/// One request with its body; `None` at the end of the connection.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
