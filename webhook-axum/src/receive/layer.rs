//! The layer that lets verified requests through.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tower::{Layer, Service};
use url::Url;
use webhook_core::verify::{Handshake, Inbound, MessageIdRule, Verifier, VerifyFailure};
use webhook_core::{Clock, SystemClock};

use super::figure::{self, Ending};
use super::once::Once;
use super::verified::Proof;
use crate::body;
use crate::problem::Problem;

/// Bytes of a body at most, unless the host says otherwise.
const MAX_BODY: usize = 1024 * 1024;

/// Lets only requests through that a [`Verifier`] believes, and reads their bodies as they came for it.
///
/// Whoever sent another one gets 401 and learns no more; the reason is in the log, at INFO. Handshakes are answered here. Put
/// it around the route, outside of whatever decompresses bodies, so that it runs first: what was signed are the bytes that
/// were sent.
///
/// ```
/// use axum::{Json, Router, routing::post};
/// use webhook_axum::{Verified, VerifyLayer};
/// use webhook_core::verify::{GitHub, LiveSecrets};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let github = GitHub::new(LiveSecrets::one("It's a Secret to Everybody".to_owned())?);
/// let app: Router = Router::new()
///     .route("/github", post(pushed))
///     .layer(VerifyLayer::new(github));
///
/// async fn pushed(push: Verified<String>) {
///     println!("{:?}: {}", push.message_id, push.body);
/// }
/// # let _ = app;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct VerifyLayer {
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    verifier: Arc<dyn Verifier>,
    clock: Arc<dyn Clock>,
    public_url: Option<String>,
    max_body: usize,
    rule: MessageIdRule,
    once: Option<Once>,
}

impl VerifyLayer {
    /// By that scheme, with bodies of 1 MiB at most.
    pub fn new(verifier: impl Verifier) -> Self {
        let settings = Settings {
            verifier: Arc::new(verifier),
            clock: Arc::new(SystemClock),
            public_url: None,
            max_body: MAX_BODY,
            rule: MessageIdRule::Scheme,
            once: None,
        };
        Self { settings }
    }

    /// How senders reach this server: scheme, host, and the path below which it is mounted. Needed by the schemes that
    /// sign the URL; the request's own path and query are put after it, its `Host` header is not looked at.
    #[must_use]
    pub fn public_url(mut self, url: &Url) -> Self {
        self.settings.public_url = Some(url.as_str().trim_end_matches('/').to_owned());
        self
    }

    /// Bytes of a body at most; more is a 413.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Where message ids are found. A request without one is refused, unless the rule is the scheme's own.
    #[must_use]
    pub fn message_id(mut self, rule: MessageIdRule) -> Self {
        self.settings.rule = rule;
        self
    }

    /// The clock that signatures must be fresh by.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Each message is handled once.
    #[must_use]
    pub fn once(mut self, once: Once) -> Self {
        self.settings.once = Some(once);
        self
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = Verify<S>;

    fn layer(&self, inner: S) -> Verify<S> {
        Verify { inner, settings: Arc::new(self.settings.clone()) }
    }
}

/// See [`VerifyLayer`].
#[derive(Clone, Debug)]
pub struct Verify<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Service<Request> for Verify<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The clone is not ready; the one that is goes along.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let (proof, body) = match settings.check(&parts, body).await {
                Ok(checked) => checked,
                Err(answer) => return Ok(answer),
            };
            let (scheme, message_id) = (proof.scheme, proof.message_id.clone());
            parts.extensions.insert(Arc::new(proof));
            let request = Request::from_parts(parts, Body::from(body.clone()));
            match (&settings.once, message_id) {
                (Some(once), Some(id)) => once.handle(scheme, id, &body, inner, request).await,
                _ => {
                    figure::count(scheme, Ending::Accepted);
                    inner.call(request).await
                }
            }
        })
    }
}

impl Settings {
    /// What the handler gets, or an answer in its place.
    async fn check(&self, parts: &Parts, body: Body) -> Result<(Proof, Bytes), Response> {
        let scheme = self.verifier.scheme();
        let body = body::read(&parts.headers, body, self.max_body).await.map_err(|problem| problem.into_response())?;
        let url = self.public_url.as_ref().map(|base| format!("{base}{}", target(parts)));
        let mut inbound = Inbound::new(&parts.headers, &body).with_method(&parts.method);
        if let Some(url) = &url {
            inbound = inbound.with_url(url);
        }
        let refused = |failure| refuse(scheme, &failure);
        let verified = self.verifier.verify(&inbound, self.clock.now()).map_err(refused)?;
        if let Some(handshake) = verified.handshake {
            figure::count(scheme, Ending::Handshake);
            return Err(shake(handshake));
        }
        let message_id = self.rule.find(&verified, &inbound).map_err(refused)?;
        Ok((Proof { scheme, message_id, signed_at: verified.signed_at }, body))
    }
}

/// Path and query as they were sent, wherever the route is nested.
fn target(parts: &Parts) -> &str {
    let uri = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    uri.path_and_query().map_or("/", |target| target.as_str())
}

fn refuse(scheme: &'static str, failure: &VerifyFailure) -> Response {
    figure::count(scheme, Ending::Refused);
    if failure.is_misconfiguration() {
        tracing::error!(scheme, %failure, "no request can be verified");
        return Problem::internal().into_response();
    }
    tracing::info!(scheme, %failure, "a request was refused");
    Problem::new(StatusCode::UNAUTHORIZED, "unverified", "the request could not be verified").into_response()
}

fn shake(handshake: Handshake) -> Response {
    let mut response = Response::new(Body::from(handshake.body));
    *response.status_mut() = handshake.status;
    if !handshake.content_type.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(handshake.content_type));
    }
    response
}
