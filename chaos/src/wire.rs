//! HTTP/1.1 as it is on the wire, for those who want to see and to say everything.

use std::io;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// A request or an answer.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its first line.
    pub(crate) first: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads one whose body has a length.
    pub(crate) async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Self> {
        let first = read_line(stream).await?;
        let mut headers = HeaderMap::new();
        loop {
            let line = read_line(stream).await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.append(
                name.parse::<HeaderName>().map_err(io::Error::other)?,
                value.trim().parse::<HeaderValue>().map_err(io::Error::other)?,
            );
        }
        let mut message = Self { first, headers, body: Vec::new() };
        message.body = vec![0; message.header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut message.body).await?;
        Ok(message)
    }

    /// A header's value; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The second word of the first line: a request's target, or an answer's status.
    pub(crate) fn second(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
