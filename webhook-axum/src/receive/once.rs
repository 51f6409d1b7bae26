//! Handling each message once.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt as _};
use webhook_core::{Beginning, Handling, ReceiptKey, Receipts, Source, TenantId};

use super::answer::{self, Answer};
use super::figure::{self, Ending};
use crate::problem::Problem;

/// How long a repeat waits for the first one, unless the host says otherwise.
const WAIT: Duration = Duration::from_secs(3);
/// How often it looks meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// Each message is handled once: for [`VerifyLayer::once`](super::VerifyLayer::once).
///
/// - Messages without an id are handled each time they come: see [`VerifyLayer::message_id`](super::VerifyLayer::message_id).
/// - A repeat is answered as the first one was: its status, headers and up to 64 KiB of body, without cookies.
/// - A repeat that comes while the first one is handled waits for its answer, and gets 409 when that takes too long.
/// - A handler that answers anything but 2xx, or panics, has failed: nothing is remembered, and a repeat is handled. To
///   senders such an answer is a failure, too: they send again (Standard Webhooks, "Retries and failures").
/// - Another body under a known id gets 409.
/// - When the store is away nothing is handled, and the answer is 503.
///
/// The handler goes on when its caller has gone away. When the process ends while it runs, the message is handled again
/// after the lease: handlers that must not do a thing twice keep the message id in the transaction that does it.
#[derive(Clone, Debug)]
pub struct Once {
    receipts: Receipts,
    tenant: TenantId,
    source: Source,
    wait: Duration,
}

impl Once {
    /// Messages from `source`, remembered by `receipts` for the default tenant.
    pub fn new(receipts: Receipts, source: Source) -> Self {
        Self { receipts, tenant: TenantId::default(), source, wait: WAIT }
    }

    /// For that tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = tenant;
        self
    }

    /// How long a repeat waits for the first one: 3 s.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(super) async fn handle<S>(
        &self,
        scheme: &'static str,
        id: String,
        body: &[u8],
        inner: S,
        request: Request,
    ) -> Result<Response, S::Error>
    where
        S: Service<Request, Response = Response> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
    {
        let handling = match self.begin(scheme, id, body).await {
            Ok(handling) => handling,
            Err(answer) => return Ok(answer),
        };
        figure::count(scheme, Ending::Accepted);
        // In a task of its own, so that a caller who goes away does not leave it half done.
        let handled = tokio::spawn(run(handling, inner, request));
        match handled.await {
            Ok(answer) => answer,
            Err(_) => Ok(Problem::internal().into_response()),
        }
    }

    /// The right to handle the message, or an answer in its place.
    async fn begin(&self, scheme: &'static str, id: String, body: &[u8]) -> Result<Handling, Response> {
        let problem = |error: webhook_core::Error| Problem::from(error).into_response();
        let key = ReceiptKey::new(self.tenant.clone(), self.source.clone(), id).map_err(problem)?;
        let patience = Instant::now() + self.wait;
        loop {
            match self.receipts.begin(key.clone(), body).await.map_err(problem)? {
                Beginning::New(handling) => return Ok(handling),
                Beginning::Handled(stored) => {
                    figure::count(scheme, Ending::Repeated);
                    return Err(answer::read(&stored));
                }
                Beginning::InProgress(_) if Instant::now() < patience => sleep(PAUSE).await,
                Beginning::InProgress(_) => {
                    figure::count(scheme, Ending::Busy);
                    return Err(busy());
                }
                Beginning::Conflict => {
                    figure::count(scheme, Ending::Conflict);
                    let detail = "another message was sent under this id";
                    return Err(Problem::new(StatusCode::CONFLICT, "message_id_reused", detail).into_response());
                }
            }
        }
    }
}

fn busy() -> Response {
    let detail = "the message is being handled right now";
    let mut response = Problem::new(StatusCode::CONFLICT, "in_progress", detail).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn run<S>(handling: Handling, inner: S, request: Request) -> Result<Response, S::Error>
where
    S: Service<Request, Response = Response>,
{
    // It was ready already; a service that was not would be called too early.
    match AssertUnwindSafe(inner.oneshot(request)).catch_unwind().await {
        Ok(Ok(response)) if response.status().is_success() => {
            let (response, answer) = Answer::of(response).await;
            remember(handling, &answer).await;
            Ok(response)
        }
        Ok(outcome) => {
            forget(handling).await;
            outcome
        }
        Err(_) => {
            tracing::error!("a handler panicked; its message may be tried again");
            forget(handling).await;
            Ok(Problem::internal().into_response())
        }
    }
}

async fn remember(handling: Handling, answer: &[u8]) {
    match handling.complete(answer).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!("a handler took longer than its lease; its message may have been handled twice"),
        Err(error) => tracing::error!(%error, "a handled message is not remembered; a repeat will be handled again"),
    }
}

async fn forget(handling: Handling) {
    if let Err(error) = handling.fail().await {
        tracing::warn!(%error, "a failed message is not free before its lease ends");
    }
}
