//! JSON in and out.

mod strict;

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::problem::Problem;

pub(crate) use strict::{Distinct, Object, Unique, UpTo};

/// How deep JSON may be nested.
const MAX_DEPTH: usize = 128;

/// Reads a document.
///
/// A document that is not what is wanted is a problem that names the field; it is found by reading a second time,
/// which the good ones are spared.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => {
            let mut reader = serde_json::Deserializer::from_str(text);
            match serde_path_to_error::deserialize::<_, T>(&mut reader) {
                Err(error) => invalid(&error.path().to_string(), &error.inner().to_string()),
                Ok(_) => invalid(".", &error.to_string()),
            }
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request("malformed_json", format!("the body is not JSON: {error}"))
        }
    })
}

/// Reads a document that is parsed already.
pub(crate) fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| invalid(&error.path().to_string(), &error.inner().to_string()))
}

/// What serde found, as a problem with a field.
fn invalid(path: &str, message: &str) -> Problem {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split_once('`'))
        .map(|(field, _)| field);
    let path = path.trim_matches('.');
    let field = match named {
        Some(field) if path == field || path.ends_with(&format!(".{field}")) => path.to_owned(),
        Some(field) if path.is_empty() => field.to_owned(),
        Some(field) => format!("{path}.{field}"),
        None if path.is_empty() => "body".to_owned(),
        None => path.to_owned(),
    };
    Problem::invalid(field, message)
}

/// Refuses JSON that is nested too deep. `json` must be valid: only brackets and strings are looked at.
pub(crate) fn check_depth(json: &str) -> Result<(), Problem> {
    let (mut depth, mut bytes) = (0_usize, json.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let detail = format!("the JSON is nested deeper than {MAX_DEPTH} levels");
                    return Err(Problem::bad_request("malformed_json", detail));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a string in it has a NUL, which databases do not take as text.
pub(crate) fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(has_nul),
        serde_json::Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => written(status, body),
        Err(error) => {
            tracing::error!(error = &error as &(dyn std::error::Error + 'static), "an answer has no JSON form");
            axum::response::IntoResponse::into_response(Problem::internal())
        }
    }
}

/// An answer whose JSON is written already.
pub(crate) fn written(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
