//! HTTP Archive 1.2 (the format of browsers' network panels).

use serde_json::{Value, json};
use webhook_core::CapturedRequest;

use crate::wire::{Body, Captured, Credentials, Encoding, FieldValue, Show};

pub(super) const TAIL: &str = "]}}\n";

pub(super) fn head() -> String {
    let creator = json!({"name": "webhook", "version": env!("CARGO_PKG_VERSION")});
    format!("{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"entries\":[")
}

/// The format has a field for the encoding of what came back, but none for that of what was sent. A body that is no text
/// is left out of `text`, and in base64 in `_base64`: custom fields begin with an underscore.
pub(super) fn push(out: &mut Vec<u8>, captured: CapturedRequest, credentials: Credentials) {
    let host = captured.header("host").next().map(|host| String::from_utf8_lossy(host).into_owned());
    let content_type = captured.header("content-type").next();
    let content_type = content_type.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    let captured = Captured::of(captured, Show { body: Body::Shown, credentials });
    let query = captured.query_string.as_deref();
    let pairs = query.into_iter().flat_map(|query| url::form_urlencoded::parse(query.as_bytes()));
    let pairs: Vec<Value> = pairs.map(|(name, value)| json!({"name": name, "value": value})).collect();
    let headers: Vec<Value> = captured
        .headers
        .iter()
        .map(|(name, value)| match value {
            FieldValue::Text(text) => json!({"name": name, "value": text}),
            FieldValue::Bytes { base64 } => json!({"name": name, "value": "", "_base64": base64}),
        })
        .collect();
    // Whether it came by TLS is known to the proxy in front, if there is one.
    let url = format!(
        "http://{}{}{}",
        host.as_deref().unwrap_or("localhost"),
        captured.path,
        query.map(|query| format!("?{query}")).unwrap_or_default()
    );
    let mut request = json!({
        "method": captured.method, "url": url, "httpVersion": captured.http_version, "cookies": [], "headers": headers,
        "queryString": pairs, "headersSize": -1, "bodySize": captured.body_size,
    });
    if let Some(body) = captured.body.filter(|body| !body.is_empty()) {
        request["postData"] = match captured.body_encoding {
            Some(Encoding::Base64) => json!({"mimeType": content_type, "text": "", "_base64": body}),
            _ => json!({"mimeType": content_type, "text": body}),
        };
        if captured.body_truncated {
            request["postData"]["comment"] = json!("only the beginning was kept");
        }
    }
    let entry = json!({
        "startedDateTime": captured.timestamp, "time": 0, "request": request,
        "response": {
            "status": captured.response_status, "statusText": "", "httpVersion": captured.http_version, "cookies": [],
            "headers": [], "content": {"size": 0, "mimeType": ""}, "redirectURL": "", "headersSize": -1, "bodySize": -1,
        },
        "cache": {}, "timings": {"send": 0, "wait": 0, "receive": 0},
        "_id": captured.id, "_ip_address": captured.ip_address,
    });
    out.extend_from_slice(entry.to_string().as_bytes());
}
