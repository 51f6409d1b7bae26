//! Square.

use http::HeaderName;
use serde::Deserialize;

use super::{Encoding, HmacVerifier, Inbound, LiveSecrets, Verified, Verifier, VerifyFailure, field};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("x-square-hmacsha256-signature");

/// Square: `x-square-hmacsha256-signature: <base64>`, an HMAC-SHA256 of the notification URL followed by the body.
///
/// The URL must be the one configured at Square, letter by letter. The older `x-square-signature` (SHA-1) is not looked
/// at. No time is covered; the message id is `event_id` in the body.
///
/// Source: Square Developer, "Verify and Validate an Event Notification"
/// (<https://developer.squareup.com/docs/webhooks/step3validate>).
#[derive(Clone, Debug)]
pub struct Square(HmacVerifier);

#[derive(Deserialize)]
struct Event {
    event_id: Option<String>,
}

impl Square {
    /// With the subscription's signature keys.
    pub fn new(secrets: LiveSecrets) -> Self {
        Self(HmacVerifier::new(SIGNATURE, secrets).with_encoding(Encoding::Base64))
    }
}

impl Verifier for Square {
    fn scheme(&self) -> &'static str {
        "square"
    }

    fn verify(&self, request: &Inbound<'_>, _now: Timestamp) -> Result<Verified, VerifyFailure> {
        let url = request.url.ok_or(VerifyFailure::NoUrl)?;
        self.0.check(request, &[url.as_bytes(), request.body])?;
        let event = field::read::<Event>(request.body);
        Ok(Verified::new().with_message_id(field::id(event.and_then(|event| event.event_id))))
    }
}
