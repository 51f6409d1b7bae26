//! Sending a captured request again, through the delivery engine.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use url::{Host, Url};

use super::{CapturedRequest, PathId};
use crate::{AdHocTarget, CaptureId, DeliveryId, DirectTarget, Error, Invalid, NewEvent, Secret, TenantId, Webhooks};

/// They belong to one connection (RFC 9110 section 7.6.1), or the new connection makes its own.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// They are for the host that they were sent to.
const FOR_ONE_HOST: [&str; 2] = ["authorization", "cookie"];
/// Made anew for every request, so nobody misses them.
const MADE_ANEW: [&str; 3] = ["host", "content-length", "webhook-attempt"];

/// What to do with a captured request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayRequest {
    /// Where it goes: https, except inside allowed networks.
    pub target_url: String,
    /// In the place of captured headers of the same names, or in addition.
    pub headers: Vec<(String, Secret)>,
    /// In the place of the captured body.
    pub body: Option<Bytes>,
    /// Signs it by the `standard` scheme; none sends it unsigned.
    pub secret: Option<Secret>,
}

impl ReplayRequest {
    /// To that URL, as it came.
    pub fn new(target_url: impl Into<String>) -> Self {
        Self { target_url: target_url.into(), headers: Vec::new(), body: None, secret: None }
    }
}

/// A replay on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Its delivery.
    pub delivery: DeliveryId,
    /// Names of captured headers that do not go along: those of the connection, those for the host that was called when
    /// it is another one now, those whose values are not text, and all trailers.
    pub stripped_headers: Vec<String>,
}

impl Webhooks {
    /// Sends a captured request again: by its method, with its headers and body, guarded and retried like every
    /// delivery.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the target is not acceptable, or the body was not kept whole and none is given.
    pub async fn replay(
        &self,
        tenant: &TenantId,
        path_id: &PathId,
        id: CaptureId,
        replay: ReplayRequest,
    ) -> Result<Replayed, Error> {
        let captured = self.captured(tenant, path_id, id).await?;
        replay.check()?;
        let body = match replay.body {
            Some(body) => body,
            None if captured.request.body_truncated => {
                return Err(Error::invalid("body", "only the beginning of the captured one is kept: give another"));
            }
            None => captured.request.body.clone(),
        };
        let (mut headers, stripped_headers) = end_to_end(&captured, &replay.target_url);
        headers.retain(|(name, _)| !replay.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)));
        headers.extend(replay.headers);
        let target = AdHocTarget {
            url: replay.target_url,
            method: captured.request.method.clone(),
            headers,
            secret: replay.secret,
        };
        // No media type of the event's own: the captured one is among the headers, if there was one.
        let event = NewEvent::untyped(body).with_content_type("");
        let emitted = self.emit_direct(tenant, event, DirectTarget::AdHoc(target)).await?;
        let delivery = emitted.delivery.ok_or(Error::NotFound(crate::Noun::Delivery))?;
        Ok(Replayed { delivery, stripped_headers })
    }
}

impl ReplayRequest {
    fn check(&self) -> Result<(), Invalid> {
        let mut invalid = Invalid::new();
        for (name, value) in &self.headers {
            let field = || format!("headers.{name}");
            let lower = name.to_ascii_lowercase();
            if HeaderName::try_from(name).is_err() {
                invalid.push(field(), "not a header name");
            } else if HOP_BY_HOP.contains(&&*lower) || MADE_ANEW.contains(&&*lower) {
                invalid.push(field(), "set by the delivery itself");
            }
            if HeaderValue::try_from(value.expose()).is_err() {
                invalid.push(field(), "not a header value");
            }
        }
        invalid.into_result()
    }
}

/// The headers that go along, and the names of those that do not.
fn end_to_end(captured: &CapturedRequest, target_url: &str) -> (Vec<(String, Secret)>, Vec<String>) {
    // What `Connection` names belongs to the connection too.
    let named: Vec<String> = captured
        .header("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    let same_host = is_same_host(captured, target_url);
    let (mut kept, mut stripped) = (Vec::new(), Vec::new());
    for (name, value) in &captured.request.headers {
        if MADE_ANEW.contains(&&**name) {
            continue;
        }
        let of_connection = HOP_BY_HOP.contains(&&**name) || named.contains(name);
        let foreign = !same_host && FOR_ONE_HOST.contains(&&**name);
        match std::str::from_utf8(value) {
            Ok(text) if !of_connection && !foreign => kept.push((name.clone(), Secret::new(text))),
            _ if stripped.contains(name) => {}
            _ => stripped.push(name.clone()),
        }
    }
    for (name, _) in &captured.request.trailers {
        if !stripped.contains(name) {
            stripped.push(name.clone());
        }
    }
    (kept, stripped)
}

/// Whether the target is the very host that was called. Ports count: another port may be another's service.
fn is_same_host(captured: &CapturedRequest, target_url: &str) -> bool {
    let Ok(target) = Url::parse(target_url) else { return false };
    let mut hosts = captured.header("host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = std::str::from_utf8(host) else { return false };
    // The scheme of the call is not known, and does not matter: without a port it is the target's default.
    let Ok(called) = Url::parse(&format!("{}://{host}/", target.scheme())) else { return false };
    let parts = |url: &Url| (url.host().map(|host: Host<&str>| host.to_owned()), url.port_or_known_default());
    parts(&called) == parts(&target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IncomingRequest, Timestamp};

    fn captured(headers: &[(&str, &str)]) -> CapturedRequest {
        let mut request = IncomingRequest::new("POST", "/webhook/p");
        request.headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())))
            .collect();
        let id = CaptureId::from_uuid(uuid::Uuid::nil());
        CapturedRequest::new(id, TenantId::default(), "p".parse().unwrap(), request, Timestamp::EPOCH)
    }

    fn names(headers: &[(String, Secret)]) -> Vec<&str> {
        headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let captured = captured(&[
            ("host", "hooks.example"),
            ("content-length", "3"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("content-type", "text/plain"),
            ("x-a", "1"),
            ("x-a", "2"),
        ]);
        let (kept, stripped) = end_to_end(&captured, "https://other.example/");
        assert_eq!(names(&kept), ["content-type", "x-a", "x-a"]);
        assert_eq!(stripped, ["connection", "x-hop", "te", "proxy-authorization"]);
    }

    #[test]
    fn credentials_go_to_the_host_that_they_were_sent_to_and_to_no_other() {
        let captured = captured(&[("host", "Hooks.example"), ("authorization", "Bearer x"), ("cookie", "a=b")]);
        for target in ["https://hooks.example/x", "https://HOOKS.example:443/"] {
            assert_eq!(end_to_end(&captured, target).1, [""; 0], "{target}");
        }
        for target in ["https://hooks.example:8443/", "https://hooks.example.evil/", "https://evil/", "nonsense"] {
            assert_eq!(end_to_end(&captured, target).1, ["authorization", "cookie"], "{target}");
        }
    }

    #[test]
    fn trailers_are_told() {
        let mut captured = captured(&[("trailer", "x-sum"), ("x-a", "1")]);
        captured.request.trailers = ["x-sum", "x-a", "x-sum"].map(|name| (name.to_owned(), Bytes::new())).to_vec();
        let (kept, stripped) = end_to_end(&captured, "https://other.example/");
        assert_eq!((names(&kept), stripped), (vec!["x-a"], ["trailer", "x-sum", "x-a"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn values_that_are_not_text_are_told() {
        let mut captured = captured(&[("x-a", "1")]);
        captured.request.headers.push(("x-b".to_owned(), Bytes::from_static(b"\xff")));
        let (kept, stripped) = end_to_end(&captured, "https://other.example/");
        assert_eq!((names(&kept), stripped), (vec!["x-a"], vec!["x-b".to_owned()]));
    }
}
