//! What a handler gets.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse as _, Response};
use webhook_core::Timestamp;

use crate::problem::Problem;

/// The extractor of a request that [`VerifyLayer`](super::VerifyLayer) let through, with its body as `T`: `Bytes`, `Json`,
/// or whatever else can be extracted.
///
/// On a route without that layer it refuses everything with 500, so that forgetting it cannot go unnoticed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verified<T> {
    /// The body.
    pub body: T,
    /// The scheme that verified it.
    pub scheme: &'static str,
    /// What the sender calls the message, by the rule of the layer.
    pub message_id: Option<String>,
    /// When it was signed, where the signature covers a time.
    pub signed_at: Option<Timestamp>,
}

/// What the layer leaves to the extractor.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) scheme: &'static str,
    pub(super) message_id: Option<String>,
    pub(super) signed_at: Option<Timestamp>,
}

impl<S: Send + Sync, T: FromRequest<S>> FromRequest<S> for Verified<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let Some(proof) = request.extensions().get::<Arc<Proof>>().cloned() else {
            tracing::error!(path = request.uri().path(), "a route that wants verified requests has no `VerifyLayer`");
            return Err(Problem::internal().into_response());
        };
        let body = T::from_request(request, state).await.map_err(axum::response::IntoResponse::into_response)?;
        Ok(Self { body, scheme: proof.scheme, message_id: proof.message_id.clone(), signed_at: proof.signed_at })
    }
}
