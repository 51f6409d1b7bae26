//! Shopify.

use http::HeaderName;

use super::{Encoding, HmacVerifier, Inbound, LiveSecrets, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("x-shopify-hmac-sha256");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("x-shopify-webhook-id");

/// Shopify: `X-Shopify-Hmac-Sha256: <base64>`, an HMAC-SHA256 of the body, keyed with the app's client secret.
///
/// After a rotation Shopify may sign with the old secret for up to an hour: keep both live. No time is covered, and the
/// message id `X-Shopify-Webhook-Id` is not either.
///
/// Source: Shopify, "Verify webhook deliveries"
/// (<https://shopify.dev/docs/apps/build/webhooks/verify-deliveries>).
#[derive(Clone, Debug)]
pub struct Shopify(HmacVerifier);

impl Shopify {
    /// With the app's client secrets.
    pub fn new(secrets: LiveSecrets) -> Self {
        Self(HmacVerifier::new(SIGNATURE, secrets).with_encoding(Encoding::Base64))
    }
}

impl Verifier for Shopify {
    fn scheme(&self) -> &'static str {
        "shopify"
    }

    fn verify(&self, request: &Inbound<'_>, _now: Timestamp) -> Result<Verified, VerifyFailure> {
        self.0.check(request, &[request.body])?;
        Ok(Verified::new().with_message_id(header::id(request.headers, &WEBHOOK_ID)?))
    }
}
