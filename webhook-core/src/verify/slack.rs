//! Slack.

use http::HeaderName;
use serde::Deserialize;

use super::freshness::FIVE_MINUTES;
use super::versioned::Versioned;
use super::{Handshake, Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field};
use crate::Timestamp;

const HEADERS: Versioned = Versioned {
    signature: HeaderName::from_static("x-slack-signature"),
    timestamp: HeaderName::from_static("x-slack-request-timestamp"),
};

/// Slack: `X-Slack-Signature: v0=<hex>`, an HMAC-SHA256 of `v0:time:body` with the time of `X-Slack-Request-Timestamp`.
///
/// For events, commands and interactions alike. The time must be within five minutes of now, both ways and to the
/// millisecond, ends included, as in Slack's own Python library. The message id is `event_id` of an event; commands and
/// interactions have none. A `url_verification` is a handshake: its challenge is the answer.
///
/// Source: Slack, "Verifying requests from Slack"
/// (<https://docs.slack.dev/authentication/verifying-requests-from-slack/>), "`url_verification` event"
/// (<https://docs.slack.dev/reference/events/url_verification/>), and python-slack-sdk `slack_sdk/signature/__init__.py`.
#[derive(Clone, Debug)]
pub struct Slack {
    secrets: LiveSecrets,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    challenge: Option<String>,
    event_id: Option<String>,
}

impl Slack {
    /// With the app's signing secrets.
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

impl Verifier for Slack {
    fn scheme(&self) -> &'static str {
        "slack"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let signed = HEADERS.check(&self.secrets, self.tolerance, request, now)?;
        let verified = Verified::new().with_signed_at(signed.at);
        Ok(match field::read::<Event>(request.body) {
            Some(Event { kind: Some(kind), challenge: Some(challenge), .. }) if kind == "url_verification" => {
                verified.with_handshake(Some(Handshake::ok("text/plain; charset=utf-8", challenge)))
            }
            Some(event) => verified.with_message_id(field::id(event.event_id)),
            None => verified,
        })
    }
}
