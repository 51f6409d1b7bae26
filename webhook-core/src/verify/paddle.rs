//! Paddle Billing.

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::code::{Hash, matching};
use super::listed::{Listed, Names};
use super::{Inbound, LiveSecrets, Tolerance, Verified, Verifier, VerifyFailure, field, header};
use crate::Timestamp;

const SIGNATURE: HeaderName = HeaderName::from_static("paddle-signature");
const NAMES: Names = Names { separator: ';', timestamp: "ts", signature: "h1" };

/// Paddle Billing: `Paddle-Signature: ts=<seconds>;h1=<hex>`, an HMAC-SHA256 of `ts:body`.
///
/// While a secret is rotated there are several `h1`. The time must not be older than five seconds, to the millisecond,
/// and exactly five seconds are still good; a time in the future is accepted. Both are as in Paddle's own library; hosts
/// whose clock is not that good say so with [`with_tolerance`](Self::with_tolerance). The message id is `event_id` in the
/// body. Paddle Classic (`p_signature`) is another scheme.
///
/// Source: Paddle Developer, "Verify webhook signatures"
/// (<https://developer.paddle.com/webhooks/signature-verification>), and paddle-node-sdk
/// `src/notifications/helpers/webhooks-validator.ts`.
#[derive(Clone, Debug)]
pub struct Paddle {
    secrets: LiveSecrets,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct Event {
    event_id: Option<String>,
}

impl Paddle {
    /// With the notification destination's secret keys.
    pub const fn new(secrets: LiveSecrets) -> Self {
        Self { secrets, tolerance: Tolerance::past(Duration::from_secs(5)) }
    }

    /// With another window.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Tolerance) -> Self {
        self.tolerance = tolerance;
        self
    }
}

impl Verifier for Paddle {
    fn scheme(&self) -> &'static str {
        "paddle"
    }

    fn verify(&self, request: &Inbound<'_>, now: Timestamp) -> Result<Verified, VerifyFailure> {
        let listed = Listed::parse(header::signature(request.headers, &SIGNATURE)?, &NAMES, &SIGNATURE)?;
        let content: [&[u8]; 3] = [listed.timestamp, b":", request.body];
        matching(self.secrets.keys(), &listed.signatures, |key| Hash::Sha256.hmac(key, &content))
            .ok_or_else(|| header::mismatch(&SIGNATURE))?;
        let signed_at = self.tolerance.check_millis(listed.seconds.saturating_mul(1000), now)?;
        let id = field::id(field::read::<Event>(request.body).and_then(|event| event.event_id));
        Ok(Verified::new().with_message_id(id).with_signed_at(signed_at))
    }
}
