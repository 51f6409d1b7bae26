//! Storing what was received, to be handled later.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};
use tower::Service;
use webhook_core::{ReceivedMessage, Source, TenantId, Webhooks};

use super::verified::Proof;
use crate::body;
use crate::problem::Problem;

/// The service inside of a [`VerifyLayer`](super::VerifyLayer) that stores each message and answers 200 with nothing in it:
/// within the sender's time, whatever the handler needs. The handler, given to the engine by
/// [`WebhooksBuilder::inbox`](webhook_core::WebhooksBuilder::inbox), is called from the store, with leases and retries like a
/// delivery; a crash in between loses nothing.
///
/// A message with an id is stored once, so no [`Once`](super::Once) is needed. Another body under a known id gets 409, and
/// 503 means that the message may not be stored: the sender should send it again.
///
/// ```
/// # use std::sync::Arc;
/// use axum::Router;
/// use tower::Layer as _;
/// use webhook_axum::{Inbox, VerifyLayer};
/// use webhook_core::verify::{GitHub, LiveSecrets};
/// # use webhook_core::{MemoryStore, Webhooks};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let webhooks = Webhooks::builder(Arc::new(MemoryStore::new())).build()?;
/// let github = VerifyLayer::new(GitHub::new(LiveSecrets::one("a secret of GitHub's".to_owned())?));
/// let inbox = Inbox::new(webhooks, "github".parse()?).keep_header("x-github-event".parse()?);
/// let app: Router = Router::new().route_service("/github", github.layer(inbox));
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Inbox {
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    webhooks: Webhooks,
    tenant: TenantId,
    source: Source,
    kept: Vec<HeaderName>,
}

impl Inbox {
    /// For the handler of that source, and the default tenant.
    pub fn new(webhooks: Webhooks, source: Source) -> Self {
        Self { settings: Arc::new(Settings { webhooks, tenant: TenantId::default(), source, kept: Vec::new() }) }
    }

    /// For that tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        Arc::make_mut(&mut self.settings).tenant = tenant;
        self
    }

    /// The handler sees the first value of this header as `headers` of the message's metadata, beside `scheme` and
    /// `message_id`.
    #[must_use]
    pub fn keep_header(mut self, name: HeaderName) -> Self {
        Arc::make_mut(&mut self.settings).kept.push(name);
        self
    }
}

impl Service<Request> for Inbox {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            match settings.store(request).await {
                Ok(()) => Ok(StatusCode::OK.into_response()),
                Err(problem) => Ok(problem.into_response()),
            }
        })
    }
}

impl Settings {
    async fn store(&self, request: Request) -> Result<(), Problem> {
        let (parts, body) = request.into_parts();
        let Some(proof) = parts.extensions.get::<Arc<Proof>>().cloned() else {
            tracing::error!(path = parts.uri.path(), "an inbox has no `VerifyLayer`");
            return Err(Problem::internal());
        };
        // It was read before, within the layer's limit.
        let payload = body::read(&parts.headers, body, usize::MAX).await?;
        let mut message = ReceivedMessage::new(payload);
        if let Some(content_type) = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
            message.content_type = content_type.to_owned();
        }
        message.metadata = Some(self.metadata(&proof, &parts.headers));
        message.message_id = proof.message_id.clone();
        self.webhooks.receive(&self.tenant, &self.source, message).await?;
        Ok(())
    }

    fn metadata(&self, proof: &Proof, headers: &HeaderMap) -> Value {
        let kept = self.kept.iter().filter_map(|name| {
            let value = headers.get(name)?;
            Some((name.as_str().to_owned(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        });
        json!({ "scheme": proof.scheme, "message_id": proof.message_id, "headers": Value::Object(kept.collect()) })
    }
}
