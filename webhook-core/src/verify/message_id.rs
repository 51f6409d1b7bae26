//! What a message is called.

use http::HeaderName;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Inbound, Verified, VerifyFailure, field, header};

/// Where the id of a message is found, by which it is handled once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageIdRule {
    /// Where the scheme says.
    #[default]
    Scheme,
    /// In that header, which need not be signed: whoever recorded a request could send it again under another id.
    Header(HeaderName),
    /// Where this JSON pointer (RFC 6901) leads in the body: a text or an integer.
    Pointer(String),
    /// The SHA-256 of the body: for senders without ids, who do not send the same body twice unless they repeat it.
    BodyDigest,
}

impl MessageIdRule {
    /// The id of a request that verified; none where the scheme has none.
    ///
    /// # Errors
    ///
    /// [`VerifyFailure`] where a header or pointer was named and there is no id.
    pub fn find(&self, verified: &Verified, request: &Inbound<'_>) -> Result<Option<String>, VerifyFailure> {
        match self {
            Self::Scheme => Ok(verified.message_id.clone()),
            Self::Header(name) => match header::id(request.headers, name)? {
                None => Err(VerifyFailure::Missing { header: name.clone() }),
                id => Ok(id),
            },
            Self::Pointer(pointer) => {
                let body = field::read::<Value>(request.body);
                let id = match body.as_ref().and_then(|body| body.pointer(pointer)) {
                    Some(Value::String(text)) => field::id(Some(text.clone())),
                    Some(Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
                    _ => None,
                };
                id.map(Some).ok_or(VerifyFailure::Body { needed: "message id" })
            }
            Self::BodyDigest => Ok(Some(hex::encode(Sha256::digest(request.body)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn ids_are_found_where_the_rule_says() {
        let mut headers = HeaderMap::new();
        headers.insert("x-id", "h1".parse().unwrap());
        let request = Inbound::new(&headers, br#"{"data":{"id":"b1","number":42,"pi":3.14,"none":null,"empty":""}}"#);
        let verified = Verified::new().with_message_id(Some("s1".to_owned()));
        let find = |rule: MessageIdRule| rule.find(&verified, &request);
        let pointer = |text: &str| find(MessageIdRule::Pointer(text.to_owned()));
        let header = |name: &'static str| find(MessageIdRule::Header(HeaderName::from_static(name)));
        assert_eq!(find(MessageIdRule::Scheme).unwrap().as_deref(), Some("s1"));
        assert_eq!(header("x-id").unwrap().as_deref(), Some("h1"));
        assert!(matches!(header("x-other"), Err(VerifyFailure::Missing { .. })));
        assert_eq!(pointer("/data/id").unwrap().as_deref(), Some("b1"));
        assert_eq!(pointer("/data/number").unwrap().as_deref(), Some("42"));
        for nothing in ["", "/data", "/data/pi", "/data/none", "/data/empty", "/data/other", "data"] {
            assert!(matches!(pointer(nothing), Err(VerifyFailure::Body { .. })), "{nothing}");
        }
        assert_eq!(find(MessageIdRule::BodyDigest).unwrap().unwrap().len(), 64);
    }
}
