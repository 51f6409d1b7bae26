//! A caller of the API that keeps its connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::Message;

/// A caller who got no answer by then asks again, and may have been heard.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Client {
    addr: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None }
    }

    /// Sends a request with that API key.
    pub(crate) async fn send(&mut self, method: &str, path: &str, key: &str, body: &[u8]) -> io::Result<Answer> {
        let stream = self.stream.take();
        let (stream, answer) = timeout(PATIENCE, exchange(self.addr, stream, method, path, key, body)).await??;
        if answer.header("connection") != "close" {
            self.stream = Some(stream);
        }
        let status = answer.second().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Answer { status, body: answer.body })
    }
}

async fn exchange(
    addr: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    method: &str,
    path: &str,
    key: &str,
    body: &[u8],
) -> io::Result<(BufReader<TcpStream>, Message)> {
    let mut stream = match stream {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len(),
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let answer = Message::read(&mut stream).await?;
    Ok((stream, answer))
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body of an answer with that status.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}
