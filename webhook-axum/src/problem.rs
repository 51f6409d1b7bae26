//! Errors as callers see them: problem details (RFC 9457).

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use webhook_core::{Conflict, Error, Invalid};

use crate::auth::AuthError;
use crate::figures;
use crate::request_id::{RequestId, X_REQUEST_ID};

/// When to ask again after a 503 or a 429, in seconds.
pub(crate) const ASK_AGAIN: HeaderValue = HeaderValue::from_static("1");

/// A request that was not done, and why.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: BTreeMap<String, Vec<String>>,
    challenge: bool,
}

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Problem))]
pub(crate) struct ProblemDocument<'a> {
    /// `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What went wrong, for people.
    detail: &'a str,
    /// What went wrong, for programs; stable.
    code: &'static str,
    /// The id of the request in logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    errors: &'a BTreeMap<String, Vec<String>>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), errors: BTreeMap::new(), challenge: false }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(crate) fn unauthorized(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { challenge: true, ..Self::new(StatusCode::UNAUTHORIZED, code, detail) }
    }

    pub(crate) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn unknown_method() -> Self {
        let detail = "this route does not have that method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("at most {limit} bytes are taken here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here; it was logged")
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not possible at present; ask again")
    }

    /// One field is not acceptable.
    pub(crate) fn invalid(field: impl Into<String>, message: impl ToString) -> Self {
        Invalid::field(field, message).into()
    }

    /// Its JSON.
    pub(crate) fn document<'a>(&'a self, request_id: Option<&'a RequestId>) -> ProblemDocument<'a> {
        ProblemDocument {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id: request_id.map(RequestId::as_str),
            errors: &self.errors,
        }
    }

    /// Puts the document into a response, whose status and headers stay otherwise.
    pub(crate) fn write_to(&self, response: &mut Response, request_id: Option<&RequestId>) {
        let body = serde_json::to_vec(&self.document(request_id)).unwrap_or_default();
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
}

impl IntoResponse for Problem {
    /// The envelope writes the document again, with the request's id.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        self.write_to(&mut response, None);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, ASK_AGAIN);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (field, message) in invalid.errors() {
            errors.entry(field.clone()).or_default().push(message.clone());
        }
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", invalid.to_string());
        Self { errors, ..problem }
    }
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        let code = match conflict {
            Conflict::KeyReused => "idempotency_key_reused",
            Conflict::InFlight => "delivery_in_flight",
            Conflict::Ended => "delivery_ended",
            Conflict::SubscriptionDeleted => "subscription_deleted",
            Conflict::Changed => "changed",
            Conflict::PathTaken => "path_taken",
            _ => "conflict",
        };
        let mut problem = Self::new(StatusCode::CONFLICT, code, conflict.to_string());
        if conflict == Conflict::PathTaken {
            problem.errors.insert("path_id".to_owned(), vec!["taken".to_owned()]);
        }
        problem
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(noun) => Self::not_found(format!("{noun} not found")),
            Error::Invalid(invalid) => invalid.into(),
            Error::Conflict(conflict) => conflict.into(),
            Error::FanOut { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "fan_out", error.to_string()),
            Error::TooLarge { limit } => Self::too_large(limit),
            error => {
                let retryable = error.is_retryable();
                let source: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error = source, retryable, "a request failed");
                if retryable { Self::unavailable() } else { Self::internal() }
            }
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unauthorized => Self::unauthorized("unauthorized", error.to_string()),
            AuthError::Forbidden => Self::forbidden(error.to_string()),
            error => {
                let source: &(dyn std::error::Error + 'static) = &error;
                tracing::error!(error = source, "credentials could not be checked");
                Self::unavailable()
            }
        }
    }
}

/// Answers a request for an unknown route with a 404 problem, and counts it: for [`axum::Router::fallback`] in the host.
pub async fn not_found(request: Request) -> Response {
    alone(&request, Problem::not_found("there is no such route"))
}

/// Answers a request with a method that its route does not have with a 405 problem, and counts it: for
/// [`axum::Router::method_not_allowed_fallback`] in the host. The routers of this crate do so by themselves.
pub async fn method_not_allowed(request: Request) -> Response {
    alone(&request, Problem::unknown_method())
}

/// The same inside of the envelope, which counts.
pub(crate) async fn unknown_method() -> Problem {
    Problem::unknown_method()
}

/// A problem outside of the envelope.
fn alone(request: &Request, problem: Problem) -> Response {
    let figure = figures::start(request.method(), request.extensions().get());
    let known = request.extensions().get().cloned().or_else(|| RequestId::given(request.headers()));
    let id = known.unwrap_or_else(RequestId::random);
    let mut response = problem.clone().into_response();
    problem.write_to(&mut response, Some(&id));
    response.headers_mut().insert(X_REQUEST_ID, id.header());
    let headers = response.headers_mut();
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    figure.end(response.status());
    response
}
