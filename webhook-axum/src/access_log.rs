//! One line in the log for each request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::response::Response;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::request_id::X_REQUEST_ID;

/// A layer that writes one event per request at INFO with the target `webhook_axum::access`: `request_id`, `method`,
/// `path` (without the query, which may hold secrets), `status` and `latency_ms` up to the response's head.
///
/// Put it around the whole router, outermost. It costs next to nothing where that target is off.
pub const fn access_log() -> AccessLogLayer {
    AccessLogLayer
}

/// See [`access_log`].
#[derive(Clone, Copy, Debug)]
pub struct AccessLogLayer;

impl<S> Layer<S> for AccessLogLayer {
    type Service = AccessLog<S>;

    fn layer(&self, inner: S) -> AccessLog<S> {
        AccessLog { inner }
    }
}

/// See [`access_log`].
#[derive(Clone, Debug)]
pub struct AccessLog<S> {
    inner: S,
}

impl<S> Service<Request> for AccessLog<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Logged<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let line = tracing::enabled!(target: "webhook_axum::access", tracing::Level::INFO).then(|| Line {
            method: request.method().clone(),
            uri: request.uri().clone(),
            start: Instant::now(),
        });
        Logged { inner: self.inner.call(request), line }
    }
}

#[derive(Debug)]
struct Line {
    method: http::Method,
    uri: http::Uri,
    start: Instant,
}

pin_project_lite::pin_project! {
    /// The future of [`AccessLog`].
    #[derive(Debug)]
    pub struct Logged<F> {
        #[pin]
        inner: F,
        line: Option<Line>,
    }
}

impl<F, E> Future for Logged<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(context));
        if let (Some(line), Ok(response)) = (this.line.take(), &result) {
            let id = response.headers().get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
            tracing::info!(
                target: "webhook_axum::access",
                request_id = id,
                method = line.method.as_str(),
                path = line.uri.path(),
                status = response.status().as_u16(),
                latency_ms = line.start.elapsed().as_micros() as f64 / 1000.0,
            );
        }
        Poll::Ready(result)
    }
}
