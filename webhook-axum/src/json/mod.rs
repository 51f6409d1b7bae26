//! JSON in and out.

mod fault;
mod patch;
mod strict;

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;

use crate::problem::Problem;

pub(crate) use fault::Fault;
pub(crate) use patch::merge;
pub(crate) use strict::{Distinct, Object, Unique, UpTo};

/// How deep JSON may be nested.
const MAX_DEPTH: usize = 128;

/// Reads a document.
///
/// A document that is not what is wanted is a problem that names the fields; they are found by reading again, which the
/// good ones are spared.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    parse_borrowed(text, |text| fault_in::<T>(text))
}

/// Reads a document into something that borrows from it; `fault_in` is [`fault_in`] for the same type.
pub(crate) fn parse_borrowed<'a, T: Deserialize<'a>>(
    text: &'a str,
    fault_in: impl Fn(&str) -> Option<Fault>,
) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => {
            let first = fault_in(text).unwrap_or_else(|| error.into());
            // Null where there is no such value, as for numbers out of range: then the first fault is all.
            let document = first.expected().and_then(|_| serde_json::from_str(text).ok()).unwrap_or_default();
            first.with_others(document, |rest| fault_in(&rest.to_string()))
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request("malformed_json", format!("the body is not JSON: {error}"))
        }
    })
}

/// The first fault of a document that should be a `T`.
pub(crate) fn fault_in<'a, T: Deserialize<'a>>(text: &'a str) -> Option<Fault> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize::<_, T>(&mut reader).err().map(Fault::from)
}

/// Reads a document that is parsed already.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    let read = |value: &Value| serde_path_to_error::deserialize::<_, T>(value).map_err(Fault::from);
    read(&value).map_err(|first| first.with_others(value, |rest| read(rest).err()))
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
pub(crate) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = Vec::new();
    match write(&mut body, value) {
        Ok(()) => written(status, body),
        Err(problem) => axum::response::IntoResponse::into_response(problem),
    }
}

/// Appends a part of an answer.
pub(crate) fn write(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Problem> {
    serde_json::to_writer(out, value).map_err(|error| {
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "an answer has no JSON form");
        Problem::internal()
    })
}

/// An answer whose JSON is written already.
pub(crate) fn written(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
