//! Discord, and the ed25519 below it.

use ed25519_dalek::ed25519::signature::MultipartVerifier as _;
use ed25519_dalek::{Signature, VerifyingKey};
use http::HeaderName;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::freshness::SECONDS_DIGITS;
use super::{Encoding, Handshake, Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field, header};
use crate::Timestamp;
use crate::signature::SecretError;

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature-ed25519");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-signature-timestamp");

/// Discord: `X-Signature-Ed25519: <hex>` over the time of `X-Signature-Timestamp` and the body.
///
/// For interactions and webhook events. Discord documents no window, and its own library has none, so any time is good
/// unless [`with_tolerance`](Self::with_tolerance) says otherwise. The message id is `id` of an interaction; events have
/// none. A PING is a handshake: interactions (type 1) want `{"type":1}`, events (type 0) want 204. Discord also sends
/// requests with wrong signatures, and takes an endpoint that does not answer them with 401 out of service.
///
/// Source: Discord Developers, "Overview of interactions", "Setting up an endpoint", and "Webhook events"
/// (<https://docs.discord.com/developers/interactions/overview>).
#[derive(Clone, Debug)]
pub struct Discord {
    keys: Vec<PublicKey>,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<u64>,
    id: Option<String>,
    event: Option<IgnoredAny>,
}

impl Discord {
    /// With the app's public keys, in hex.
    ///
    /// # Errors
    ///
    /// [`SecretError::PublicKey`].
    pub fn new(keys: LiveSecrets) -> Result<Self, SecretError> {
        let keys = keys.iter().map(|key| PublicKey::parse(Encoding::Hex, key.expose())).collect::<Result<_, _>>()?;
        Ok(Self { keys, tolerance: Tolerance::ANY })
    }

    /// With a window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }
}

impl Verifier for Discord {
    fn scheme(&self) -> &'static str {
        "discord"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let value = header::signature(request.headers, &SIGNATURE)?;
        let timestamp = header::required(request.headers, &TIMESTAMP)?;
        let seconds = header::number(timestamp, SECONDS_DIGITS).ok_or_else(|| header::malformed(&TIMESTAMP))?;
        let given = Encoding::Hex.decode(value, 64).ok_or_else(|| header::malformed(&SIGNATURE))?;
        let content = [timestamp, request.body];
        if !self.keys.iter().any(|key| key.verifies(&content, &given)) {
            return Err(header::mismatch(&SIGNATURE));
        }
        let signed_at = self.tolerance.check_seconds(seconds, now)?;
        let verified = Verified::new().with_signed_at(signed_at);
        Ok(match field::read::<Event>(request.body) {
            Some(Event { kind: Some(1), event: None, .. }) => {
                verified.with_handshake(Some(Handshake::ok("application/json", r#"{"type":1}"#)))
            }
            Some(Event { kind: Some(0), event: None, .. }) => verified.with_handshake(Some(Handshake::no_content())),
            Some(event) => verified.with_message_id(field::id(event.id)),
            None => verified,
        })
    }
}

/// An ed25519 public key that is not one of the few for which anybody can sign.
#[derive(Clone, Debug)]
pub(super) struct PublicKey(VerifyingKey);

impl PublicKey {
    pub(super) fn parse(encoding: Encoding, text: &str) -> Result<Self, SecretError> {
        let expected = match encoding {
            Encoding::Hex => "an ed25519 key of 32 bytes in hex",
            Encoding::Base64 => "an ed25519 key of 32 bytes in padded standard base64",
        };
        encoding
            .decode(text.as_bytes(), 32)
            .and_then(|bytes| VerifyingKey::try_from(bytes.as_slice()).ok())
            .filter(|key| !key.is_weak())
            .map(Self)
            .ok_or(SecretError::PublicKey { expected })
    }

    /// Public keys and signatures are no secrets: constant time matters nowhere here.
    pub(super) fn verifies(&self, content: &[&[u8]], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.multipart_verify(content, &signature).is_ok())
    }
}
