//! What every response of the API has, whatever its handler does.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::HeaderValue;
use http::header::X_CONTENT_TYPE_OPTIONS;
use tower::{Layer, Service};

use crate::api::ApiState;
use crate::figures;
use crate::problem::Problem;
use crate::request_id::{RequestId, X_REQUEST_ID};

/// Gives each response its request id and `nosniff`, writes problems with the id, turns a panic into a 500, and
/// counts.
#[derive(Clone, Debug)]
pub(crate) struct EnvelopeLayer(pub(crate) Arc<ApiState>);

impl<S> Layer<S> for EnvelopeLayer {
    type Service = Envelope<S>;

    fn layer(&self, inner: S) -> Envelope<S> {
        Envelope { inner, state: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Envelope<S> {
    inner: S,
    state: Arc<ApiState>,
}

impl<S> Service<Request> for Envelope<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let id = request.extensions().get().cloned().or_else(|| RequestId::given(request.headers()));
        let id = id.unwrap_or_else(|| RequestId::generated(&self.state.webhooks));
        request.extensions_mut().insert(id.clone());
        let figure = figures::start(request.method(), request.extensions().get::<MatchedPath>());
        let handler = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let mut response = match handler.await {
                Ok(result) => result?,
                Err(_) => {
                    tracing::error!(request_id = id.as_str(), "a handler panicked");
                    Problem::internal().into_response()
                }
            };
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                problem.write_to(&mut response, Some(&id));
            }
            response.headers_mut().insert(X_REQUEST_ID, id.header());
            response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            figure.end(response.status());
            Ok(response)
        })
    }
}
