//! Capture paths as they are given.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use webhook_core::{CustomResponse, Invalid, PathDraft};

use super::{Encoding, Seconds};
use crate::json::{Object, Unique};

/// What a capture path should be. Absent fields take their defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct PathInput {
    /// Its name in the URL: 1 to 255 of `A-Za-z0-9._-`, but not `.` or `..`. Generated with 128 random bits where none is
    /// given; cannot be changed.
    path_id: Option<String>,
    /// For people, at most 1024 bytes.
    description: Option<String>,
    /// What it answers; by default 200 with the request's id.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ResponseInput>))]
    response: Option<Object<ResponseInput>>,
    /// At most so many requests are kept; the oldest go first. By default all.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    max_requests: Option<u64>,
    /// At most so many bytes of bodies are kept; the oldest requests go first, the newest stays. By default all.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    max_bytes: Option<u64>,
    /// How long the path lasts from now on, with all that it holds. By default for ever.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, minimum = 1))]
    ttl_seconds: Option<Seconds>,
    /// Subscriptions that every captured request is delivered to, at most 16. Such a path refuses bodies that it cannot
    /// forward whole with 413.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<super::Id>>))]
    forward_to: Option<Vec<String>>,
}

/// What a path should answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct ResponseInput {
    /// 200 to 599 (default 200).
    #[cfg_attr(feature = "openapi", schema(minimum = 200, maximum = 599))]
    status: Option<u16>,
    /// At most 32, 8 KiB together. Those that reach beyond the one answer are refused, such as `Set-Cookie`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<std::collections::BTreeMap<String, String>>))]
    headers: Option<Unique<String>>,
    /// At most 256 KiB.
    body: Option<String>,
    /// How `body` is written (default `utf8`).
    body_encoding: Option<Encoding>,
    /// How long the caller waits for it, at most 30,000 milliseconds. The request is stored before.
    #[cfg_attr(feature = "openapi", schema(maximum = 30000))]
    delay_ms: Option<u64>,
}

impl PathInput {
    pub(crate) fn into_draft(self) -> Result<PathDraft, Invalid> {
        let mut invalid = Invalid::new();
        let mut draft = PathDraft::new();
        draft.path_id = self.path_id.and_then(|text| text.parse().map_err(|error| invalid.push("path_id", error)).ok());
        draft.settings.description = self.description;
        draft.settings.max_requests = self.max_requests;
        draft.settings.max_bytes = self.max_bytes;
        draft.settings.ttl = self.ttl_seconds.map(|seconds| seconds.0);
        for (index, text) in self.forward_to.unwrap_or_default().into_iter().enumerate() {
            match text.parse::<super::Id>() {
                Ok(id) => draft.settings.forward_to.push(id.into()),
                Err(error) => invalid.push(format!("forward_to[{index}]"), error),
            }
        }
        draft.response = self.response.map(|Object(response)| response.into_response(&mut invalid));
        invalid.into_result()?;
        Ok(draft)
    }
}

impl ResponseInput {
    fn into_response(self, invalid: &mut Invalid) -> CustomResponse {
        let mut response = CustomResponse::new(self.status.unwrap_or(200));
        response.headers = self.headers.map(|headers| headers.0).unwrap_or_default();
        response.delay = Duration::from_millis(self.delay_ms.unwrap_or_default());
        let body = self.body.unwrap_or_default();
        response.body = match self.body_encoding.unwrap_or(Encoding::Utf8) {
            Encoding::Utf8 => body.into(),
            Encoding::Base64 => match STANDARD.decode(body) {
                Ok(bytes) => bytes.into(),
                Err(_) => {
                    invalid.push("response.body", "not base64");
                    bytes::Bytes::new()
                }
            },
        };
        response
    }
}

/// A merge patch (RFC 7396): the fields of a path that change; null takes one back to its default.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a document that is merged before it is read")]
pub(crate) struct PathPatch {
    description: Option<String>,
    response: Option<ResponseInput>,
    max_requests: Option<u64>,
    max_bytes: Option<u64>,
    ttl_seconds: Option<f64>,
    forward_to: Option<Vec<super::Id>>,
}
