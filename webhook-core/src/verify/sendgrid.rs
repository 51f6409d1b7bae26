//! SendGrid.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::freshness::SECONDS_DIGITS;
use super::{Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, header};
use crate::Timestamp;
use crate::signature::SecretError;

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-email-event-webhook-signature");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-twilio-email-event-webhook-timestamp");

/// What stands before the point in every SubjectPublicKeyInfo of a P-256 key (RFC 5480 section 2).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: a 4 and two coordinates.
const POINT: usize = 65;
/// The longest DER of an ECDSA signature with P-256, in bytes.
const MAX_SIGNATURE: usize = 72;

/// SendGrid's event webhook: `X-Twilio-Email-Event-Webhook-Signature: <base64 of DER>`, ECDSA with P-256 and SHA-256 over
/// the time of `X-Twilio-Email-Event-Webhook-Timestamp` and the body, with its final line break.
///
/// SendGrid documents no window, and its own libraries have none, so any time is good unless
/// [`with_tolerance`](Self::with_tolerance) says otherwise. A request carries many events, each with an `sg_event_id`, and
/// has no id itself.
///
/// Source: Twilio SendGrid, "Getting started with the event webhook security features"
/// (<https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features>).
#[derive(Clone, Debug)]
pub struct SendGrid {
    points: Vec<[u8; POINT]>,
    tolerance: Tolerance,
}

impl SendGrid {
    /// With the verification keys of the mail settings: base64 of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    ///
    /// [`SecretError::PublicKey`].
    pub fn new(keys: LiveSecrets) -> Result<Self, SecretError> {
        let points = keys.iter().map(|key| point(key.expose())).collect::<Option<_>>();
        let expected = "a P-256 key in base64 of its SubjectPublicKeyInfo";
        Ok(Self { points: points.ok_or(SecretError::PublicKey { expected })?, tolerance: Tolerance::ANY })
    }

    /// With a window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }
}

impl Verifier for SendGrid {
    fn scheme(&self) -> &'static str {
        "sendgrid"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let value = header::signature(request.headers, &SIGNATURE)?;
        let timestamp = header::required(request.headers, &TIMESTAMP)?;
        let seconds = header::number(timestamp, SECONDS_DIGITS).ok_or_else(|| header::malformed(&TIMESTAMP))?;
        let given = Some(value)
            .filter(|value| (1..=MAX_SIGNATURE.div_ceil(3) * 4).contains(&value.len()))
            .and_then(|value| STANDARD.decode(value).ok())
            .ok_or_else(|| header::malformed(&SIGNATURE))?;
        let content = [timestamp, request.body].concat();
        let verifies = |point: &[u8; POINT]| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&content, &given).is_ok()
        };
        if !self.points.iter().any(verifies) {
            return Err(header::mismatch(&SIGNATURE));
        }
        Ok(Verified::new().with_signed_at(self.tolerance.check_seconds(seconds, now)?))
    }
}

fn point(text: &str) -> Option<[u8; POINT]> {
    let point: [u8; POINT] = STANDARD.decode(text).ok()?.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    (point[0] == 4).then_some(point)
}
