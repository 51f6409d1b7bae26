//! What a capture path answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The headers of a response may be so many …
const MAX_HEADERS: usize = 32;
/// … and so long together, names and values, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MAX_BODY: usize = 256 * 1024;
const MAX_DELAY: Duration = Duration::from_secs(30);

/// What a capture path answers, instead of the default.
///
/// Whoever may change a path chooses these bytes, and browsers that follow a link to the path receive them from the
/// host's own origin. So headers that would reach beyond the one answer are refused, and the HTTP adapter sends it
/// sandboxed whatever it holds. It may hold secrets (a token that the caller expects): it is sealed at rest where keys
/// are configured. It is shown to everybody who may read the path, and to everybody who calls it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CustomResponse {
    /// 200 to 599.
    pub status: u16,
    /// At most 32, 8 KiB together.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// At most 256 KiB.
    #[serde(default, with = "base64_text")]
    pub body: Bytes,
    /// How long the caller waits for it, at most 30 s. The request is stored before.
    #[serde(default)]
    pub delay: Duration,
}

/// Bytes as JSON can hold them.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
    }
}

impl Default for CustomResponse {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: Bytes::new(), delay: Duration::ZERO }
    }
}

/// Shows neither header values nor the body.
impl fmt::Debug for CustomResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomResponse")
            .field("status", &self.status)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

impl CustomResponse {
    /// An empty answer with this status.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// With this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// That comes so much later.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn check(&self, invalid: &mut Invalid) {
        if !(200..=599).contains(&self.status) {
            invalid.push("response.status", "200 to 599");
        }
        if self.body.len() > MAX_BODY {
            invalid.push("response.body", format!("at most {MAX_BODY} bytes"));
        }
        // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
        if !self.body.is_empty() && matches!(self.status, 204 | 205 | 304) {
            invalid.push("response.body", format!("an answer with the status {} has none", self.status));
        }
        if self.delay > MAX_DELAY {
            invalid.push("response.delay_ms", format!("at most {}", MAX_DELAY.as_millis()));
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            invalid
                .push("response.headers", format!("at most {MAX_HEADERS} headers, {MAX_HEADER_BYTES} bytes together"));
        }
        for (name, value) in &self.headers {
            let field = || format!("response.headers.{name}");
            match HeaderName::try_from(name.as_str()) {
                Err(_) => invalid.push(field(), "not a header name"),
                Ok(header) => {
                    if let Some(reason) = refusal(header.as_str()) {
                        invalid.push(field(), reason);
                    }
                }
            }
            if HeaderValue::try_from(value).is_err() {
                invalid.push(field(), "not a header value");
            }
        }
    }
}

/// Why nobody may choose this header.
fn refusal(name: &str) -> Option<&'static str> {
    match name {
        "connection" | "content-length" | "keep-alive" | "proxy-connection" | "te" | "trailer"
        | "transfer-encoding" | "upgrade" => Some("belongs to the connection"),
        "set-cookie"
        | "set-cookie2"
        | "clear-site-data"
        | "service-worker-allowed"
        | "strict-transport-security"
        | "alt-svc"
        | "nel"
        | "report-to"
        | "reporting-endpoints"
        | "accept-ch"
        | "critical-ch"
        | "public-key-pins"
        | "speculation-rules" => Some("would reach beyond this one answer, into the origin that the path shares"),
        "content-security-policy" | "content-security-policy-report-only" | "x-content-type-options" => {
            Some("set by the path itself, to keep its answers harmless")
        }
        "www-authenticate" | "proxy-authenticate" => {
            Some("would have browsers ask for credentials in the name of the origin that the path shares")
        }
        "x-request-id" => Some("set for every answer"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(response: &CustomResponse) -> Vec<String> {
        let mut invalid = Invalid::new();
        response.check(&mut invalid);
        invalid.errors().iter().map(|(field, _)| field.clone()).collect()
    }

    #[test]
    fn refuses_headers_that_reach_beyond_the_answer_in_any_case() {
        for name in [
            "Set-Cookie",
            "clear-site-data",
            "SERVICE-WORKER-ALLOWED",
            "Strict-Transport-Security",
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "Transfer-Encoding",
            "Content-Length",
            "Alt-Svc",
            "WWW-Authenticate",
            "Speculation-Rules",
            "not a name",
        ] {
            let response = CustomResponse::new(200).with_header(name, "x");
            assert_eq!(faults(&response), [format!("response.headers.{name}")]);
        }
        assert_eq!(faults(&CustomResponse::new(200).with_header("x-a", "b\r\nc: d")), ["response.headers.x-a"]);
    }

    #[test]
    fn takes_what_webhook_senders_ask_for() {
        let response = CustomResponse::new(418)
            .with_header("Content-Type", "text/html")
            .with_header("Access-Control-Allow-Origin", "*")
            .with_header("Retry-After", "7")
            .with_body("<h1>tea</h1>")
            .with_delay(Duration::from_secs(30));
        assert!(faults(&response).is_empty());
    }

    #[test]
    fn its_limits_hold() {
        let long = CustomResponse::new(200).with_header("x-a", "v".repeat(MAX_HEADER_BYTES));
        assert_eq!(faults(&long), ["response.headers"]);
        for (response, field) in [
            (CustomResponse::new(199), "response.status"),
            (CustomResponse::new(600), "response.status"),
            (CustomResponse::new(204).with_body("x"), "response.body"),
            (CustomResponse::new(200).with_body(vec![0; MAX_BODY + 1]), "response.body"),
            (CustomResponse::new(200).with_delay(Duration::from_millis(30_001)), "response.delay_ms"),
        ] {
            assert_eq!(faults(&response), [field]);
        }
    }
}
