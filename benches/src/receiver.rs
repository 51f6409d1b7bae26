//! A receiver that costs as little as possible: answers 200, counts, and knows how old each payload is. On some paths it
//! is a bad neighbour.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::histogram::Percentiles;
use crate::{Error, nanos};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Serves on a free port, which it prints. `GET` tells the ages of the payloads that came, `OPTIONS` only their number,
/// `DELETE` forgets them.
pub(crate) async fn serve() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let ages = Rc::new(RefCell::new(Vec::new()));
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let ages = Rc::clone(&ages);
                tokio::task::spawn_local(async move {
                    // A client that goes away is no error of the receiver.
                    let _ = connection(stream, ages).await;
                });
            }
        })
        .await
}

async fn connection(mut stream: TcpStream, ages: Rc<RefCell<Vec<u64>>>) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let (head, length) = loop {
            if let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break (head + 4, content_length(&buffer[..head]));
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        if let Some(temper) = Temper::of(&buffer) {
            return temper.show(stream).await;
        }
        if buffer.starts_with(b"POST") {
            let sent = sent_at(&buffer[head..head + length]);
            ages.borrow_mut().push(nanos().saturating_sub(sent) / 1000);
            stream.write_all(ANSWER).await?;
        } else {
            let figures = if buffer.starts_with(b"GET") {
                Percentiles::of(ages.borrow().clone())
            } else {
                if buffer.starts_with(b"DELETE") {
                    ages.borrow_mut().clear();
                }
                // Whoever only waits must not keep the receiver busy with sorting.
                Percentiles { count: ages.borrow().len(), ..Percentiles::default() }
            };
            let body = serde_json::to_string(&figures).unwrap_or_default();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await?;
        }
        buffer.drain(..head + length);
    }
}

/// How an endpoint behaves that does others no good.
#[derive(Clone, Copy, Debug)]
enum Temper {
    /// It never answers.
    Hangs,
    /// It answers a byte a second, for ever.
    Drips,
    /// It answers 300 MB.
    Floods,
}

impl Temper {
    fn of(request: &[u8]) -> Option<Self> {
        [("POST /hang", Self::Hangs), ("POST /drip", Self::Drips), ("POST /flood", Self::Floods)]
            .into_iter()
            .find_map(|(start, temper)| request.starts_with(start.as_bytes()).then_some(temper))
    }

    async fn show(self, mut stream: TcpStream) -> std::io::Result<()> {
        const LENGTH: usize = 300_000_000;
        if !matches!(self, Self::Hangs) {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n").as_bytes()).await?;
        }
        match self {
            Self::Hangs => {
                // Until the other side gives up.
                while stream.read(&mut [0; 1024]).await? > 0 {}
            }
            Self::Drips => loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            },
            Self::Floods => {
                let piece = vec![b'x'; 65_536];
                for _ in 0..LENGTH.div_ceil(piece.len()) {
                    stream.write_all(&piece).await?;
                }
            }
        }
        Ok(())
    }
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let start = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME));
    let digits = start.map_or(&[][..], |start| &head[start + NAME.len()..]);
    let digits = digits.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

/// The payload starts with `{"sent":` and the time in nanoseconds.
fn sent_at(body: &[u8]) -> u64 {
    let digits = body.iter().skip(8).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0'))
}

/// A payload of that size that says when it was made.
pub(crate) fn payload(size: usize) -> String {
    let head = format!("{{\"sent\":{},\"padding\":\"", nanos());
    let padding = size.saturating_sub(head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(padding))
}
