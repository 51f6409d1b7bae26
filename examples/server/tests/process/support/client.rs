//! A small HTTP/1.1 client that keeps its connection and hides nothing.

use std::io;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

pub(crate) struct Client {
    addr: SocketAddr,
    headers: String,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, headers: String::new(), stream: None }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// With one more header in each request.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, b"").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.send("POST", path, body.to_string().as_bytes()).await
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(self.addr).await?),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n",
            self.addr,
            body.len(),
            self.headers
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let answer = timeout(PATIENCE, read_answer(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if answer.headers.get("connection").is_none_or(|value| value != "close") {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of an answer with that status.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// One answer; an error with the kind `UnexpectedEof` when the connection ends before its first byte, and
/// `InvalidData` when it ends in the middle.
pub(crate) async fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let cut = |_| io::Error::from(io::ErrorKind::InvalidData);
    let status = read_line(stream).await?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let headers = read_headers(stream).await.map_err(cut)?;
    let length = headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(cut)?;
    Ok(Answer { status, headers, body })
}

pub(crate) async fn read_headers(stream: &mut BufReader<TcpStream>) -> io::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    loop {
        let line = read_line(stream).await?;
        let Some((name, value)) = line.split_once(':') else { return Ok(headers) };
        headers.append(
            name.parse::<HeaderName>().map_err(io::Error::other)?,
            value.trim().parse::<HeaderValue>().map_err(io::Error::other)?,
        );
    }
}

pub(crate) async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if !line.ends_with('\n') => Err(io::ErrorKind::InvalidData.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
