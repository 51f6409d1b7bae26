//! A small HTTP/1.1 client, one connection for each request.

use std::net::SocketAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::service::PATIENCE;

pub(crate) const SECRET: &str = "a canary that no log shows";

#[derive(Clone, Copy)]
pub(crate) struct Client(pub(crate) SocketAddr);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn get(self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// Signed as it should be.
    pub(crate) async fn post(self, body: &Value) -> Answer {
        let body = body.to_string();
        self.send("POST", "/webhook", &[("X-Signature", &sign(SECRET, body.as_bytes()))], body.as_bytes()).await
    }

    pub(crate) async fn send(self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        timeout(PATIENCE, self.exchange(method, path, headers, body)).await.expect("no answer").unwrap()
    }

    async fn exchange(
        self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.0).await?;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }
}

impl Answer {
    /// The JSON of an answer with that status.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        serde_json::from_str(&self.body).expect(&self.body)
    }
}

/// The HMAC-SHA256 in hex.
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

pub(crate) fn message(id: &str, from: &str, ts: &str, text: &str) -> Value {
    json!({ "message_id": id, "from": from, "to": "+14155550100", "ts": ts, "text": text })
}
