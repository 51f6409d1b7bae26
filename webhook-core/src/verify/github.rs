//! GitHub.

use http::HeaderName;

use super::{HmacVerifier, Inbound, LiveSecrets, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");

/// GitHub: `X-Hub-Signature-256: sha256=<hex>`, an HMAC-SHA256 of the body.
///
/// The older `X-Hub-Signature` (SHA-1) is not looked at. Webhooks of the content type
/// `application/x-www-form-urlencoded` are signed as they are, before any decoding. No time is covered, and the message
/// id `X-GitHub-Delivery` is not either: whoever recorded a request can send it again under another id.
///
/// Source: GitHub Docs, "Validating webhook deliveries"
/// (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
#[derive(Clone, Debug)]
pub struct GitHub(HmacVerifier);

impl GitHub {
    /// With the webhook's secrets.
    pub fn new(secrets: LiveSecrets) -> Self {
        Self(HmacVerifier::new(SIGNATURE, secrets).with_prefix("sha256="))
    }
}

impl Verifier for GitHub {
    fn scheme(&self) -> &'static str {
        "github"
    }

    fn verify(&self, request: &Inbound<'_>, _now: Timestamp) -> Result<Verified, VerifyFailure> {
        self.0.check(request, &[request.body])?;
        Ok(Verified::new().with_message_id(header::id(request.headers, &DELIVERY)?))
    }
}
