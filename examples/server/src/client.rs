//! One HTTP/1.1 request over a connection of its own: all that asking a server next door takes.

use std::io;
use std::net::SocketAddr;

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than any answer that is asked for here.
const MAX_ANSWER: u64 = 8 << 20;

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

pub(crate) async fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    send(addr, "GET", path, &[]).await
}

pub(crate) async fn post(addr: SocketAddr, path: &str, body: &Value) -> io::Result<Answer> {
    send(addr, "POST", path, body.to_string().as_bytes()).await
}

async fn send(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(addr).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    parse(answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// The connection's end is the body's end; nothing here is sent in chunks.
fn parse(mut answer: Vec<u8>) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    Some(Answer { status: StatusCode::from_bytes(status).ok()?, body })
}

impl Answer {
    pub(crate) fn json(&self) -> io::Result<Value> {
        serde_json::from_slice(&self.body).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_an_answer_apart() {
        let answer = parse(b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{}".to_vec()).unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (503, b"{}".as_slice()));
        for text in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 2\r\n\r\n"] {
            assert!(parse(text.into()).is_none(), "{text}");
        }
    }
}
