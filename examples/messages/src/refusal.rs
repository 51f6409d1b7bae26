//! What callers get instead of an answer: `{"detail": …}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::database::DatabaseError;

/// What is wrong with which field of the body or parameter of the query.
#[derive(Debug, Default)]
pub(crate) struct Invalid(Vec<(Place, &'static str)>);

#[derive(Debug)]
enum Place {
    Body,
    Field(&'static str),
    Parameter(&'static str),
}

impl Invalid {
    /// The body as a whole is wrong.
    pub(crate) fn body(fault: &'static str) -> Self {
        Self(vec![(Place::Body, fault)])
    }

    pub(crate) fn push(&mut self, field: &'static str, fault: &'static str) {
        self.0.push((Place::Field(field), fault));
    }

    pub(crate) fn parameter(name: &'static str, fault: &'static str) -> Self {
        Self(vec![(Place::Parameter(name), fault)])
    }

    #[cfg(test)]
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(place, _)| match place {
            Place::Body => "",
            Place::Field(name) | Place::Parameter(name) => name,
        })
    }
}

/// A request that was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    Unverified,
    Invalid(Invalid),
    TooLarge,
    Incomplete,
    NotFound,
    WrongMethod,
    Unavailable,
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the database failed");
        Self::Unavailable
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Unverified => (StatusCode::UNAUTHORIZED, json!("invalid signature")),
            Self::Invalid(invalid) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                invalid.0.iter().map(|(place, fault)| fault_of(place, fault)).collect(),
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, json!("the body is too large")),
            Self::Incomplete => (StatusCode::BAD_REQUEST, json!("the body ended before it was complete")),
            Self::NotFound => (StatusCode::NOT_FOUND, json!("not found")),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, json!("method not allowed")),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, json!("not possible at present; ask again")),
        };
        let mut response = (status, Json(json!({ "detail": detail }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn fault_of(place: &Place, fault: &str) -> Value {
    let place = match place {
        Place::Body => json!(["body"]),
        Place::Field(name) => json!(["body", name]),
        Place::Parameter(name) => json!(["query", name]),
    };
    json!({ "loc": place, "msg": fault, "type": "value_error" })
}
