//! Capture paths as they are shown.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use webhook_core::{CapturePath, CustomResponse};

use super::{Encoding, Id, Seconds, Time};

/// What a path answers.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct PathResponse {
    /// 200 to 599.
    status: u16,
    /// Its headers.
    headers: BTreeMap<String, String>,
    /// Its body, by `body_encoding`.
    body: String,
    /// How `body` is written.
    body_encoding: Encoding,
    /// How long the caller waits for it, in milliseconds.
    delay_ms: u64,
}

/// What a path's owner decides: the part of a path that is written as it is read.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct PathSettings {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What it answers, where it is not the default answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<PathResponse>,
    /// At most so many requests are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_requests: Option<u64>,
    /// At most so many bytes of bodies are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    /// How long it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    ttl_seconds: Option<Seconds>,
    /// The subscriptions that every captured request is delivered to.
    forward_to: Vec<Id>,
}

/// A capture path.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Path {
    /// Its own id, which no other path ever has.
    id: Id,
    /// Its name in the URL.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    path_id: webhook_core::PathId,
    /// Where requests are captured.
    url: String,
    #[serde(flatten)]
    settings: PathSettings,
    /// How many requests it holds.
    request_count: u64,
    /// How many bytes of their bodies it holds.
    bytes: u64,
    /// When the last request arrived, if one ever did.
    last_request_at: Option<Time>,
    /// When it ends, and its requests with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    /// When it was created.
    created_at: Time,
    /// When it last changed.
    updated_at: Time,
}

/// What a path holds.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct PathStats {
    /// Its name in the URL.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    path_id: webhook_core::PathId,
    /// How many requests it holds.
    total_requests: u64,
    /// How many bytes of their bodies it holds.
    bytes: u64,
    /// How many requests of each method it holds; of the 100 methods with the most.
    method_counts: BTreeMap<String, u64>,
    /// When it was created.
    created_at: Time,
    /// When the last request arrived, if one ever did.
    last_request_at: Option<Time>,
}

impl From<CustomResponse> for PathResponse {
    fn from(given: CustomResponse) -> Self {
        let (body, body_encoding) = match String::from_utf8(given.body.into()) {
            Ok(text) => (text, Encoding::Utf8),
            Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
        };
        Self {
            status: given.status,
            headers: given.headers,
            body,
            body_encoding,
            delay_ms: u64::try_from(given.delay.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl PathSettings {
    fn of(settings: webhook_core::PathSettings, response: Option<CustomResponse>) -> Self {
        Self {
            description: settings.description,
            response: response.map(Into::into),
            max_requests: settings.max_requests,
            max_bytes: settings.max_bytes,
            ttl_seconds: settings.ttl.map(Seconds),
            forward_to: settings.forward_to.into_iter().map(Into::into).collect(),
        }
    }

    /// The document that a merge patch changes.
    pub(crate) fn document(path: CapturePath) -> Result<Value, serde_json::Error> {
        serde_json::to_value(Self::of(path.settings, path.response))
    }
}

impl Path {
    /// `base` is the address that the path is reached at, without `/webhook`.
    pub(crate) fn of(given: CapturePath, base: &str) -> Self {
        Self {
            id: given.key.into(),
            url: format!("{}/webhook/{}", base.trim_end_matches('/'), given.path_id),
            path_id: given.path_id,
            settings: PathSettings::of(given.settings, given.response),
            request_count: given.usage.requests,
            bytes: given.usage.bytes,
            last_request_at: given.usage.last_request_at.map(Into::into),
            expires_at: given.expires_at.map(Into::into),
            created_at: given.created_at.into(),
            updated_at: given.updated_at.into(),
        }
    }
}

impl PathStats {
    pub(crate) fn of(path: CapturePath, method_counts: BTreeMap<String, u64>) -> Self {
        Self {
            path_id: path.path_id,
            total_requests: path.usage.requests,
            bytes: path.usage.bytes,
            method_counts,
            created_at: path.created_at.into(),
            last_request_at: path.usage.last_request_at.map(Into::into),
        }
    }
}
