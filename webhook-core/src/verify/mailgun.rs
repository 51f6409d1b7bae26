//! Mailgun.

use serde::Deserialize;

use super::code::{Hash, matching};
use super::freshness::{FIVE_MINUTES, SECONDS_DIGITS};
use super::{Encoding, Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field, header};
use crate::Timestamp;

const NEEDED: &str = "object `signature` with timestamp, token and signature";

/// Mailgun: `signature` in the JSON body, an HMAC-SHA256 in hex of the `timestamp` and `token` beside it.
///
/// **Nothing else of the body is covered**: whoever saw one request can make up another one with the same signature, as
/// long as it is fresh and its token was not seen. Mailgun advises to remember tokens, so the message id is the token; the
/// window is the receiver's own choice, here five minutes both ways in whole seconds. Where more certainty is needed, ask
/// Mailgun's API about the event.
///
/// Source: Mailgun, "Securing webhooks"
/// (<https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks>).
#[derive(Clone, Debug)]
pub struct Mailgun {
    secrets: LiveSecrets,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    signature: Signature,
}

#[derive(Deserialize)]
struct Signature {
    timestamp: Number,
    token: String,
    signature: String,
}

/// Mailgun writes a number as text; a few of its products write the number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(u64),
}

impl Mailgun {
    /// With the account's webhook signing keys.
    pub const fn new(secrets: LiveSecrets) -> Self {
        Self { secrets, tolerance: Tolerance::within(FIVE_MINUTES) }
    }

    /// With another window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }
}

impl Verifier for Mailgun {
    fn scheme(&self) -> &'static str {
        "mailgun"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let missing = || VerifyFailure::Body { needed: NEEDED };
        let Event { signature } = field::read(request.body).ok_or_else(missing)?;
        let timestamp = match signature.timestamp {
            Number::Text(text) => text,
            Number::Number(number) => number.to_string(),
        };
        let seconds = header::number(timestamp.as_bytes(), SECONDS_DIGITS).ok_or_else(missing)?;
        let given = Encoding::Hex.decode(signature.signature.as_bytes(), 32).ok_or_else(missing)?;
        let content = [timestamp.as_bytes(), signature.token.as_bytes()];
        matching(self.secrets.keys(), &[given], |key| Hash::Sha256.hmac(key, &content))
            .ok_or(VerifyFailure::BodyMismatch)?;
        let signed_at = self.tolerance.check_seconds(seconds, now)?;
        Ok(Verified::new().with_message_id(field::id(Some(signature.token))).with_signed_at(signed_at))
    }
}
