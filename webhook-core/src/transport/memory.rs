//! A transport for tests, without a network.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use tokio::sync::watch;

use super::{OutboundRequest, OutboundResponse, Transport, TransportError};
use crate::ErrorKind;

type Script = dyn Fn(&OutboundRequest) -> Result<OutboundResponse, TransportError> + Send + Sync;

/// Records requests and answers them by a script.
///
/// Clones share the record. Time is tokio's, so a paused clock works.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::{Method, StatusCode};
/// use webhook_core::transport::{OutboundRequest, OutboundResponse, RecordingTransport, Transport};
///
/// let transport = RecordingTransport::new().answering(|_| Ok(OutboundResponse::new(StatusCode::GONE)));
/// let request = OutboundRequest::new(Method::POST, "https://example.com/".parse()?).with_body("{}");
/// assert_eq!(transport.send(request).await?.status, StatusCode::GONE);
/// assert_eq!(transport.wait_for(1).await[0].body, "{}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RecordingTransport {
    script: Arc<Script>,
    delay: Duration,
    requests: watch::Sender<Vec<OutboundRequest>>,
    hanging: watch::Sender<bool>,
}

impl RecordingTransport {
    /// A transport that answers everything with 200 at once.
    pub fn new() -> Self {
        Self {
            script: Arc::new(|_| Ok(OutboundResponse::new(StatusCode::OK))),
            delay: Duration::ZERO,
            requests: watch::Sender::default(),
            hanging: watch::Sender::default(),
        }
    }

    /// Answers with what `script` returns; it is called once for each request.
    #[must_use]
    pub fn answering<F>(mut self, script: F) -> Self
    where
        F: Fn(&OutboundRequest) -> Result<OutboundResponse, TransportError> + Send + Sync + 'static,
    {
        self.script = Arc::new(script);
        self
    }

    /// Lets each answer take `delay`; one past the request's total deadline is a timeout.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Holds all answers back, past every deadline, until [`resume`](Self::resume).
    pub fn hang(&self) {
        self.hanging.send_replace(true);
    }

    /// Ends [`hang`](Self::hang).
    pub fn resume(&self) {
        self.hanging.send_replace(false);
    }

    /// The requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<OutboundRequest> {
        self.requests.borrow().clone()
    }

    /// Waits until `count` requests have arrived, and returns all of them.
    pub async fn wait_for(&self, count: usize) -> Vec<OutboundRequest> {
        let mut requests = self.requests.subscribe();
        match requests.wait_for(|requests| requests.len() >= count).await {
            Ok(requests) => requests.clone(),
            // The sender is a part of self.
            Err(_) => self.requests(),
        }
    }
}

impl Default for RecordingTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RecordingTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingTransport")
            .field("requests", &self.requests.borrow().len())
            .field("delay", &self.delay)
            .field("hanging", &*self.hanging.borrow())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for RecordingTransport {
    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, TransportError> {
        let total = request.deadlines.total;
        let answer = (self.script)(&request);
        self.requests.send_modify(|requests| requests.push(request));
        // It fails only when the sender is gone, which is a part of self.
        let _ = self.hanging.subscribe().wait_for(|hanging| !hanging).await;
        if self.delay > total {
            tokio::time::sleep(total).await;
            return Err(TransportError::new(ErrorKind::Timeout, "no answer within the deadline"));
        }
        tokio::time::sleep(self.delay).await;
        answer
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http::Method;

    use super::super::Deadlines;
    use super::*;

    fn request(path: &str) -> OutboundRequest {
        OutboundRequest::new(Method::POST, format!("https://example.com/{path}").parse().unwrap())
    }

    #[tokio::test]
    async fn records_in_order_and_wakes_the_waiting() {
        let transport = RecordingTransport::new();
        let waiting = tokio::spawn({
            let transport = transport.clone();
            async move { transport.wait_for(2).await }
        });
        for path in ["a", "b"] {
            transport.send(request(path)).await.unwrap();
        }
        let paths: Vec<_> = waiting.await.unwrap().iter().map(|request| request.url.path().to_owned()).collect();
        assert_eq!(paths, ["/a", "/b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_past_the_deadline_is_a_timeout() {
        let transport = RecordingTransport::new().with_delay(Duration::from_secs(20));
        let error = transport.send(request("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let patient = request("b").with_deadlines(Deadlines::default().with_total(Duration::from_secs(30)));
        assert!(transport.send(patient).await.is_ok());
    }

    #[tokio::test]
    async fn hangs_until_resumed() {
        let transport = RecordingTransport::new();
        transport.hang();
        let mut sending = transport.send(request("a"));
        assert!((&mut sending).now_or_never().is_none());
        assert_eq!(transport.requests().len(), 1, "the request had arrived");
        transport.resume();
        assert!(sending.await.is_ok());
    }

    #[test]
    fn debug_shows_no_headers_values_query_or_body() {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", http::HeaderValue::from_static("Bearer s3cret"));
        let mut request = request("a").with_headers(headers).with_body("s3cret");
        request.url.set_query(Some("s3cret"));
        let shown = format!("{request:?}");
        assert!(!shown.contains("s3cret") && shown.contains("authorization"), "{shown}");
    }
}
