//! Captured requests.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use webhook_core::CapturedRequest;

use super::subscription::REDACTED;
use super::{Id, Time};

/// Headers whose values are credentials.
const CREDENTIALS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"];

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) enum Encoding {
    /// As they are.
    Utf8,
    /// In base64, where they are no text.
    Base64,
}

/// The value of a header: text, or in base64 where it is none.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) enum FieldValue {
    /// Text.
    Text(String),
    /// Other bytes.
    Bytes {
        /// The bytes.
        base64: String,
    },
}

/// A captured request.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Captured {
    /// Its id.
    pub(crate) id: Id,
    /// The path's name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    path_id: webhook_core::PathId,
    /// The method, whatever it is.
    pub(crate) method: String,
    /// The whole path, undecoded.
    pub(crate) path: String,
    /// What followed the `?`, undecoded; null without a `?`.
    pub(crate) query_string: Option<String>,
    /// The query, decoded as forms are.
    query_params: BTreeMap<String, Vec<String>>,
    /// Names in lower case, those of one name in their order; a value that is no text is `{"base64": …}`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Vec<FieldValue>>))]
    pub(crate) headers: Vec<(String, FieldValue)>,
    /// The header fields that came after a chunked body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Vec<FieldValue>>, required = false))]
    pub(crate) trailers: Vec<(String, FieldValue)>,
    /// The body, as far as it is kept and shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// How `body` is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body_encoding: Option<Encoding>,
    /// More of the body is kept than is shown here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    body_cut: bool,
    /// How many bytes arrived.
    pub(crate) body_size: u64,
    /// SHA-256 of what arrived, in hex.
    pub(crate) body_sha256: String,
    /// Not all of the body is kept.
    pub(crate) body_truncated: bool,
    /// Such as `HTTP/1.1`.
    pub(crate) http_version: String,
    /// Who sent it, as far as proxies are believed.
    pub(crate) ip_address: Option<String>,
    /// Who was connected, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_address: Option<String>,
    /// The `User-Agent`.
    pub(crate) user_agent: Option<String>,
    /// The status that it was answered with.
    pub(crate) response_status: u16,
    /// When it had arrived.
    pub(crate) timestamp: Time,
}

/// How a captured request is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Show {
    /// With its body, as far as it was read.
    pub(crate) body: Body,
    /// With the values of headers that are credentials.
    pub(crate) credentials: Credentials,
}

/// Whether bodies are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Shown,
    Left,
}

/// Whether credentials are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    Shown,
    Masked,
}

impl Captured {
    pub(crate) fn of(captured: CapturedRequest, show: Show) -> Self {
        let cut = captured.body_cut();
        let user_agent = captured.header("user-agent").next().map(|value| String::from_utf8_lossy(value).into_owned());
        let request = captured.request;
        let (body, body_encoding) = match show.body {
            Body::Left => (None, None),
            Body::Shown => {
                let partial = cut || request.body_truncated;
                let (body, encoding) = encode(request.body, partial);
                (Some(body), Some(encoding))
            }
        };
        let fields = |given: Vec<(String, Bytes)>| {
            given.into_iter().map(|(name, value)| field(name, &value, show.credentials)).collect()
        };
        Self {
            id: captured.id.into(),
            path_id: captured.path_id,
            method: request.method,
            path: request.path,
            query_params: query_params(request.query.as_deref().unwrap_or_default()),
            query_string: request.query,
            headers: fields(request.headers),
            trailers: fields(request.trailers),
            body,
            body_encoding,
            body_cut: cut && show.body == Body::Shown,
            body_size: request.body_size,
            body_sha256: request.body_sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            body_truncated: request.body_truncated,
            http_version: request.http_version,
            peer_address: request
                .peer_address
                .filter(|peer| request.ip_address != Some(*peer))
                .map(|address| address.to_string()),
            ip_address: request.ip_address.map(|address| address.to_string()),
            user_agent,
            response_status: captured.response_status,
            timestamp: captured.received_at.into(),
        }
    }
}

fn field(name: String, value: &Bytes, credentials: Credentials) -> (String, FieldValue) {
    let value = match std::str::from_utf8(value) {
        _ if credentials == Credentials::Masked && CREDENTIALS.contains(&&*name) => {
            FieldValue::Text(REDACTED.to_owned())
        }
        Ok(text) => FieldValue::Text(text.to_owned()),
        Err(_) => FieldValue::Bytes { base64: STANDARD.encode(value) },
    };
    (name, value)
}

/// Bytes as text. A text that was cut in the middle of a character is still one, without that character.
fn encode(bytes: Bytes, partial: bool) -> (String, Encoding) {
    // Not copied where nobody else has them.
    match String::from_utf8(bytes.into()) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => {
            let (fault, mut bytes) = (error.utf8_error(), error.into_bytes());
            if partial && fault.error_len().is_none() {
                bytes.truncate(fault.valid_up_to());
            }
            match String::from_utf8(bytes) {
                Ok(text) => (text, Encoding::Utf8),
                Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
            }
        }
    }
}

fn query_params(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut params: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        params.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    params
}

/// The default answer to a captured request.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct CaptureReceipt<'a> {
    /// The id of the stored request.
    pub(crate) request_id: Id,
    /// When it had arrived.
    pub(crate) timestamp: Time,
    /// Its method.
    pub(crate) method: &'a str,
}

/// Where a captured request is sent again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ReplayInput {
    /// https, except inside allowed networks.
    pub(crate) target_url: String,
    /// In the place of captured headers of the same names, or in addition.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub(crate) headers: Option<crate::json::Unique<String>>,
    /// In the place of the captured body, as text.
    pub(crate) body: Option<String>,
    /// Signs it by the scheme `standard`; unsigned without.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    pub(crate) secret: Option<webhook_core::Secret>,
}

/// A captured request on its way again.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Replayed {
    /// Its delivery.
    pub(crate) delivery_id: Id,
    /// Captured headers that do not go along: of the connection, or for another host.
    pub(crate) stripped_headers: Vec<String>,
}

/// Figures about all capture paths.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct DashboardStats {
    /// Paths there are.
    pub(crate) total_webhooks: u64,
    /// Requests that are kept.
    pub(crate) total_requests: u64,
    /// Paths with a request in the last 24 hours.
    pub(crate) active_webhooks: u64,
    /// The 10 newest requests.
    pub(crate) recent_requests: Vec<RecentRequest>,
}

/// A request in short.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct RecentRequest {
    /// Its id.
    id: Id,
    /// The path's name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    path_id: webhook_core::PathId,
    /// The method, whatever it is.
    method: String,
    /// Who sent it, as far as proxies are believed.
    ip_address: Option<String>,
    /// When it had arrived.
    timestamp: Time,
}

impl From<webhook_core::store::CaptureStats> for DashboardStats {
    fn from(stats: webhook_core::store::CaptureStats) -> Self {
        let recent = |captured: CapturedRequest| RecentRequest {
            id: captured.id.into(),
            path_id: captured.path_id,
            method: captured.request.method,
            ip_address: captured.request.ip_address.map(|address| address.to_string()),
            timestamp: captured.received_at.into(),
        };
        Self {
            total_webhooks: stats.paths,
            total_requests: stats.requests,
            active_webhooks: stats.active_paths,
            recent_requests: stats.recent.into_iter().map(recent).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_cut_is_a_text() {
        let text = Bytes::from("a\u{20ac}");
        assert_eq!(encode(text.clone(), false), ("a\u{20ac}".to_owned(), Encoding::Utf8));
        assert_eq!(encode(text.slice(..3), true), ("a".to_owned(), Encoding::Utf8));
        assert_eq!(encode(text.slice(..3), false).1, Encoding::Base64);
        assert_eq!(encode(Bytes::from_static(b"\xff"), true).1, Encoding::Base64);
        assert_eq!(encode(Bytes::from_static(b"\0"), false), ("\0".to_owned(), Encoding::Utf8));
    }
}
