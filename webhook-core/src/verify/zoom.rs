//! Zoom.

use http::HeaderName;
use serde::Deserialize;
use serde_json::json;

use super::code::Hash;
use super::freshness::FIVE_MINUTES;
use super::versioned::Versioned;
use super::{Handshake, Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field};
use crate::Timestamp;

const HEADERS: Versioned = Versioned {
    signature: HeaderName::from_static("x-zm-signature"),
    timestamp: HeaderName::from_static("x-zm-request-timestamp"),
};

/// Zoom: `x-zm-signature: v0=<hex>`, an HMAC-SHA256 of `v0:time:body` with the time of `x-zm-request-timestamp`.
///
/// Zoom asks for no window; five minutes both ways are what its users take. Messages have no id. An
/// `endpoint.url_validation`, which comes at first and every 72 hours and wants its answer within three seconds, is a
/// handshake: the answer has the given token and its HMAC-SHA256 with the secret that signed the request.
///
/// Source: Zoom Developers, "Using webhooks", "Verify webhook events" and "Validate your webhook endpoint"
/// (<https://developers.zoom.us/docs/api/webhooks/>).
#[derive(Clone, Debug)]
pub struct Zoom {
    secrets: LiveSecrets,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    event: Option<String>,
    payload: Option<Payload>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "plainToken")]
    plain_token: Option<String>,
}

impl Zoom {
    /// With the app's secret tokens.
    pub const fn new(secrets: LiveSecrets) -> Self {
        Self { secrets, tolerance: Tolerance::within(FIVE_MINUTES) }
    }

    /// With another window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }

    fn answer(&self, place: usize, event: Event) -> Option<Handshake> {
        if event.event? != "endpoint.url_validation" {
            return None;
        }
        let token = event.payload?.plain_token?;
        let encrypted = hex::encode(Hash::Sha256.hmac(self.secrets.key(place), &[token.as_bytes()]));
        let body = json!({ "plainToken": token, "encryptedToken": encrypted });
        Some(Handshake::ok("application/json", body.to_string()))
    }
}

impl Verifier for Zoom {
    fn scheme(&self) -> &'static str {
        "zoom"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let signed = HEADERS.check(&self.secrets, self.tolerance, request, now)?;
        let handshake = field::read::<Event>(request.body).and_then(|event| self.answer(signed.place, event));
        Ok(Verified::new().with_signed_at(signed.at).with_handshake(handshake))
    }
}
