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
/// is left out of `text`, and in base64 in `_base64`: custom fields begin with an underscore. Trailers, which it does not
/// know either, are in `_trailers`.
pub(super) fn push(out: &mut Vec<u8>, captured: CapturedRequest, credentials: Credentials) {
    let host = captured.header("host").next().map(|host| String::from_utf8_lossy(host).into_owned());
    let content_type = captured.header("content-type").next();
    let content_type = content_type.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    let captured = Captured::of(captured, Show { body: Body::Shown, credentials });
    let query = captured.query_string.as_deref();
    let pairs = query.into_iter().flat_map(|query| url::form_urlencoded::parse(query.as_bytes()));
    let pairs: Vec<Value> = pairs.map(|(name, value)| json!({"name": name, "value": value})).collect();
    // Whether it came by TLS is known to the proxy in front, if there is one.
    let url = format!(
        "http://{}{}{}",
        host.as_deref().unwrap_or("localhost"),
        captured.path,
        query.map(|query| format!("?{query}")).unwrap_or_default()
    );
    let mut request = json!({
        "method": captured.method, "url": url, "httpVersion": captured.http_version, "cookies": [],
        "headers": fields(&captured.headers), "queryString": pairs, "headersSize": -1, "bodySize": captured.body_size,
    });
    if !captured.trailers.is_empty() {
        request["_trailers"] = fields(&captured.trailers);
    }
    if let Some(body) = captured.body.filter(|body| !body.is_empty()) {
        request["postData"] = json!({"mimeType": content_type, "text": ""});
        let field = if captured.body_encoding == Some(Encoding::Base64) { "_base64" } else { "text" };
        // Moved: it may be large.
        request["postData"][field] = Value::String(body);
        if captured.body_truncated {
            request["postData"]["comment"] = json!("only the beginning was kept");
        }
    }
    let mut entry = json!({
        "startedDateTime": captured.timestamp, "time": 0, "request": {},
        "response": {
            "status": captured.response_status, "statusText": "", "httpVersion": captured.http_version, "cookies": [],
            "headers": [], "content": {"size": 0, "mimeType": ""}, "redirectURL": "", "headersSize": -1, "bodySize": -1,
        },
        "cache": {}, "timings": {"send": 0, "wait": 0, "receive": 0},
        "_id": captured.id, "_ip_address": captured.ip_address,
    });
    entry["request"] = request;
    if let Err(error) = serde_json::to_writer(out, &entry) {
        tracing::error!(%error, "an entry has no JSON form");
    }
}

fn fields(fields: &[(String, FieldValue)]) -> Value {
    let field = |(name, value): &(String, FieldValue)| match value {
        FieldValue::Text(text) => json!({"name": name, "value": text}),
        FieldValue::Bytes { base64 } => json!({"name": name, "value": "", "_base64": base64}),
    };
    fields.iter().map(field).collect()
}
