//! Callers that emit: through the library, or through HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use webhook_core::{EventType, NewEvent, SubscriptionDraft, TenantId, Webhooks};

use crate::Error;
use crate::receiver::payload;

/// Someone who can emit.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Library(Webhooks),
    Http(Box<Client<HttpConnector, Full<Bytes>>>, SocketAddr),
}

impl Caller {
    pub(crate) fn http(addr: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self::Http(Box::new(Client::builder(TokioExecutor::new()).build(connector)), addr)
    }

    /// Sends a body of JSON to the API.
    pub(crate) async fn send(&self, path: &str, body: String) -> Result<(), Error> {
        self.post(path, body).await
    }

    pub(crate) async fn subscribe(&self, url: &str) -> Result<(), Error> {
        match self {
            Self::Library(webhooks) => {
                webhooks.subscribe(&TenantId::default(), SubscriptionDraft::new(url)).await?;
                Ok(())
            }
            Self::Http(..) => self.post("/subscriptions", format!("{{\"target_url\":\"{url}\"}}")).await,
        }
    }

    pub(crate) async fn emit(&self, event_type: &EventType, size: usize) -> Result<(), Error> {
        match self {
            Self::Library(webhooks) => {
                webhooks.emit(&TenantId::default(), NewEvent::new(event_type.clone(), payload(size))).await?;
                Ok(())
            }
            Self::Http(..) => {
                let body = format!("{{\"event_type\":\"{event_type}\",\"payload\":{}}}", payload(size));
                self.post("/events", body).await
            }
        }
    }

    async fn post(&self, path: &str, body: String) -> Result<(), Error> {
        let Self::Http(client, addr) = self else { return Ok(()) };
        let request = http::Request::post(format!("http://{addr}{path}")).header("content-type", "application/json");
        let answer = client.request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body)).into())
        }
    }

    /// Emits so many events from `concurrency` callers; how long that took.
    pub(crate) async fn flood(&self, events: usize, concurrency: usize, size: usize) -> Result<Duration, Error> {
        let left = Arc::new(AtomicUsize::new(events));
        let start = Instant::now();
        let callers = (0..concurrency).map(|_| {
            let (caller, left) = (self.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let event_type: EventType = "bench.event".parse()?;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    caller.emit(&event_type, size).await?;
                }
                Ok::<_, Error>(())
            })
        });
        for caller in futures_util::future::join_all(callers).await {
            caller??;
        }
        Ok(start.elapsed())
    }
}
